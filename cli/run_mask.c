/* `flexjit run --block-mask`: the lists that `flexjit mask --export` writes, or PyTorch's. */
#include <string.h>

#include "cli/report.h"
#include "cli/run.h"

enum { LISTS = 8 };

static const char *const list_names[LISTS] = {
    "kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices",
    "q_num_blocks",  "q_indices",  "full_q_num_blocks",  "full_q_indices",
};

/* A file's two numbers under a name. */
static int read_pair(const char *path, const cli_safetensors *file, const char *name, int64_t ret_pair[2]) {
    const cli_tensor *tensor = cli_st_find(file, name);
    int32_t pair[2];
    if (tensor == NULL) return cli_fail_file(CLI_EXIT_FAILED, path, "tensor '%s' I32 [2] is missing", name);
    if (!tensor->known || tensor->dtype != FJ_DTYPE_I32 || tensor->rank != 1 || tensor->dims[0] != 2)
        return cli_fail_file(CLI_EXIT_FAILED, path, "tensor '%s' is not I32 [2]", name);
    memcpy(pair, tensor->data, sizeof pair);
    ret_pair[0] = pair[0];
    ret_pair[1] = pair[1];
    return CLI_EXIT_OK;
}

/* The lists as views, those that the file has. */
static int borrow_lists(const char *path, const cli_safetensors *file, cli_view views[LISTS]) {
    int status = CLI_EXIT_OK;
    for (int i = 0; i < LISTS && status == CLI_EXIT_OK; i++) {
        const cli_tensor *tensor = cli_st_find(file, list_names[i]);
        if (tensor == NULL && i < 2)
            return cli_fail_file(CLI_EXIT_FAILED, path, "tensor '%s' is missing", list_names[i]);
        if (tensor == NULL) continue;
        if (!tensor->known)
            return cli_fail_file(CLI_EXIT_FAILED, path, "tensor '%s' is %s, not I32", list_names[i],
                                 tensor->dtype_name);
        status =
            cli_view_borrow(&views[i], tensor->name, tensor->dtype, tensor->rank, tensor->dims, tensor->data);
    }
    return status;
}

/* The mask of these lists, where the kernels of the run's device read it. */
static fj_status make_mask(cli_run *run, const fj_block_lists *lists, fj_error *error) {
    const cli_shape *shape = &run->options.shape;
    fj_block_mask *mask = NULL;
    fj_status status = fj_block_mask_from_lists(run->context, lists, &mask, error);
    if (status == FJ_OK)
        status = fj_block_mask_check(mask, shape->batch, shape->heads, shape->q_len, shape->kv_len, error);
    if (status == FJ_OK) status = fj_block_mask_copy_to(run->device, mask, &run->block_mask, error);
    fj_block_mask_unref(&mask);
    return status;
}

static int make(cli_run *run, const char *path, const cli_safetensors *file, cli_view views[LISTS]) {
    int64_t block[2], lengths[2];
    const cli_shape *shape = &run->options.shape;
    int status = borrow_lists(path, file, views);
    if (status == CLI_EXIT_OK) status = read_pair(path, file, "block_size", block);
    if (status == CLI_EXIT_OK) status = read_pair(path, file, "seq_lengths", lengths);
    if (status != CLI_EXIT_OK) return status;
    if (block[0] < 1 || block[1] < 1)
        return cli_fail_file(CLI_EXIT_FAILED, path,
                             "tensor 'block_size' is [%lld,%lld]: blocks have 1 or more", (long long)block[0],
                             (long long)block[1]);
    if (lengths[0] < 0 || lengths[1] < 0)
        return cli_fail_file(CLI_EXIT_FAILED, path,
                             "tensor 'seq_lengths' is [%lld,%lld]: a length is negative",
                             (long long)lengths[0], (long long)lengths[1]);
    if (lengths[0] != shape->q_len || lengths[1] != shape->kv_len) /* before lists of any length are read */
        return cli_fail_file(
            CLI_EXIT_FAILED, path,
            "the block mask was made for %lld queries and %lld keys, and is called with %lld and %lld",
            (long long)lengths[0], (long long)lengths[1], (long long)shape->q_len, (long long)shape->kv_len);
    const DLTensor *lists[LISTS];
    for (int i = 0; i < LISTS; i++) lists[i] = cli_view_is_set(&views[i]) ? &views[i].tensor : NULL;
    const fj_block_lists all = {sizeof all, lists[0], lists[1], lists[2], lists[3],   lists[4],  lists[5],
                                lists[6],   lists[7], block[0], block[1], lengths[0], lengths[1]};
    fj_error error = {0};
    const fj_status result = make_mask(run, &all, &error);
    if (result == FJ_ERR_TENSOR || result == FJ_ERR_ARGUMENT)
        status = cli_fail_file(CLI_EXIT_FAILED, path, "%s", error.text);
    else if (result != FJ_OK)
        status = cli_fail_library(result, &error);
    fj_error_finish(&error);
    return status;
}

int cli_run_mask(cli_run *run) {
    const char *path = cli_args_text(run->args, CLI_OPT_BLOCK_MASK, NULL);
    cli_safetensors file;
    cli_view views[LISTS] = {0};
    if (path == NULL) return CLI_EXIT_OK;
    int status = cli_st_open(path, &file);
    if (status != CLI_EXIT_OK) return status;
    status = make(run, path, &file, views);
    for (int i = 0; i < LISTS; i++) cli_view_finish(&views[i]);
    cli_st_close(&file);
    run->options.block_mask = run->block_mask;
    return status;
}
