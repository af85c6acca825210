/* The functions that concern no GPU. */
#include "double.h"

#include <stdio.h>

EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED:
        return "Not Supported";
    case NVML_ERROR_NO_PERMISSION:
        return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
        return "Timeout";
    case NVML_ERROR_GPU_IS_LOST:
        return "GPU is lost";
    case NVML_ERROR_NO_DATA:
        return "No data";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    struct call call;
    if (begin_system(&call, F_SystemGetDriverVersion) == NVML_SUCCESS)
        call.result = copy_text(version, length, driver_state()->driver_version);
    return end(&call);
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    struct call call;
    if (begin_system(&call, F_SystemGetNVMLVersion) == NVML_SUCCESS)
        call.result = copy_text(version, length, driver_state()->nvml_version);
    return end(&call);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    struct call call;
    if (begin_system(&call, F_SystemGetCudaDriverVersion) == NVML_SUCCESS)
        *version = (int)driver_state()->cuda_version;
    return end(&call);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    struct call call;
    if (begin_system(&call, F_SystemGetCudaDriverVersion_v2) == NVML_SUCCESS)
        *version = (int)driver_state()->cuda_version;
    return end(&call);
}

EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    struct call call;
    if (begin_system(&call, F_SystemGetProcessName) != NVML_SUCCESS)
        return end(&call);
    char path[64];
    char text[1024] = "";
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        call.result = NVML_ERROR_NOT_FOUND;
        return end(&call);
    }
    /* The arguments are separated by zero bytes: the text is the command alone. */
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    call.result = copy_text(name, length, text);
    return end(&call);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    struct call call;
    if (begin_system(&call, F_DeviceGetCount_v2) == NVML_SUCCESS)
        *count = (unsigned int)driver_state()->gpu_count;
    return end(&call);
}
