/* What the power sensor and the energy counter show: functions of the time, of the script and of
 * nothing else (but for the faults), so that the Python side can compute the same. */
#include "double.h"

#include <time.h>

#define UW_NS_PER_MJ ((wide)1000000000000)

static int64_t floor_divide(int64_t value, int64_t by)
{
    int64_t quotient = value / by;
    return value % by < 0 ? quotient - 1 : quotient;
}

static int64_t sensor_edge_ns(const struct gpu_state *gpu, int64_t number)
{
    return gpu->sensor_phase_ns + number * gpu->sensor_period_ns;
}

static int64_t last_sensor_edge(const struct gpu_state *gpu, int64_t t_ns)
{
    return floor_divide(t_ns - gpu->sensor_phase_ns, gpu->sensor_period_ns);
}

/* The mean true power over the window that ends at an edge, to the nearest mW. */
static int64_t reading_mw(const struct gpu_state *gpu, int64_t edge_ns, int64_t window_ns)
{
    if (window_ns == 0)
        return (power_uw_at(gpu, edge_ns) + 500) / 1000;
    wide energy2 = energy2_at(gpu, edge_ns) - energy2_at(gpu, edge_ns - window_ns);
    return (int64_t)((energy2 + (wide)1000 * window_ns) / ((wide)2000 * window_ns));
}

unsigned int sensor_mw(const struct gpu_state *gpu, int64_t now_ns, bool average)
{
    uint64_t sequence;
    int64_t value_mw;
    do {
        sequence = read_begin(gpu);
        int64_t edge_ns = sensor_edge_ns(gpu, last_sensor_edge(gpu, now_ns));
        int64_t window_ns =
            average ? gpu->sensor_average_window_ns : gpu->sensor_instant_window_ns;
        value_mw = reading_mw(gpu, edge_ns, window_ns);
    } while (read_again(gpu, sequence));
    return (unsigned int)value_mw;
}

static int64_t counter_edge_ns(const struct gpu_state *gpu, int64_t number)
{
    int64_t jitter_ns = 0;
    if (gpu->counter_jitter_ns > 0) {
        uint64_t span = 2 * (uint64_t)gpu->counter_jitter_ns + 1;
        uint64_t drawn = scramble(gpu->counter_seed ^ scramble((uint64_t)number)) % span;
        jitter_ns = (int64_t)drawn - gpu->counter_jitter_ns;
    }
    return gpu->counter_phase_ns + number * gpu->counter_period_ns + jitter_ns;
}

/* The instant of the last edge at or before t; jitter is less than half a period. */
static int64_t last_counter_edge_ns(const struct gpu_state *gpu, int64_t t_ns)
{
    int64_t number = floor_divide(t_ns - gpu->counter_phase_ns, gpu->counter_period_ns) + 1;
    while (counter_edge_ns(gpu, number) > t_ns)
        number--;
    return counter_edge_ns(gpu, number);
}

/* The sum of the sensor's readings (each holds for one period), in mW*ns; goes on from the last
 * call's sum as long as nothing was scripted in between. */
static wide sensor_sum_mw_ns(unsigned int index, uint64_t sequence, int64_t edge_ns)
{
    static struct {
        uint64_t sequence;
        bool valid;
        int64_t number;
        wide sum;
    } caches[MAX_GPUS];
    const struct gpu_state *gpu = &driver_state()->gpus[index];
    int64_t last = last_sensor_edge(gpu, edge_ns);
    if (!caches[index].valid || caches[index].sequence != sequence ||
        caches[index].number > last) {
        caches[index].valid = true;
        caches[index].sequence = sequence;
        caches[index].number = last_sensor_edge(gpu, gpu->counter_origin_ns);
        caches[index].sum = 0;
    }
    while (caches[index].number < last) {
        int64_t at_ns = sensor_edge_ns(gpu, ++caches[index].number);
        caches[index].sum +=
            (wide)reading_mw(gpu, at_ns, gpu->sensor_instant_window_ns) * gpu->sensor_period_ns;
    }
    return caches[index].sum;
}

static int64_t counted_mj(unsigned int index, uint64_t sequence, int64_t now_ns)
{
    const struct gpu_state *gpu = &driver_state()->gpus[index];
    int64_t until_ns = now_ns < gpu->counter_stuck_ns ? now_ns : gpu->counter_stuck_ns;
    int64_t edge_ns = last_counter_edge_ns(gpu, until_ns);
    /* After a reset the counter shows its offset until the next edge. */
    if (edge_ns <= gpu->counter_origin_ns)
        return gpu->counter_offset_mj;
    wide uw_ns;
    if (gpu->counter_sums_sensor)
        uw_ns = 1000 * sensor_sum_mw_ns(index, sequence, edge_ns);
    else
        uw_ns = (energy2_at(gpu, edge_ns) - energy2_at(gpu, gpu->counter_origin_ns)) / 2;
    return gpu->counter_offset_mj + (int64_t)(uw_ns / UW_NS_PER_MJ);
}

nvmlReturn_t counter_mj(unsigned int index, int64_t now_ns, unsigned long long *value_mj)
{
    const struct gpu_state *gpu = &driver_state()->gpus[index];
    uint64_t sequence;
    nvmlReturn_t result;
    do {
        sequence = read_begin(gpu);
        result = gpu->counter_supported ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
        if (result != NVML_SUCCESS)
            continue;
        if (gpu->counter_absurd) {
            *value_mj = gpu->counter_absurd_mj;
            continue;
        }
        int64_t counted = counted_mj(index, sequence, now_ns);
        *value_mj = counted > 0 ? (unsigned long long)counted : 0;
    } while (read_again(gpu, sequence));
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power_mw)
{
    struct call call;
    if (begin(&call, F_DeviceGetPowerUsage, device) == NVML_SUCCESS) {
        if (power_mw == NULL)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            *power_mw = sensor_mw(call.gpu, monotonic_ns(), call.gpu->sensor_usage_is_average);
    }
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device,
                                                        unsigned long long *energy_mj)
{
    struct call call;
    if (begin(&call, F_DeviceGetTotalEnergyConsumption, device) == NVML_SUCCESS) {
        if (energy_mj == NULL)
            call.result = NVML_ERROR_INVALID_ARGUMENT;
        else
            call.result = counter_mj(call.index, monotonic_ns(), energy_mj);
    }
    return end(&call);
}

enum { TYPE_UNSIGNED_INT = 1, TYPE_UNSIGNED_LONG_LONG = 3 };

typedef struct {
    unsigned int fieldId;
    unsigned int scopeId;
    long long timestamp;
    long long latencyUsec;
    unsigned int valueType;
    unsigned int nvmlReturn;
    union {
        double dVal;
        unsigned int uiVal;
        unsigned long long ullVal;
    } value;
} nvmlFieldValue_t;

static int position(const unsigned int *ids, int count, unsigned int id)
{
    for (int i = 0; i < count; i++)
        if (ids[i] == id)
            return i;
    return -1;
}

static void answer_field(const struct call *call, nvmlFieldValue_t *field, int64_t now_ns)
{
    static const unsigned int ids[] = {FIELD_IDS};
    static const unsigned int event_ids[] = {EVENT_FIELD_IDS};
    const struct gpu_state *gpu = call->gpu;
    int bit = position(ids, FIELD_COUNT, field->fieldId);
    field->value.ullVal = 0;
    field->nvmlReturn = NVML_SUCCESS;
    field->valueType = TYPE_UNSIGNED_INT;
    if (bit < 0 || !(gpu->fields >> bit & 1)) {
        field->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
        return;
    }
    switch (field->fieldId) {
    case 83:
    case 191:
        field->valueType = TYPE_UNSIGNED_LONG_LONG;
        field->nvmlReturn = counter_mj(call->index, now_ns, &field->value.ullVal);
        break;
    case 185:
    case 186:
        field->value.uiVal = sensor_mw(gpu, now_ns, field->fieldId == 185);
        break;
    case 187:
        field->value.uiVal = (unsigned int)gpu->power_limit_min_mw;
        break;
    case 188:
        field->value.uiVal = (unsigned int)gpu->power_limit_max_mw;
        break;
    case 189:
        field->value.uiVal = (unsigned int)gpu->power_limit_default_mw;
        break;
    case 190:
        field->value.uiVal = enforced_limit_mw(gpu);
        break;
    case 192:
        field->value.uiVal = (unsigned int)gpu->power_limit_mw;
        break;
    default:
        field->valueType = TYPE_UNSIGNED_LONG_LONG;
        field->value.ullVal = gpu->event_ns[position(event_ids, EVENT_FIELD_COUNT, field->fieldId)];
    }
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count,
                                             nvmlFieldValue_t *values)
{
    struct call call;
    if (begin(&call, F_DeviceGetFieldValues, device) != NVML_SUCCESS)
        return end(&call);
    if (count <= 0 || values == NULL) {
        call.result = NVML_ERROR_INVALID_ARGUMENT;
        return end(&call);
    }
    int64_t now_ns = monotonic_ns();
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < count; i++) {
        answer_field(&call, &values[i], now_ns);
        values[i].timestamp = now.tv_sec * 1000000LL + now.tv_nsec / 1000;
        values[i].latencyUsec = (monotonic_ns() - now_ns) / 1000;
    }
    return end(&call);
}
