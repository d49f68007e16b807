/* Runs a kernel that fj_plan_emit_c wrote on the cpu. Before it stand FJ_EMITTED(), which gives names, and FJ_EMITTED_...; after
 * it the kernel's text and the tables.
 *
 *     the workspace    | faults of the workers | scratch of the workers | the kernel's |
 */
#include "call.h"

#include "cpu_arguments.h"

#include "isa.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static const struct fj_cpu_kernel fj_cpu_kernel;
static const fj_emitted fj_emitted_tables;

enum { FJ_MOST_WORKERS = 4096 };

typedef struct fj_ready {
    fj_resolved all;
    struct fj_cpu_tensor captures[FJ_EMITTED_CAPTURES + 1], dcaptures[FJ_EMITTED_CAPTURES + 1];
    struct fj_cpu_tensor dscalars[FJ_EMITTED_SCALARS + 1];
    struct fj_cpu_args args;
    size_t scratch, kernel, size; /* offsets in the workspace, and all of it */
} fj_ready;

static int fj_workers(int workers) {
#ifdef _OPENMP
    if (workers <= 0) workers = omp_get_max_threads();
    return workers < 1 ? 1 : workers < FJ_MOST_WORKERS ? workers : FJ_MOST_WORKERS;
#else
    (void)workers;
    return 1;
#endif
}

static const char *fj_begin(const flexjit_args *args, int workers, fj_ready *r) {
    const char *wrong = fj_resolve(&fj_emitted_tables, args, &r->all);
    if (wrong) return wrong;
    fj_cpu_put_inputs(r->all.captures, r->all.dcaptures, r->all.dscalars, FJ_EMITTED_CAPTURES,
                      FJ_EMITTED_SCALARS, r->captures, r->dcaptures, r->dscalars);
    r->args = (struct fj_cpu_args){
        .captures = r->captures,
        .dcaptures = r->dcaptures,
        .scalars = (const union fj_cpu_scalar *)(const void *)r->all.scalars,
        .dscalars = r->dscalars,
        .heads_q = r->all.heads_q,
        .heads_kv = r->all.heads_kv,
        .scale = r->all.scale,
        .workers = fj_workers(workers),
    };
    fj_cpu_set_sequence(&r->args, &r->all);
    r->scratch = fj_cpu_align_up((size_t)r->args.workers * sizeof(struct fj_cpu_fault), 256);
    r->kernel = r->scratch + fj_cpu_scratch_size(&fj_cpu_kernel, r->args.workers);
    r->size = r->kernel + fj_cpu_kernel.workspace(&r->args);
    return NULL;
}

static void fj_run_phase(const struct fj_cpu_args *args, int phase, int64_t items) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(args->workers)
    for (int64_t item = 0; item < items; item++) fj_cpu_kernel.run(args, phase, item, omp_get_thread_num());
#else
    for (int64_t item = 0; item < items; item++) fj_cpu_kernel.run(args, phase, item, 0);
#endif
}

static bool fj_is_before(const struct fj_cpu_fault *a, const struct fj_cpu_fault *b) {
    if (a->b != b->b) return a->b < b->b;
    if (a->h != b->h) return a->h < b->h;
    return a->q != b->q ? a->q < b->q : a->kv < b->kv;
}

/* The least position over all workers: which one it is does not depend on how many there were. */
static flexjit_fault fj_least_fault(const struct fj_cpu_args *args) {
    const struct fj_cpu_fault *least = NULL;
    for (int i = 0; i < args->workers; i++)
        if (args->faults[i].found && (!least || fj_is_before(&args->faults[i], least)))
            least = &args->faults[i];
    if (!least) return (flexjit_fault){.found = 0};
    return (flexjit_fault){1, least->b, least->h, least->q, least->kv};
}

const char *FJ_EMITTED(wrong)(const flexjit_args *args) {
    fj_ready r;
    return fj_begin(args, 1, &r);
}

int FJ_EMITTED(supported)(void) { return fj_isa_best() >= FJ_EMITTED_ISA; }

size_t FJ_EMITTED(workspace)(const flexjit_args *args, int workers) {
    fj_ready r;
    return fj_begin(args, workers, &r) ? 0 : r.size;
}

flexjit_status FJ_EMITTED(launch)(const flexjit_args *args, int workers, void *workspace,
                                  size_t workspace_size, flexjit_fault *ret_fault) {
    fj_ready r;
    if (fj_begin(args, workers, &r) || !workspace || (uintptr_t)workspace % 256 != 0 ||
        workspace_size < r.size)
        return FLEXJIT_ARGUMENT;
    if (!FJ_EMITTED(supported)()) return FLEXJIT_UNSUPPORTED;
    r.args.faults = (struct fj_cpu_fault *)workspace;
    r.args.scratch = (char *)workspace + r.scratch;
    r.args.workspace = (char *)workspace + r.kernel;
    memset(r.args.faults, 0, (size_t)r.args.workers * sizeof *r.args.faults);
    for (int phase = 0;; phase++) {
        const int64_t items = fj_cpu_kernel.items(&r.args, phase);
        if (items < 0) break;
        fj_run_phase(&r.args, phase, items);
    }
    const flexjit_fault fault = fj_least_fault(&r.args);
    if (ret_fault) *ret_fault = fault;
    return fault.found ? FLEXJIT_INDEX : FLEXJIT_OK;
}
