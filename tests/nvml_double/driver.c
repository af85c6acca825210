/* Initialisation, and what every call goes through: counting, hang, serialisation, latency,
 * faults. */
#include "double.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SPIN_BELOW_NS 50000 /* a sleep cannot be shorter than the timer's slack */
#define POLL_NS 1000000

struct nvmlDevice {
    unsigned int index;
    unsigned int instance; /* of a handle in `instances` */
};

static struct nvmlDevice devices[MAX_GPUS];
static struct nvmlDevice instances[MAX_GPUS * MAX_INSTANCES];
static struct state *state;
static int references;
static pthread_mutex_t setup = PTHREAD_MUTEX_INITIALIZER;
/* The driver answers one call after the other. */
static pthread_mutex_t driver = PTHREAD_MUTEX_INITIALIZER;

struct state *driver_state(void)
{
    return state;
}

nvmlDevice_t driver_handle(unsigned int index)
{
    return &devices[index];
}

nvmlDevice_t instance_handle(unsigned int index, unsigned int number)
{
    return &instances[index * MAX_INSTANCES + number];
}

int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void sleep_until(int64_t t_ns)
{
    struct timespec until = {.tv_sec = t_ns / 1000000000, .tv_nsec = t_ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
        ;
}

static void delay(uint64_t latency_ns)
{
    if (latency_ns == 0)
        return;
    int64_t until = monotonic_ns() + (int64_t)latency_ns;
    if (latency_ns >= SPIN_BELOW_NS)
        sleep_until(until);
    while (monotonic_ns() < until)
        ;
}

/* The finaliser of splitmix64: a hash good enough for jitter and sporadic errors. */
uint64_t scramble(uint64_t value)
{
    value += UINT64_C(0x9E3779B97F4A7C15);
    value = (value ^ (value >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94D049BB133111EB);
    return value ^ (value >> 31);
}

uint64_t read_begin(const struct gpu_state *gpu)
{
    uint64_t sequence;
    while ((sequence = __atomic_load_n(&gpu->sequence, __ATOMIC_ACQUIRE)) & 1)
        sleep_until(monotonic_ns() + 10000);
    return sequence;
}

bool read_again(const struct gpu_state *gpu, uint64_t sequence)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&gpu->sequence, __ATOMIC_RELAXED) != sequence;
}

static struct state *map_state(void)
{
    const char *path = getenv("NVML_DOUBLE_STATE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return NULL;
    struct stat info;
    void *at = MAP_FAILED;
    if (fstat(file, &info) == 0 && (size_t)info.st_size >= sizeof(struct state))
        at = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at == MAP_FAILED)
        return NULL;
    struct state *mapped = at;
    if (mapped->magic != STATE_MAGIC || mapped->version != STATE_VERSION ||
        mapped->size != (uint64_t)info.st_size || mapped->gpu_count > MAX_GPUS) {
        munmap(at, (size_t)info.st_size);
        return NULL;
    }
    return mapped;
}

static nvmlReturn_t initialise(enum function function)
{
    nvmlReturn_t result = NVML_SUCCESS;
    pthread_mutex_lock(&setup);
    if (state == NULL) {
        state = map_state();
        for (unsigned int index = 0; index < MAX_GPUS; index++)
            devices[index].index = index;
        for (unsigned int at = 0; at < MAX_GPUS * MAX_INSTANCES; at++)
            instances[at] = (struct nvmlDevice){at / MAX_INSTANCES, at % MAX_INSTANCES};
    }
    if (state != NULL)
        __atomic_fetch_add(&state->calls[function], 1, __ATOMIC_RELAXED);
    if (state == NULL || !state->driver_loaded)
        result = NVML_ERROR_DRIVER_NOT_LOADED;
    else
        __atomic_fetch_add(&references, 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&setup);
    return result;
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(F_Init_v2);
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return initialise(F_InitWithFlags);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t result = NVML_ERROR_UNINITIALIZED;
    pthread_mutex_lock(&setup);
    if (references > 0) {
        __atomic_fetch_add(&state->calls[F_Shutdown], 1, __ATOMIC_RELAXED);
        __atomic_fetch_sub(&references, 1, __ATOMIC_RELEASE);
        result = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&setup);
    return result;
}

static void lock_driver(struct call *call)
{
    pthread_mutex_lock(&driver);
    call->locked = true;
    delay(state->call_latency_ns);
}

static nvmlReturn_t fault(const struct gpu_state *gpu, enum function function, uint64_t call)
{
    uint64_t packed = __atomic_load_n(&gpu->faults[function], __ATOMIC_RELAXED);
    uint64_t rate_ppm = packed & UINT32_MAX;
    bool strikes = scramble(call) % 1000000 < rate_ppm;
    return strikes ? (nvmlReturn_t)(packed >> 32) : NVML_SUCCESS;
}

/* Outside the driver's lock: a GPU that hangs must not hold up the others. */
static void wait_while_hanging(const struct gpu_state *gpu)
{
    int64_t now = monotonic_ns();
    while (now < __atomic_load_n(&gpu->hang_until_ns, __ATOMIC_RELAXED)) {
        sleep_until(now + POLL_NS);
        now = monotonic_ns();
    }
}

nvmlReturn_t begin_index(struct call *call, enum function function, unsigned int index)
{
    *call = (struct call){.function = function, .result = NVML_ERROR_UNINITIALIZED};
    if (__atomic_load_n(&references, __ATOMIC_ACQUIRE) == 0)
        return call->result;
    if (index >= state->gpu_count)
        return call->result = NVML_ERROR_INVALID_ARGUMENT;
    call->index = index;
    call->gpu = &state->gpus[index];
    uint64_t count = __atomic_fetch_add(&call->gpu->calls[function], 1, __ATOMIC_RELAXED);
    wait_while_hanging(call->gpu);
    lock_driver(call);
    if (__atomic_load_n(&call->gpu->lost, __ATOMIC_RELAXED))
        return call->result = NVML_ERROR_GPU_IS_LOST;
    return call->result = fault(call->gpu, function, count);
}

nvmlReturn_t begin_any(struct call *call, enum function function, nvmlDevice_t device)
{
    bool whole = device >= devices && device < devices + MAX_GPUS;
    bool part = device >= instances && device < instances + MAX_GPUS * MAX_INSTANCES;
    begin_index(call, function, whole || part ? device->index : MAX_GPUS);
    if (!part || call->result != NVML_SUCCESS)
        return call->result;
    call->instance = &call->gpu->instances[device->instance];
    /* The instance may have been destroyed since the handle was given out. */
    if (!call->gpu->mig_enabled || !call->instance->present)
        call->result = NVML_ERROR_INVALID_ARGUMENT;
    return call->result;
}

nvmlReturn_t begin(struct call *call, enum function function, nvmlDevice_t device)
{
    if (begin_any(call, function, device) == NVML_SUCCESS && call->instance != NULL)
        call->result = NVML_ERROR_NOT_SUPPORTED;
    return call->result;
}

nvmlReturn_t begin_system(struct call *call, enum function function)
{
    *call = (struct call){.function = function, .result = NVML_ERROR_UNINITIALIZED};
    if (__atomic_load_n(&references, __ATOMIC_ACQUIRE) == 0)
        return call->result;
    __atomic_fetch_add(&state->calls[function], 1, __ATOMIC_RELAXED);
    lock_driver(call);
    return call->result = NVML_SUCCESS;
}

nvmlReturn_t end(struct call *call)
{
    if (call->locked)
        pthread_mutex_unlock(&driver);
    return call->result;
}

nvmlReturn_t copy_text(char *to, unsigned int length, const char *from)
{
    if (to == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(from) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(to, from);
    return NVML_SUCCESS;
}
