/* Shifts CLOCK_REALTIME of the process that it is preloaded into, by as many nanoseconds as
 * the file named in WALL_CLOCK_FILE holds (a 64-bit number, which may change at any time).
 * Other clocks stay as they are, as they do when an operator or NTP sets the time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none;
static const volatile int64_t *shift_ns = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WALL_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        abort();
    void *memory = mmap(NULL, sizeof *shift_ns, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        abort();
    shift_ns = memory;
    close(file);
}

static void shift(struct timespec *time, int64_t by_ns)
{
    int64_t ns = time->tv_sec * INT64_C(1000000000) + time->tv_nsec + by_ns;
    time->tv_sec = ns / 1000000000;
    time->tv_nsec = ns % 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(time, *shift_ns);
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* A wait until an instant of the shifted clock is one until another of the kernel's. A wait
 * that began before the clock was set ends when the old one would have said so. */
int pthread_cond_timedwait(void *condition, void *mutex, const struct timespec *until)
{
    static int (*real)(void *, void *, clockid_t, const struct timespec *);
    if (!real)
        real = (int (*)(void *, void *, clockid_t, const struct timespec *))dlsym(
            RTLD_NEXT, "pthread_cond_clockwait");
    /* Which clock a condition is on, it does not tell; no host is up for 30 years. */
    if (until->tv_sec < 1000000000)
        return real(condition, mutex, CLOCK_MONOTONIC, until);
    struct timespec kernels = *until;
    shift(&kernels, -*shift_ns);
    return real(condition, mutex, CLOCK_REALTIME, &kernels);
}

int sem_timedwait(void *semaphore, const struct timespec *until)
{
    static int (*real)(void *, const struct timespec *);
    if (!real)
        real = (int (*)(void *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec kernels = *until;
    shift(&kernels, -*shift_ns);
    return real(semaphore, &kernels);
}

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    struct timespec kernels;
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME) && a[3]) {
        kernels = *(const struct timespec *)a[3];
        shift(&kernels, -*shift_ns);
        a[3] = (long)&kernels;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
