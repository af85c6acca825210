/* Who the GPUs are and what they do: functions that only read plain fields of the state. */
#include "double.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TEXT_GETTER(name, begin_call, text_of_call)                                       \
    EXPORT nvmlReturn_t nvml##name(nvmlDevice_t device, char *text, unsigned int length)    \
    {                                                                                       \
        struct call call;                                                                   \
        if (begin_call(&call, F_##name, device) == NVML_SUCCESS)                            \
            call.result = copy_text(text, length, text_of_call);                            \
        return end(&call);                                                                  \
    }

TEXT_GETTER(DeviceGetUUID, begin_any, call.instance ? call.instance->uuid : call.gpu->uuid)
TEXT_GETTER(DeviceGetName, begin_any, call.instance ? call.instance->name : call.gpu->name)
TEXT_GETTER(DeviceGetSerial, begin, call.gpu->serial)
GETTER(DeviceGetIndex, unsigned int, call.index)
GETTER(DeviceGetMinorNumber, unsigned int, call.index)
GETTER(DeviceGetBrand, unsigned int, call.gpu->brand)
GETTER(DeviceGetArchitecture, unsigned int, call.gpu->architecture)
GETTER(DeviceGetPersistenceMode, unsigned int, call.gpu->persistence)
GETTER(DeviceGetPerformanceState, unsigned int, call.gpu->performance_state)
GETTER(DeviceGetFanSpeed, unsigned int, call.gpu->fan_percent)

static nvmlReturn_t find(enum function function, unsigned int index, nvmlDevice_t found,
                         nvmlDevice_t *device)
{
    struct call call;
    if (index >= driver_state()->gpu_count)
        return NVML_ERROR_NOT_FOUND;
    if (begin_index(&call, function, index) == NVML_SUCCESS)
        *device = found;
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    struct call call;
    if (begin_index(&call, F_DeviceGetHandleByIndex_v2, index) == NVML_SUCCESS)
        *device = driver_handle(index);
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    unsigned int index = 0;
    if (driver_state() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    nvmlDevice_t found = find_instance(uuid, &index);
    if (found != NULL)
        return find(F_DeviceGetHandleByUUID, index, found, device);
    index = 0;
    while (index < driver_state()->gpu_count && strcmp(uuid, driver_state()->gpus[index].uuid) != 0)
        index++;
    return find(F_DeviceGetHandleByUUID, index, driver_handle(index), device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    unsigned int index = 0;
    if (driver_state() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    for (; index < driver_state()->gpu_count; index++) {
        const char *own = driver_state()->gpus[index].pci_bus_id;
        /* The old form has four digits of domain, the new one eight. */
        if (strcasecmp(bus_id, own) == 0 || strcasecmp(bus_id, own + 4) == 0)
            break;
    }
    return find(F_DeviceGetHandleByPciBusId_v2, index, driver_handle(index), device);
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct call call;
    if (begin(&call, F_DeviceGetCudaComputeCapability, device) == NVML_SUCCESS) {
        *major = (int)call.gpu->compute_major;
        *minor = (int)call.gpu->compute_minor;
    }
    return end(&call);
}

typedef struct {
    char busIdLegacy[16];
    unsigned int domain;
    unsigned int bus;
    unsigned int device;
    unsigned int pciDeviceId;
    unsigned int pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
    struct call call;
    if (begin(&call, F_DeviceGetPciInfo_v3, device) == NVML_SUCCESS) {
        *info = (nvmlPciInfo_t){.bus = (unsigned int)call.gpu->pci_bus};
        copy_text(info->busId, sizeof info->busId, call.gpu->pci_bus_id);
        copy_text(info->busIdLegacy, sizeof info->busIdLegacy, call.gpu->pci_bus_id + 4);
    }
    return end(&call);
}

typedef struct {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total;
    unsigned long long reserved;
    unsigned long long free;
    unsigned long long used;
} nvmlMemory_v2_t;

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct call call;
    if (begin(&call, F_DeviceGetMemoryInfo, device) == NVML_SUCCESS) {
        memory->total = call.gpu->memory_total_bytes;
        memory->used = call.gpu->memory_used_bytes;
        memory->free = memory->total - memory->used;
    }
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct call call;
    if (begin(&call, F_DeviceGetMemoryInfo_v2, device) == NVML_SUCCESS) {
        if (memory->version != (sizeof *memory | 2u << 24)) {
            call.result = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
        } else {
            memory->total = call.gpu->memory_total_bytes;
            memory->reserved = 0;
            memory->used = call.gpu->memory_used_bytes;
            memory->free = memory->total - memory->used;
        }
    }
    return end(&call);
}

typedef struct {
    unsigned int gpu;
    unsigned int memory;
} nvmlUtilization_t;

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    struct call call;
    if (begin(&call, F_DeviceGetUtilizationRates, device) != NVML_SUCCESS)
        return end(&call);
    if (call.gpu->mig_enabled) { /* only the instances have it */
        call.result = NVML_ERROR_NOT_SUPPORTED;
        return end(&call);
    }
    uint64_t sequence;
    do {
        sequence = read_begin(call.gpu);
        rates->gpu = (unsigned int)utilization_at(call.gpu, monotonic_ns());
        rates->memory = (unsigned int)call.gpu->memory_utilization_percent;
    } while (read_again(call.gpu, sequence));
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor,
                                             unsigned int *celsius)
{
    struct call call;
    if (begin(&call, F_DeviceGetTemperature, device) == NVML_SUCCESS) {
        if (sensor != 0)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            *celsius = (unsigned int)call.gpu->temperature_c;
    }
    return end(&call);
}

typedef struct {
    unsigned int version;
    unsigned int sensorType;
    int temperature;
} nvmlTemperature_t;

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    struct call call;
    if (begin(&call, F_DeviceGetTemperatureV, device) == NVML_SUCCESS) {
        if (temperature->version != (sizeof *temperature | 1u << 24))
            call.result = NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
        else if (temperature->sensorType != 0)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            temperature->temperature = (int)call.gpu->temperature_c;
    }
    return end(&call);
}

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId;
    unsigned int computeInstanceId;
} nvmlProcessInfo_t;

#define NO_INSTANCE 0xFFFFFFFFu

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device,
                                                            unsigned int *count,
                                                            nvmlProcessInfo_t *infos)
{
    struct call call;
    if (begin(&call, F_DeviceGetComputeRunningProcesses_v3, device) != NVML_SUCCESS)
        return end(&call);
    uint64_t sequence;
    unsigned int running, room = *count;
    do {
        sequence = read_begin(call.gpu);
        running = (unsigned int)call.gpu->process_count;
        for (unsigned int i = 0; i < running && i < room && i < MAX_PROCESSES; i++)
            infos[i] = (nvmlProcessInfo_t){
                .pid = (unsigned int)call.gpu->processes[i].pid,
                .usedGpuMemory = call.gpu->processes[i].memory_bytes,
                .gpuInstanceId = NO_INSTANCE,
                .computeInstanceId = NO_INSTANCE,
            };
    } while (read_again(call.gpu, sequence));
    if (running > room)
        call.result = NVML_ERROR_INSUFFICIENT_SIZE;
    *count = running;
    return end(&call);
}

/* There are only compute processes here. */
#define NO_PROCESSES(name)                                                           \
    EXPORT nvmlReturn_t nvml##name(nvmlDevice_t device, unsigned int *count, void *infos) \
    {                                                                                \
        struct call call;                                                            \
        (void)infos;                                                                 \
        if (begin(&call, F_##name, device) == NVML_SUCCESS)                          \
            *count = 0;                                                              \
        return end(&call);                                                           \
    }

NO_PROCESSES(DeviceGetGraphicsRunningProcesses_v3)
NO_PROCESSES(DeviceGetMPSComputeRunningProcesses_v3)

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int error_type,
                                                unsigned int counter_type,
                                                unsigned long long *count)
{
    struct call call;
    (void)error_type;
    (void)counter_type;
    if (begin(&call, F_DeviceGetTotalEccErrors, device) == NVML_SUCCESS)
        *count = 0;
    return end(&call);
}
