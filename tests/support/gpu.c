#include "tests/support/gpu.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/cuda.h"
#include "jit/nvrtc.h"
#include "tests/support/isolate.h"

typedef struct answer {
    fj_status status;
    int arch;
    char name[128], text[512];
} answer;

static void look(answer *to) {
    fj_error error = {0};
    const fj_driver *device = NULL;
    const fj_nvrtc *nvrtc = NULL;
    to->status = fj_cuda_device_open(&fj_allocator_libc, -1, FJ_ARCH_OLDEST, &device, &error);
    if (to->status == FJ_OK) {
        const fj_cuda_features *features = fj_cuda_device_features(device);
        to->arch = features->arch;
        (void)snprintf(to->name, sizeof to->name, "%s", features->name);
        to->status = fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &nvrtc, &error);
    }
    if (to->status == FJ_OK) to->status = fj_jit_nvrtc_check_arch(nvrtc, (fj_arch){to->arch, 0}, &error);
    (void)snprintf(to->text, sizeof to->text, "%s", error.text);
    if (device) device->close(&device);
}

fj_status gpu_find(fj_arch *ret_arch, char name[128], fj_error *error) {
    answer *shared = isolate_shared(sizeof *shared);
    int status = 0;
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        look(shared);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        return fj_error_set(error, FJ_ERR_DEVICE, "the CUDA driver ended the process that looked for a GPU");
    if (shared->status != FJ_OK) return fj_error_set(error, shared->status, "%s", shared->text);
    *ret_arch = (fj_arch){shared->arch, 0};
    (void)snprintf(name, 128, "%s", shared->name);
    return FJ_OK;
}
