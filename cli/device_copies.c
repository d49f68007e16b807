/* Tensors on a device that has memory of its own. The tool keeps all tensors in the host's memory, where files and
 * checks want them; a launch on such a device is given copies. */
#include <stdlib.h>

#include "cli/call.h"
#include "cli/report.h"

static size_t bytes_of(const cli_view *view) { return view->count * fj_dtype_size(view->dtype); }

int cli_device_copies_begin(cli_device_copies *copies, fj_device *device, size_t limit) {
    *copies = (cli_device_copies){.device = device};
    if (fj_device_dlpack(device).device_type == kDLCPU) return CLI_EXIT_OK;
    copies->items = calloc(limit, sizeof *copies->items);
    copies->limit = limit;
    return copies->items == NULL ? cli_no_memory() : CLI_EXIT_OK;
}

int cli_device_copies_add(cli_device_copies *copies, const cli_view *view, bool is_input, bool is_output,
                          const DLTensor **ret_tensor) {
    *ret_tensor = cli_view_is_set(view) ? &view->tensor : NULL;
    if (*ret_tensor == NULL || copies->count >= copies->limit) return CLI_EXIT_OK;
    cli_device_copy *copy = &copies->items[copies->count++];
    *copy =
        (cli_device_copy){.host = view, .tensor = view->tensor, .is_input = is_input, .is_output = is_output};
    copy->tensor.device = fj_device_dlpack(copies->device);
    copy->tensor.data = NULL;
    *ret_tensor = &copy->tensor;
    fj_error error = {0};
    fj_status result = fj_device_alloc(copies->device, bytes_of(view), &copy->tensor.data, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_device_copies_put(const cli_device_copies *copies) {
    fj_error error = {0};
    fj_status result = FJ_OK;
    for (size_t i = 0; i < copies->count && result == FJ_OK; i++) {
        const cli_device_copy *copy = &copies->items[i];
        if (!copy->is_input) continue;
        result = fj_device_upload(copies->device, copy->tensor.data, copy->host->tensor.data,
                                  bytes_of(copy->host), NULL, &error);
    }
    if (result == FJ_OK) result = fj_device_wait(copies->device, NULL, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_device_copies_get(const cli_device_copies *copies) {
    fj_error error = {0};
    fj_status result = FJ_OK;
    for (size_t i = 0; i < copies->count && result == FJ_OK; i++) {
        const cli_device_copy *copy = &copies->items[i];
        if (!copy->is_output) continue;
        result = fj_device_download(copies->device, copy->host->tensor.data, copy->tensor.data,
                                    bytes_of(copy->host), NULL, &error);
    }
    if (result == FJ_OK) result = fj_device_wait(copies->device, NULL, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

void cli_device_copies_finish(cli_device_copies *copies) {
    for (size_t i = 0; i < copies->count; i++) fj_device_free(copies->device, &copies->items[i].tensor.data);
    free(copies->items);
    *copies = (cli_device_copies){0};
}
