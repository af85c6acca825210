/* Clocks and power limits: reading them, setting them, and the log of who set what. */
#include "double.h"

#include <unistd.h>

enum { CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEMORY, CLOCK_VIDEO };
enum { CLOCK_ID_CURRENT, CLOCK_ID_APP_TARGET, CLOCK_ID_APP_DEFAULT, CLOCK_ID_CUSTOMER_MAX };

unsigned int enforced_limit_mw(const struct gpu_state *gpu)
{
    uint64_t limit_mw = __atomic_load_n(&gpu->power_limit_mw, __ATOMIC_RELAXED);
    bool capped = gpu->enforced_cap_mw != 0 && gpu->enforced_cap_mw < limit_mw;
    return (unsigned int)(capped ? gpu->enforced_cap_mw : limit_mw);
}

/* The clock that would run, held in the locked range. */
static unsigned int running_mhz(uint64_t requested_mhz, uint64_t lock)
{
    uint64_t min_mhz = lock >> 32, max_mhz = lock & UINT32_MAX;
    if (lock == 0)
        return (unsigned int)requested_mhz;
    if (requested_mhz > max_mhz)
        return (unsigned int)max_mhz;
    return (unsigned int)(requested_mhz < min_mhz ? min_mhz : requested_mhz);
}

static unsigned int clock_mhz(const struct gpu_state *gpu, unsigned int type)
{
    if (type == CLOCK_MEMORY)
        return running_mhz(gpu->memory_clock_requested_mhz,
                           __atomic_load_n(&gpu->memory_lock, __ATOMIC_RELAXED));
    return running_mhz(gpu->sm_clock_requested_mhz,
                       __atomic_load_n(&gpu->sm_lock, __ATOMIC_RELAXED));
}

static unsigned int max_clock_mhz(const struct gpu_state *gpu, unsigned int type)
{
    return (unsigned int)(type == CLOCK_MEMORY ? gpu->memory_clocks_mhz[0] : gpu->sm_clock_max_mhz);
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type,
                                           unsigned int *mhz)
{
    struct call call;
    if (begin(&call, F_DeviceGetClockInfo, device) == NVML_SUCCESS) {
        if (type > CLOCK_VIDEO)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            *mhz = clock_mhz(call.gpu, type);
    }
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned int type, unsigned int id,
                                       unsigned int *mhz)
{
    struct call call;
    if (begin(&call, F_DeviceGetClock, device) == NVML_SUCCESS) {
        if (type > CLOCK_VIDEO || id > CLOCK_ID_CUSTOMER_MAX)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else if (id == CLOCK_ID_CURRENT)
            *mhz = clock_mhz(call.gpu, type);
        else if (id == CLOCK_ID_CUSTOMER_MAX)
            *mhz = max_clock_mhz(call.gpu, type);
        else
            call.result = NVML_ERROR_NOT_SUPPORTED;
    }
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type,
                                              unsigned int *mhz)
{
    struct call call;
    if (begin(&call, F_DeviceGetMaxClockInfo, device) == NVML_SUCCESS) {
        if (type > CLOCK_VIDEO)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            *mhz = max_clock_mhz(call.gpu, type);
    }
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count,
                                                       unsigned int *mhz)
{
    struct call call;
    if (begin(&call, F_DeviceGetSupportedMemoryClocks, device) != NVML_SUCCESS)
        return end(&call);
    unsigned int room = mhz == NULL ? 0 : *count;
    *count = (unsigned int)call.gpu->memory_clock_count;
    if (room < *count)
        call.result = NVML_ERROR_INSUFFICIENT_SIZE;
    else
        for (unsigned int i = 0; i < *count; i++)
            mhz[i] = (unsigned int)call.gpu->memory_clocks_mhz[i];
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device,
                                                         unsigned int memory_mhz,
                                                         unsigned int *count, unsigned int *mhz)
{
    struct call call;
    if (begin(&call, F_DeviceGetSupportedGraphicsClocks, device) != NVML_SUCCESS)
        return end(&call);
    const struct gpu_state *gpu = call.gpu;
    bool known = false;
    for (uint64_t i = 0; i < gpu->memory_clock_count; i++)
        known |= gpu->memory_clocks_mhz[i] == memory_mhz;
    if (!known) {
        call.result = NVML_ERROR_NOT_FOUND;
        return end(&call);
    }
    unsigned int room = mhz == NULL ? 0 : *count;
    uint64_t range_mhz = gpu->sm_clock_max_mhz - gpu->sm_clock_min_mhz;
    *count = (unsigned int)(range_mhz / gpu->sm_clock_step_mhz) + 1;
    if (room < *count)
        call.result = NVML_ERROR_INSUFFICIENT_SIZE;
    else
        for (unsigned int i = 0; i < *count; i++)
            mhz[i] = (unsigned int)(gpu->sm_clock_max_mhz - i * gpu->sm_clock_step_mhz);
    return end(&call);
}

#define ALL_REASONS 0x1FF

GETTER(DeviceGetCurrentClocksEventReasons, unsigned long long, call.gpu->clock_event_reasons)
GETTER(DeviceGetCurrentClocksThrottleReasons, unsigned long long, call.gpu->clock_event_reasons)
GETTER(DeviceGetSupportedClocksEventReasons, unsigned long long, ALL_REASONS)
GETTER(DeviceGetSupportedClocksThrottleReasons, unsigned long long, ALL_REASONS)
GETTER(DeviceGetPowerManagementMode, unsigned int, 1)
GETTER(DeviceGetPowerManagementLimit, unsigned int, call.gpu->power_limit_mw)
GETTER(DeviceGetPowerManagementDefaultLimit, unsigned int, call.gpu->power_limit_default_mw)
GETTER(DeviceGetEnforcedPowerLimit, unsigned int, enforced_limit_mw(call.gpu))

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device,
                                                                 unsigned int *min_mw,
                                                                 unsigned int *max_mw)
{
    struct call call;
    if (begin(&call, F_DeviceGetPowerManagementLimitConstraints, device) == NVML_SUCCESS) {
        *min_mw = (unsigned int)call.gpu->power_limit_min_mw;
        *max_mw = (unsigned int)call.gpu->power_limit_max_mw;
    }
    return end(&call);
}

static nvmlReturn_t end_logged(struct call *call, unsigned int arg_count, uint64_t first,
                               uint64_t second)
{
    struct state *state = driver_state();
    if (call->gpu != NULL) {
        uint64_t number = __atomic_fetch_add(&state->log_count, 1, __ATOMIC_RELAXED);
        struct log_entry *entry = &state->log[number % LOG_CAPACITY];
        __atomic_store_n(&entry->number, 0, __ATOMIC_RELEASE);
        entry->t_ns = monotonic_ns();
        entry->pid = (uint64_t)getpid();
        entry->function = call->function;
        entry->gpu = call->index;
        entry->args[0] = first;
        entry->args[1] = second;
        entry->arg_count = arg_count;
        entry->result = call->result;
        __atomic_store_n(&entry->number, number + 1, __ATOMIC_RELEASE);
    }
    return end(call);
}

EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int limit_mw)
{
    struct call call;
    if (begin(&call, F_DeviceSetPowerManagementLimit, device) == NVML_SUCCESS) {
        struct gpu_state *gpu = call.gpu;
        if (limit_mw < gpu->power_limit_min_mw || limit_mw > gpu->power_limit_max_mw)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            __atomic_store_n(&gpu->power_limit_mw, limit_mw, __ATOMIC_RELAXED);
    }
    return end_logged(&call, 1, limit_mw, 0);
}

static nvmlReturn_t set_lock(uint64_t *lock, uint64_t lowest_mhz, uint64_t highest_mhz,
                             unsigned int min_mhz, unsigned int max_mhz)
{
    if (min_mhz > max_mhz || min_mhz < lowest_mhz || max_mhz > highest_mhz)
        return NVML_ERROR_INVALID_ARGUMENT;
    __atomic_store_n(lock, (uint64_t)min_mhz << 32 | max_mhz, __ATOMIC_RELAXED);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned int min_mhz,
                                                 unsigned int max_mhz)
{
    struct call call;
    if (begin(&call, F_DeviceSetGpuLockedClocks, device) == NVML_SUCCESS)
        call.result = set_lock(&call.gpu->sm_lock, call.gpu->sm_clock_min_mhz,
                               call.gpu->sm_clock_max_mhz, min_mhz, max_mhz);
    return end_logged(&call, 2, min_mhz, max_mhz);
}

EXPORT nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, unsigned int min_mhz,
                                                    unsigned int max_mhz)
{
    struct call call;
    if (begin(&call, F_DeviceSetMemoryLockedClocks, device) == NVML_SUCCESS) {
        struct gpu_state *gpu = call.gpu;
        call.result = set_lock(&gpu->memory_lock, gpu->memory_clocks_mhz[gpu->memory_clock_count - 1],
                               gpu->memory_clocks_mhz[0], min_mhz, max_mhz);
    }
    return end_logged(&call, 2, min_mhz, max_mhz);
}

EXPORT nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
    struct call call;
    if (begin(&call, F_DeviceResetGpuLockedClocks, device) == NVML_SUCCESS)
        __atomic_store_n(&call.gpu->sm_lock, 0, __ATOMIC_RELAXED);
    return end_logged(&call, 0, 0, 0);
}

EXPORT nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device)
{
    struct call call;
    if (begin(&call, F_DeviceResetMemoryLockedClocks, device) == NVML_SUCCESS)
        __atomic_store_n(&call.gpu->memory_lock, 0, __ATOMIC_RELAXED);
    return end_logged(&call, 0, 0, 0);
}
