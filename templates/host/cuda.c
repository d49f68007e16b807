/* Runs a kernel that fj_plan_emit_c wrote on a GPU. Before it stand FJ_EMITTED(), which gives names, and FJ_EMITTED_...; after it
 * the kernel's code and the tables. */
#include "call.h"

#include "gpu_parameters.h"

static const fj_emitted fj_emitted_tables;
static const fj_gpu_facts fj_emitted_facts;
static const fj_entry fj_emitted_entries[FJ_EMITTED_ENTRIES];
static const unsigned char fj_emitted_code[FJ_EMITTED_CODE_SIZE];

typedef struct fj_ready {
    const flexjit_kernel *kernel;
    fj_resolved all;
    fj_launch_extents extents;
    fj_workspace layout;
    char *workspace;
    CUstream stream;
} fj_ready;

/* ---- Loading --------------------------------------------------------------------------------------------------- */

static CUfunction fj_function(CUkernel kernel) {
    return (CUfunction)(void *)kernel;
} /* a launch takes both */

/* SMs divide one memory into shared memory and L1 and may leave the former room for one block only. As much as the blocks
 * take that an SM has registers and threads for. Only a wish: nothing fails here. */
static void fj_wish_carveout(const flexjit_kernel *of, CUkernel kernel, CUfunction function,
                             const fj_entry *entry) {
    int all = 0, reserved = 0, blocks = 0;
    if (entry->shared == 0 ||
        cuDeviceGetAttribute(&all, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, of->device) !=
            0 ||
        cuDeviceGetAttribute(&reserved, CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, of->device) !=
            0 ||
        cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, entry->threads,
                                                    (size_t)entry->shared) != 0 ||
        all <= 0 || blocks < 1)
        return;
    const int64_t percent = ((int64_t)blocks * (entry->shared + reserved) * 100 + all - 1) / all;
    (void)cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                               percent < 100 ? (int)percent : 100, kernel, of->device);
}

/* In the current context, so that a launch loads nothing. */
static CUresult fj_make_resident(const flexjit_kernel *of, CUkernel kernel, const fj_entry *entry) {
    CUfunction function = NULL;
    CUresult result = CUDA_SUCCESS;
    int threads = 0;
    if (entry->shared > 0)
        result = cuKernelSetAttribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, entry->shared, kernel,
                                      of->device);
    if (result == CUDA_SUCCESS) result = cuKernelGetFunction(&function, kernel);
    if (result == CUDA_SUCCESS)
        result = cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function);
    if (result == CUDA_SUCCESS && entry->threads > threads) return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
#if CUDA_VERSION >= 12040
    if (result == CUDA_SUCCESS) result = cuFuncLoad(function);
#endif
    if (result == CUDA_SUCCESS) fj_wish_carveout(of, kernel, function, entry);
    return result;
}

static size_t fj_table_size(const fj_emitted_input *input) {
    size_t size = (size_t)input->size;
    for (int d = 0; d < input->rank; d++) size *= (size_t)input->dims[d];
    return input->table ? size : 0;
}

static size_t fj_table_room(const fj_emitted_input *input) { return (fj_table_size(input) + 15) / 16 * 16; }

/* The tables of the mod's text, where the GPU can read them. */
static CUresult fj_upload_tables(flexjit_kernel *kernel) {
    size_t size = 0, at = 0;
    CUresult result = CUDA_SUCCESS;
    for (int i = 0; i < FJ_EMITTED_CAPTURES; i++) size += fj_table_room(&fj_emitted_tables.captures[i]);
    if (size == 0) return CUDA_SUCCESS;
    result = cuMemAlloc(&kernel->tables, size);
    for (int i = 0; i < FJ_EMITTED_CAPTURES && result == CUDA_SUCCESS; i++) {
        const fj_emitted_input *input = &fj_emitted_tables.captures[i];
        if (fj_table_size(input) == 0) continue;
        result = cuMemcpyHtoDAsync(kernel->tables + at, input->table, fj_table_size(input), NULL);
        at += fj_table_room(input);
    }
    return result == CUDA_SUCCESS ? cuStreamSynchronize(NULL) : result;
}

CUresult FJ_EMITTED(unload)(flexjit_kernel *kernel) {
    CUresult result = CUDA_SUCCESS, second = CUDA_SUCCESS;
    if (kernel->tables) result = cuMemFree(kernel->tables);
    if (kernel->library) second = cuLibraryUnload(kernel->library);
    memset(kernel, 0, sizeof *kernel);
    return result == CUDA_SUCCESS ? second : result;
}

static CUresult fj_load(flexjit_kernel *kernel) {
    CUresult result = cuCtxGetDevice(&kernel->device);
    if (result == CUDA_SUCCESS)
        result = cuDeviceGetAttribute(&kernel->multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                      kernel->device);
    if (result == CUDA_SUCCESS)
        result = cuDeviceGetAttribute(&kernel->cache, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, kernel->device);
    if (result == CUDA_SUCCESS)
        result = cuLibraryLoadData(&kernel->library, fj_emitted_code, NULL, NULL, 0, NULL, NULL, 0);
    for (int i = 0; i < FJ_EMITTED_ENTRIES && result == CUDA_SUCCESS; i++) {
        result = cuLibraryGetKernel(&kernel->entries[i], kernel->library, fj_emitted_entries[i].name);
        if (result == CUDA_SUCCESS)
            result = fj_make_resident(kernel, kernel->entries[i], &fj_emitted_entries[i]);
    }
    return result == CUDA_SUCCESS ? fj_upload_tables(kernel) : result;
}

CUresult FJ_EMITTED(load)(flexjit_kernel *ret_kernel) {
    flexjit_kernel kernel;
    memset(&kernel, 0, sizeof kernel);
    const CUresult result = fj_load(&kernel);
    if (result == CUDA_SUCCESS)
        *ret_kernel = kernel;
    else
        (void)FJ_EMITTED(unload)(&kernel);
    return result;
}

/* ---- Extents ------------------------------------------------------------------------------------------------------- */

static const char *fj_check_captures(const fj_resolved *all) {
    for (int i = 0; i < FJ_EMITTED_CAPTURES && !FJ_EMITTED_WIDE_CAPTURES; i++)
        for (int d = 0; d < all->captures[i].rank; d++)
            if (all->captures[i].shape[d] > INT32_MAX)
                return "a captured tensor has an extent of 2^31 or more";
    return NULL;
}

/* Extents, and with them blocks, that kernels can count, and a workspace. */
static const char *fj_measure(fj_ready *r, int multiprocessors) {
    const fj_resolved *all = &r->all;
    int64_t value;
    bool fits = true;
    const char *wrong = fj_gpu_too_large(all, false, &value);
    if (!wrong) wrong = fj_check_captures(all);
    if (wrong) return wrong;
    r->extents = (fj_launch_extents){.batch = all->batch,
                                     .heads_q = all->heads_q,
                                     .heads_kv = all->heads_kv,
                                     .q_len = all->q_len,
                                     .kv_len = all->kv_len,
                                     .largest = -1,
                                     .multiprocessors = multiprocessors};
    for (int i = 0; i < FJ_EMITTED_CAPTURES; i++)
        fits &= fj_gpu_add_gradient(&r->extents, &all->dcaptures[i]);
    for (int i = 0; i < FJ_EMITTED_SCALARS; i++) fits &= fj_gpu_add_gradient(&r->extents, &all->dscalars[i]);
    for (int i = 0; i < FJ_EMITTED_ENTRIES; i++)
        if (fj_gpu_blocks(&fj_emitted_facts, &fj_emitted_entries[i], &r->extents) > FJ_GPU_MOST_GRID)
            return "a launch would have 2^31 blocks or more";
    if (fits && fj_gpu_lay_out(&fj_emitted_facts, &r->extents, &r->layout)) return NULL;
    return "the workspace is larger than memory can be addressed";
}

static const char *fj_begin(const flexjit_args *args, int multiprocessors, fj_ready *r) {
    memset(r, 0, sizeof *r);
    const char *wrong = fj_resolve(&fj_emitted_tables, args, &r->all);
    return wrong ? wrong : fj_measure(r, multiprocessors);
}

const char *FJ_EMITTED(wrong)(const flexjit_args *args) {
    fj_ready r;
    return fj_begin(args, 1, &r);
}

CUresult FJ_EMITTED(workspace)(const flexjit_args *args, size_t *ret_size) {
    fj_ready r;
    if (fj_begin(args, 1, &r)) return CUDA_ERROR_INVALID_VALUE;
    *ret_size = r.layout.size;
    return CUDA_SUCCESS;
}

/* ---- Launching ------------------------------------------------------------------------------------------------------ */

static void fj_use_tables(fj_ready *r) {
    CUdeviceptr at = r->kernel->tables;
    for (int i = 0; i < FJ_EMITTED_CAPTURES; i++) {
        const fj_emitted_input *input = &fj_emitted_tables.captures[i];
        if (!input->table) continue;
        r->all.captures[i].data = (char *)(uintptr_t)at;
        at += fj_table_room(input);
    }
}

/* merge: of fj_fwd_merge. */
static void fj_fill_parameters(const fj_ready *r, bool merge, fj_gpu_parameters *to) {
    const fj_resolved *all = &r->all;
    to->size = 0;
    if (merge)
        fj_gpu_put_merge(&fj_emitted_facts, all, &r->extents, &r->layout, r->workspace, to);
    else if (!fj_emitted_facts.backward)
        fj_gpu_put_forward(&fj_emitted_facts, all, &r->extents, r->kernel->cache, &r->layout, r->workspace,
                           to);
    else
        fj_gpu_put_backward(&fj_emitted_facts, all, r->kernel->cache, &r->layout, r->workspace, all->q_len,
                            to);
    for (int i = 0; i < FJ_EMITTED_CAPTURES; i++) fj_gpu_put_capture(&all->captures[i], to);
    for (int i = 0; i < FJ_EMITTED_SCALARS; i++)
        fj_gpu_put_scalar(fj_emitted_tables.scalars[i].is_float, all->scalars[i], to);
    char *sums = r->workspace + r->layout.sums, *most = r->workspace + r->layout.most;
    for (int i = 0; i < FJ_EMITTED_CAPTURES + FJ_EMITTED_SCALARS && fj_emitted_facts.backward; i++)
        fj_gpu_put_grad(&fj_emitted_facts,
                        i < FJ_EMITTED_CAPTURES ? &all->dcaptures[i]
                                                : &all->dscalars[i - FJ_EMITTED_CAPTURES],
                        &sums, &most, to);
}

static int fj_fill(void *user, char *to, size_t size) {
    const fj_ready *r = (const fj_ready *)user;
    return (int)cuMemsetD8Async((CUdeviceptr)(uintptr_t)to, 0, size, r->stream);
}

/* Gradients that are zero by the mod's text, so that no kernel makes them; without query heads, all. */
static CUresult fj_clear_gradients(fj_ready *r) {
    const fj_resolved *all = &r->all;
    int result = 0;
    if (fj_emitted_facts.capture_grads && all->heads_q > 0) return CUDA_SUCCESS;
    if (all->heads_q == 0) result = fj_gpu_clear(&all->dkey, fj_emitted_facts.element, fj_fill, r);
    if (all->heads_q == 0 && result == 0)
        result = fj_gpu_clear(&all->dvalue, fj_emitted_facts.element, fj_fill, r);
    for (int i = 0; i < FJ_EMITTED_CAPTURES && result == 0; i++)
        result = fj_gpu_clear(&all->dcaptures[i], fj_emitted_facts.real, fj_fill, r);
    for (int i = 0; i < FJ_EMITTED_SCALARS && result == 0; i++)
        result = fj_gpu_clear(&all->dscalars[i], fj_emitted_facts.real, fj_fill, r);
    return (CUresult)result;
}

static CUresult fj_launch_entry(const fj_ready *r, int index, fj_gpu_parameters *parameters) {
    const fj_entry *entry = &fj_emitted_entries[index];
    const unsigned blocks = (unsigned)fj_gpu_blocks(&fj_emitted_facts, entry, &r->extents),
                   parts = (unsigned)fj_gpu_blocks_y(&fj_emitted_facts, entry, &r->extents),
                   slices = (unsigned)entry->slices;
    void *arguments[] = {parameters->bytes};
    if (blocks == 0 || slices == 0) return CUDA_SUCCESS;
    return cuLaunchKernel(fj_function(r->kernel->entries[index]), blocks, parts, slices,
                          (unsigned)entry->threads, 1, 1, (unsigned)entry->shared, r->stream, arguments,
                          NULL);
}

CUresult FJ_EMITTED(launch)(const flexjit_kernel *kernel, const flexjit_args *args, CUdeviceptr workspace,
                            size_t workspace_size, CUstream stream) {
    fj_ready r;
    fj_gpu_parameters parameters;
    CUresult result = CUDA_SUCCESS;
    if (fj_begin(args, kernel->multiprocessors, &r) || workspace % 256 != 0 ||
        workspace_size < r.layout.size || (r.layout.size > 0 && !workspace))
        return CUDA_ERROR_INVALID_VALUE;
    r.kernel = kernel, r.stream = stream, r.workspace = (char *)(uintptr_t)workspace;
    fj_use_tables(&r);
    fj_fill_parameters(&r, false, &parameters);
    if (fj_emitted_facts.notes)
        result = (CUresult)fj_fill(&r, r.workspace + r.layout.fault, sizeof(struct fj_cuda_fault));
    /* Kernels divide by heads. */
    for (int i = 0; i < FJ_EMITTED_ENTRIES && result == CUDA_SUCCESS && args->heads_q > 0; i++) {
        if (i == 1 && fj_emitted_facts.splits != 1) fj_fill_parameters(&r, true, &parameters);
        result = fj_launch_entry(&r, i, &parameters);
    }
    return result == CUDA_SUCCESS && fj_emitted_facts.backward ? fj_clear_gradients(&r) : result;
}

#if !FJ_EMITTED_BACKWARD
CUresult FJ_EMITTED(check)(CUdeviceptr workspace, CUstream stream, flexjit_fault *ret_fault) {
    struct fj_cuda_fault noted = {0, 0, 0, 0, 0, 0};
    CUresult result = CUDA_SUCCESS;
    if (fj_emitted_facts.notes) result = cuMemcpyDtoHAsync(&noted, workspace, sizeof noted, stream);
    if (result == CUDA_SUCCESS) result = cuStreamSynchronize(stream);
    if (result == CUDA_SUCCESS)
        *ret_fault = (flexjit_fault){(int32_t)noted.found, noted.b, noted.h, noted.q, noted.kv};
    return result;
}
#endif
