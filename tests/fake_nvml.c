/* A stand-in for the NVIDIA driver's library (libnvidia-ml.so): two cards with fixed values, of which the second does
 * not tell its memory and its power. Shapes and return codes: nvml.h of the CUDA toolkit. */
#include <stdint.h>

#ifndef CARDS
#define CARDS 2
#endif
#ifndef INIT
#define INIT 0 /* NVML_SUCCESS; 9 is NVML_ERROR_DRIVER_NOT_LOADED */
#endif

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3 };

typedef struct { unsigned index; } *device_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_t;

static struct { unsigned index; } cards[2] = {{0}, {1}};

int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = CARDS; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    if (index >= CARDS) return INVALID_ARGUMENT;
    *device = (device_t)&cards[index];
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(device_t device, utilization_t *out) {
    out->gpu = device->index == 0 ? 37 : 0;
    out->memory = 12;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(device_t device, memory_t *out) {
    if (device->index != 0) return NOT_SUPPORTED;
    if (out->version != (sizeof(memory_t) | 2u << 24)) return INVALID_ARGUMENT;
    out->total = 8ull << 30;
    out->used = 2ull << 30;
    out->reserved = 0;
    out->free = out->total - out->used;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(device_t device, int sensor, unsigned *celsius) {
    if (sensor != 0) return INVALID_ARGUMENT;
    *celsius = device->index == 0 ? 61 : 30;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(device_t device, unsigned *milliwatts) {
    if (device->index != 0) return NOT_SUPPORTED;
    *milliwatts = 123456;
    return SUCCESS;
}
