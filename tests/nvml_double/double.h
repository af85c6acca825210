/* The double of the driver's library: what its C files share.
 * layout.h is generated from layout.py when the library is built. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "layout.h"

#define EXPORT __attribute__((visibility("default")))

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_NO_DATA = 21,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

/* A GPU's handle, or that of a MIG instance of it. */
typedef struct nvmlDevice *nvmlDevice_t;
typedef __int128 wide;

/* One call into the library, from begin to end. */
struct call {
    enum function function;
    unsigned int index;
    struct gpu_state *gpu; /* NULL: the call concerns no GPU */
    struct instance *instance; /* NULL: the call concerns the whole GPU */
    bool locked;
    nvmlReturn_t result;
};

/* driver.c: initialisation, and what every call goes through (counting, hang, latency, faults). */
struct state *driver_state(void);
nvmlDevice_t driver_handle(unsigned int index);
nvmlDevice_t instance_handle(unsigned int index, unsigned int number);
/* Of whole GPUs only; begin_any also takes the handle of a MIG instance. */
nvmlReturn_t begin(struct call *call, enum function function, nvmlDevice_t device);
nvmlReturn_t begin_any(struct call *call, enum function function, nvmlDevice_t device);
nvmlReturn_t begin_index(struct call *call, enum function function, unsigned int index);
nvmlReturn_t begin_system(struct call *call, enum function function);
nvmlReturn_t end(struct call *call);
nvmlReturn_t copy_text(char *to, unsigned int length, const char *from);
int64_t monotonic_ns(void);
uint64_t scramble(uint64_t value);

/* A function with one number as its result: the expression over `call`. */
#define GETTER(name, type, expression)                               \
    EXPORT nvmlReturn_t nvml##name(nvmlDevice_t device, type *value) \
    {                                                                \
        struct call call;                                            \
        if (begin(&call, F_##name, device) == NVML_SUCCESS) {        \
            if (value == NULL)                                       \
                call.result = NVML_ERROR_INVALID_ARGUMENT;           \
            else                                                     \
                *value = (type)(expression);                         \
        }                                                            \
        return end(&call);                                           \
    }

/* For what is written between two increments of gpu->sequence:
 * do { s = read_begin(gpu); read } while (read_again(gpu, s)); */
uint64_t read_begin(const struct gpu_state *gpu);
bool read_again(const struct gpu_state *gpu, uint64_t sequence);

/* curve.c: the scripts, as functions of time; call them between read_begin and read_again. */
wide energy2_at(const struct gpu_state *gpu, int64_t t_ns); /* 2 * uW * ns, from a fixed instant */
int64_t power_uw_at(const struct gpu_state *gpu, int64_t t_ns);
uint64_t utilization_at(const struct gpu_state *gpu, int64_t t_ns);

/* meter.c: what the sensor and the energy counter show. */
unsigned int sensor_mw(const struct gpu_state *gpu, int64_t now_ns, bool average);
nvmlReturn_t counter_mj(unsigned int index, int64_t now_ns, unsigned long long *value_mj);

/* mig.c: where a UUID's handle is; NULL if no instance has it. */
nvmlDevice_t find_instance(const char *uuid, unsigned int *index);

/* control.c */
unsigned int enforced_limit_mw(const struct gpu_state *gpu);
