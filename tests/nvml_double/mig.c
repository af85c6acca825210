/* Multi-Instance GPU: cards that are split into instances, each with a handle of its own. */
#include "double.h"

#include <string.h>

#define SM_PER_SLICE 14 /* as on an A100 */

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current,
                                         unsigned int *pending)
{
    struct call call;
    if (begin(&call, F_DeviceGetMigMode, device) == NVML_SUCCESS)
        *current = *pending = (unsigned int)call.gpu->mig_enabled;
    return end(&call);
}

GETTER(DeviceGetMaxMigDeviceCount, unsigned int,
       call.gpu->mig_enabled ? call.gpu->compute_slices : 0)

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int number,
                                                        nvmlDevice_t *instance)
{
    struct call call;
    if (begin(&call, F_DeviceGetMigDeviceHandleByIndex, device) != NVML_SUCCESS)
        return end(&call);
    if (!call.gpu->mig_enabled)
        call.result = NVML_ERROR_NOT_SUPPORTED;
    else if (number >= call.gpu->compute_slices)
        call.result = NVML_ERROR_INVALID_ARGUMENT;
    else if (!call.gpu->instances[number].present)
        call.result = NVML_ERROR_NOT_FOUND;
    else
        *instance = instance_handle(call.index, number);
    return end(&call);
}

nvmlDevice_t find_instance(const char *uuid, unsigned int *index)
{
    struct state *state = driver_state();
    for (*index = 0; *index < state->gpu_count; ++*index) {
        const struct gpu_state *gpu = &state->gpus[*index];
        for (unsigned int number = 0; gpu->mig_enabled && number < MAX_INSTANCES; number++)
            if (gpu->instances[number].present && strcmp(uuid, gpu->instances[number].uuid) == 0)
                return instance_handle(*index, number);
    }
    return NULL;
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_instance)
{
    struct call call;
    if (begin_any(&call, F_DeviceIsMigDeviceHandle, device) == NVML_SUCCESS)
        *is_instance = call.instance != NULL;
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t instance,
                                                                 nvmlDevice_t *device)
{
    struct call call;
    if (begin_any(&call, F_DeviceGetDeviceHandleFromMigDeviceHandle, instance) == NVML_SUCCESS) {
        if (call.instance == NULL)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            *device = driver_handle(call.index);
    }
    return end(&call);
}

/* A function of instances alone, with one number as its result. */
#define INSTANCE_GETTER(name, member)                                      \
    EXPORT nvmlReturn_t nvml##name(nvmlDevice_t instance, unsigned int *id) \
    {                                                                      \
        struct call call;                                                  \
        if (begin_any(&call, F_##name, instance) == NVML_SUCCESS) {        \
            if (call.instance == NULL)                                     \
                call.result = NVML_ERROR_INVALID_ARGUMENT;                 \
            else                                                           \
                *id = (unsigned int)call.instance->member;                 \
        }                                                                  \
        return end(&call);                                                 \
    }

INSTANCE_GETTER(DeviceGetGpuInstanceId, gpu_instance_id)
INSTANCE_GETTER(DeviceGetComputeInstanceId, compute_instance_id)

typedef struct {
    unsigned int multiprocessorCount;
    unsigned int sharedCopyEngineCount;
    unsigned int sharedDecoderCount;
    unsigned int sharedEncoderCount;
    unsigned int sharedJpegCount;
    unsigned int sharedOfaCount;
    unsigned int gpuInstanceSliceCount;
    unsigned int computeInstanceSliceCount;
    unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

/* Only of instances, as the driver's. */
EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t instance,
                                               nvmlDeviceAttributes_t *attributes)
{
    struct call call;
    if (begin_any(&call, F_DeviceGetAttributes_v2, instance) != NVML_SUCCESS)
        return end(&call);
    if (call.instance == NULL) {
        call.result = NVML_ERROR_NOT_SUPPORTED;
        return end(&call);
    }
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = SM_PER_SLICE * (unsigned int)call.instance->compute_slices,
        .gpuInstanceSliceCount = (unsigned int)call.instance->gpu_slices,
        .computeInstanceSliceCount = (unsigned int)call.instance->compute_slices,
        .memorySizeMB = call.instance->memory_mib,
    };
    return end(&call);
}

typedef struct {
    unsigned int id;
    unsigned int isP2pSupported;
    unsigned int sliceCount;
    unsigned int instanceCount;
    unsigned int multiprocessorCount;
    unsigned int copyEngineCount;
    unsigned int decoderCount;
    unsigned int encoderCount;
    unsigned int jpegCount;
    unsigned int ofaCount;
    unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;

/* Into what instances the card can be split; the profile with most slices is the whole card. */
EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int profile,
                                                        nvmlGpuInstanceProfileInfo_t *info)
{
    static const unsigned int slices[] = {1, 2, 3, 4, 7};
    struct call call;
    if (begin(&call, F_DeviceGetGpuInstanceProfileInfo, device) != NVML_SUCCESS)
        return end(&call);
    unsigned int all = (unsigned int)call.gpu->compute_slices;
    bool known = profile < sizeof slices / sizeof *slices;
    /* A card of four slices has no instances of three. */
    if (!call.gpu->mig_enabled || !known || slices[profile] > all ||
        (slices[profile] == 3 && all == 4))
        call.result = NVML_ERROR_NOT_SUPPORTED;
    else
        *info = (nvmlGpuInstanceProfileInfo_t){
            .id = profile,
            .sliceCount = slices[profile],
            .instanceCount = all / slices[profile],
            .multiprocessorCount = SM_PER_SLICE * slices[profile],
            .memorySizeMB = (call.gpu->memory_total_bytes >> 20) * slices[profile] / all,
        };
    return end(&call);
}
