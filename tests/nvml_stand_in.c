/* Stands in for NVIDIA's libnvidia-ml.so.1: the functions that the project calls, with the
 * signatures and error codes of NVML's API reference, on GPUs that live in a shared file.
 *
 * The file is named by NVML_STAND_IN; without it there is no driver. It holds one `Machine`,
 * which test_nvml.py lays out alike, so that a test sees what any process did to it. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15
};
enum { GRAPHICS = 0, SM = 1, MEMORY = 2 };

typedef struct {
    char name[64], uuid[64];
    unsigned lost, supports_clocks, supports_power, supports_energy, supports_limit, may_write;
    unsigned architecture;
    unsigned memory_mhz[4], lowest_mhz, highest_mhz, step_mhz, idle_memory_mhz, idle_highest_mhz;
    unsigned locked_mhz, locked_memory_mhz, gpu_resets, memory_resets;
    unsigned limit_mw, least_mw, most_mw, power_mw, celsius;
    unsigned long long energy_mj, reasons, counts_since_ms;
} Gpu;

typedef struct { unsigned count; Gpu gpus[4]; } Machine;

static Machine *machine;

int nvmlInitWithFlags(unsigned flags) {
    const char *path = getenv("NVML_STAND_IN");
    int file = path ? open(path, O_RDWR) : -1;
    (void)flags;
    if (file < 0) return DRIVER_NOT_LOADED;
    machine = mmap(0, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return machine == MAP_FAILED ? DRIVER_NOT_LOADED : SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) { *count = machine->count; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if (index >= machine->count) return INVALID_ARGUMENT;
    *gpu = &machine->gpus[index];
    return (*gpu)->lost ? GPU_IS_LOST : SUCCESS;
}

static int copied(const char *text, char *buffer, unsigned length) {
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}
int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned length) { return copied(gpu->name, name, length); }
int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) { return copied(gpu->uuid, uuid, length); }

static int told(Gpu *gpu, unsigned supported, unsigned value, unsigned *out) {
    if (gpu->lost) return GPU_IS_LOST;
    if (!supported) return NOT_SUPPORTED;
    *out = value;
    return SUCCESS;
}
int nvmlDeviceGetArchitecture(Gpu *gpu, unsigned *out) { return told(gpu, 1, gpu->architecture, out); }
int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *out) {
    return told(gpu, gpu->supports_power, gpu->power_mw, out);
}
int nvmlDeviceGetTemperature(Gpu *gpu, int sensor, unsigned *out) {
    return told(gpu, gpu->supports_power && sensor == 0, gpu->celsius, out);
}
int nvmlDeviceGetPowerManagementLimit(Gpu *gpu, unsigned *out) {
    return told(gpu, gpu->supports_limit, gpu->limit_mw, out);
}
int nvmlDeviceGetPowerManagementLimitConstraints(Gpu *gpu, unsigned *least, unsigned *most) {
    int code = told(gpu, gpu->supports_limit, gpu->least_mw, least);
    return code ? code : told(gpu, 1, gpu->most_mw, most);
}
/* Stands still, or grows with time in steps of 100 ms. */
int nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *out) {
    struct timespec now;
    if (gpu->lost) return GPU_IS_LOST;
    if (!gpu->supports_energy) return NOT_SUPPORTED;
    *out = gpu->energy_mj;
    if (gpu->counts_since_ms) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        *out += (now.tv_sec * 1000 + now.tv_nsec / 1000000 - gpu->counts_since_ms) / 100 * gpu->power_mw / 10;
    }
    return SUCCESS;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *out) {
    if (gpu->lost) return GPU_IS_LOST;
    if (!gpu->supports_clocks) return NOT_SUPPORTED;
    *out = gpu->reasons;
    return SUCCESS;
}

static int listed(unsigned *count, unsigned *values, const unsigned *mine, unsigned length) {
    unsigned room = *count;
    *count = length;
    if (!values || room < length) return INSUFFICIENT_SIZE;
    memcpy(values, mine, length * sizeof *values);
    return SUCCESS;
}
int nvmlDeviceGetSupportedMemoryClocks(Gpu *gpu, unsigned *count, unsigned *values) {
    unsigned length = 0;
    if (gpu->lost) return GPU_IS_LOST;
    if (!gpu->supports_clocks) return NOT_SUPPORTED;
    while (length < 4 && gpu->memory_mhz[length]) length++;
    return listed(count, values, gpu->memory_mhz, length);
}
int nvmlDeviceGetSupportedGraphicsClocks(Gpu *gpu, unsigned memory, unsigned *count, unsigned *values) {
    unsigned clocks[1024], length = 0, mhz;
    unsigned top = memory == gpu->idle_memory_mhz ? gpu->idle_highest_mhz : gpu->highest_mhz;
    if (gpu->lost) return GPU_IS_LOST;
    if (!gpu->supports_clocks) return NOT_SUPPORTED;
    for (mhz = top; mhz >= gpu->lowest_mhz && length < 1024; mhz -= gpu->step_mhz) clocks[length++] = mhz;
    return listed(count, values, clocks, length);
}

/* A busy GPU: at its lock, or at its highest; an idle one (reason 1) at its lowest. */
int nvmlDeviceGetClockInfo(Gpu *gpu, int kind, unsigned *out) {
    unsigned graphics = gpu->locked_mhz ? gpu->locked_mhz : gpu->highest_mhz;
    unsigned memory = gpu->locked_memory_mhz ? gpu->locked_memory_mhz : gpu->memory_mhz[0];
    if (gpu->reasons & 1) graphics = gpu->lowest_mhz;
    return told(gpu, gpu->supports_clocks, kind == MEMORY ? memory : graphics, out);
}

static int set(Gpu *gpu, unsigned supported, unsigned *field, unsigned value) {
    if (gpu->lost) return GPU_IS_LOST;
    if (!supported) return NOT_SUPPORTED;
    if (!gpu->may_write) return NO_PERMISSION;
    *field = value;
    return SUCCESS;
}
int nvmlDeviceSetGpuLockedClocks(Gpu *gpu, unsigned least, unsigned most) {
    if (least > most) return INVALID_ARGUMENT;
    return set(gpu, gpu->supports_clocks, &gpu->locked_mhz, most);
}
int nvmlDeviceSetMemoryLockedClocks(Gpu *gpu, unsigned least, unsigned most) {
    if (least > most) return INVALID_ARGUMENT;
    return set(gpu, gpu->supports_clocks, &gpu->locked_memory_mhz, most);
}
int nvmlDeviceResetGpuLockedClocks(Gpu *gpu) {
    int code = set(gpu, gpu->supports_clocks, &gpu->locked_mhz, 0);
    if (!code) gpu->gpu_resets++;
    return code;
}
int nvmlDeviceResetMemoryLockedClocks(Gpu *gpu) {
    int code = set(gpu, gpu->supports_clocks, &gpu->locked_memory_mhz, 0);
    if (!code) gpu->memory_resets++;
    return code;
}
int nvmlDeviceSetPowerManagementLimit(Gpu *gpu, unsigned limit) {
    if (limit < gpu->least_mw || limit > gpu->most_mw) return INVALID_ARGUMENT;
    return set(gpu, gpu->supports_limit, &gpu->limit_mw, limit);
}
