/* The scripts, as functions of time. A reader may see a script half written (it then reads
 * again), so nothing here trusts the order of breakpoints further than memory safety needs. */
#include "double.h"

static uint64_t clamped(uint64_t count)
{
    uint64_t capacity = driver_state()->capacity;
    return count < capacity ? count : capacity;
}

static const struct breakpoint *breakpoints(const struct gpu_state *gpu)
{
    return (const struct breakpoint *)((const char *)driver_state() + gpu->breakpoint_offset);
}

/* The number of breakpoints at or before t: of several at one instant, the last one counts. */
static uint64_t breakpoints_until(const struct gpu_state *gpu, int64_t t_ns)
{
    const struct breakpoint *all = breakpoints(gpu);
    uint64_t low = 0, high = clamped(gpu->breakpoint_count);
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (all[middle].t_ns <= t_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static wide energy2_of(const struct breakpoint *point)
{
    return ((wide)point->energy2_high << 64) | point->energy2_low;
}

static bool has_next(const struct gpu_state *gpu, uint64_t until)
{
    const struct breakpoint *at = &breakpoints(gpu)[until - 1];
    return until < clamped(gpu->breakpoint_count) && at[1].t_ns > at->t_ns;
}

/* Rounded down, for a positive divisor. */
static wide divide(wide value, wide by)
{
    wide quotient = value / by;
    return value % by < 0 ? quotient - 1 : quotient;
}

wide energy2_at(const struct gpu_state *gpu, int64_t t_ns)
{
    uint64_t until = breakpoints_until(gpu, t_ns);
    const struct breakpoint *first = breakpoints(gpu);
    if (until == 0) {
        /* Zero lies at the first breakpoint; without one, at the clock's zero. */
        int64_t zero_ns = clamped(gpu->breakpoint_count) ? first->t_ns : 0;
        return 2 * (wide)gpu->base_power_uw * (t_ns - zero_ns);
    }
    const struct breakpoint *at = &first[until - 1];
    wide dt = t_ns - at->t_ns;
    wide energy2 = energy2_of(at) + 2 * dt * at->power_uw;
    if (has_next(gpu, until))
        energy2 += divide(dt * dt * (at[1].power_uw - at->power_uw), at[1].t_ns - at->t_ns);
    return energy2;
}

int64_t power_uw_at(const struct gpu_state *gpu, int64_t t_ns)
{
    uint64_t until = breakpoints_until(gpu, t_ns);
    if (until == 0)
        return gpu->base_power_uw;
    const struct breakpoint *at = &breakpoints(gpu)[until - 1];
    if (!has_next(gpu, until))
        return at->power_uw;
    wide rise = (wide)(at[1].power_uw - at->power_uw) * (t_ns - at->t_ns);
    return at->power_uw + (int64_t)divide(rise, at[1].t_ns - at->t_ns);
}

uint64_t utilization_at(const struct gpu_state *gpu, int64_t t_ns)
{
    const struct step *all = (const struct step *)((const char *)driver_state() + gpu->step_offset);
    uint64_t low = 0, high = clamped(gpu->step_count);
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (all[middle].t_ns <= t_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? gpu->base_utilization_percent : all[low - 1].percent;
}
