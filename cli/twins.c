/* Tensors on a device that has memory of its own. The tool keeps all tensors in the host's memory, where files and
 * checks want them; a launch on such a device is given twins. */
#include <stdlib.h>

#include "cli/call.h"
#include "cli/report.h"

static size_t bytes_of(const cli_view *view) { return view->count * fj_dtype_size(view->dtype); }

int cli_twins_begin(cli_twins *twins, fj_device *device, size_t limit) {
    *twins = (cli_twins){.device = device};
    if (fj_device_dlpack(device).device_type == kDLCPU) return CLI_EXIT_OK;
    twins->items = calloc(limit, sizeof *twins->items);
    twins->limit = limit;
    return twins->items == NULL ? cli_no_memory() : CLI_EXIT_OK;
}

int cli_twins_add(cli_twins *twins, const cli_view *view, bool is_input, bool is_output,
                  const DLTensor **ret_tensor) {
    *ret_tensor = cli_view_is_set(view) ? &view->tensor : NULL;
    if (*ret_tensor == NULL || twins->count >= twins->limit) return CLI_EXIT_OK;
    cli_twin *twin = &twins->items[twins->count++];
    *twin = (cli_twin){.host = view, .tensor = view->tensor, .is_input = is_input, .is_output = is_output};
    twin->tensor.device = fj_device_dlpack(twins->device);
    twin->tensor.data = NULL;
    *ret_tensor = &twin->tensor;
    fj_error error = {0};
    fj_status result = fj_device_alloc(twins->device, bytes_of(view), &twin->tensor.data, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_twins_put(const cli_twins *twins) {
    fj_error error = {0};
    fj_status result = FJ_OK;
    for (size_t i = 0; i < twins->count && result == FJ_OK; i++) {
        const cli_twin *twin = &twins->items[i];
        if (!twin->is_input) continue;
        result = fj_device_upload(twins->device, twin->tensor.data, twin->host->tensor.data,
                                  bytes_of(twin->host), NULL, &error);
    }
    if (result == FJ_OK) result = fj_device_wait(twins->device, NULL, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_twins_get(const cli_twins *twins) {
    fj_error error = {0};
    fj_status result = FJ_OK;
    for (size_t i = 0; i < twins->count && result == FJ_OK; i++) {
        const cli_twin *twin = &twins->items[i];
        if (!twin->is_output) continue;
        result = fj_device_download(twins->device, twin->host->tensor.data, twin->tensor.data,
                                    bytes_of(twin->host), NULL, &error);
    }
    if (result == FJ_OK) result = fj_device_wait(twins->device, NULL, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

void cli_twins_finish(cli_twins *twins) {
    for (size_t i = 0; i < twins->count; i++) fj_device_free(twins->device, &twins->items[i].tensor.data);
    free(twins->items);
    *twins = (cli_twins){0};
}
