/* The cpu: kernels compiled by the host's C compiler with the options that users get, and warnings. Items run in order
 * on one worker, or reversed or shuffled on three: the same bits each time, and no item waits for another. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/philox.h"
#include "jit/compile.h"
#include "templates/cpu/abi.h"
#include "tests/kern/kern.h"

enum { WORKERS = 3 };

struct object {
    void *library;
    char path[640]; /* stays until then: sanitizers read lines from it */
    const struct fj_cpu_kernel *kernel;
};

/* ---- Kernels ------------------------------------------------------------------------------------------- */

/* Without those that hide warnings, or that sanitizers cannot do with. */
static void put_options(fj_buf *command, fj_isa isa) {
    for (const char *const *option = fj_jit_compile_options(isa); *option; option++)
        if (strcmp(*option, "-w") != 0 && strcmp(*option, "-nostartfiles") != 0 &&
            strncmp(*option, "-Wl,", 4) != 0)
            fj_buf_printf(command, "%s ", *option);
}

static bool build(const kernel *k, const char *text, FILE *out, object **ret_object) {
    char source[640];
    fj_buf command;
    object *o = calloc(1, sizeof *o);
    if (!o) abort();
    (void)snprintf(o->path, sizeof o->path, "%s/%s.%d.so", host_tools.folder, k->name, (int)getpid());
    (void)snprintf(source, sizeof source, "%.*s.c", (int)strlen(o->path) - 3, o->path);
    fj_buf_init(&command, &fj_allocator_libc);
    fj_buf_printf(&command, "%s ", host_tools.cc);
    put_options(&command, k->variant.isa);
    fj_buf_printf(&command, "-Wall -Wextra -Werror " KERN_SANITIZER " %s -o %s %s -lm",
                  host_tools.flags ? host_tools.flags : "", o->path, source);
    o->library = host_compile(text, command.data, source, o->path, out);
    fj_buf_finish(&command);
    o->kernel = o->library ? dlsym(o->library, "fj_cpu_kernel") : NULL;
    if (o->kernel && o->kernel->abi == FJ_CPU_ABI) return *ret_object = o, true;
    if (o->library) (void)fprintf(out, "    there is no kernel of ABI %d\n", FJ_CPU_ABI);
    free(o);
    return false;
}

static void unload(object *o) {
    (void)dlclose(o->library);
    (void)unlink(o->path);
    free(o);
}

/* ---- Arguments ------------------------------------------------------------------------------------------- */

typedef struct packet {
    struct fj_cpu_args args;
    struct fj_cpu_tensor captures[MAX_CAPTURES], dcaptures[MAX_CAPTURES], dscalar;
    union fj_cpu_scalar scalar;
    struct fj_cpu_fault faults[WORKERS];
    struct fj_cpu_block_mask blocks;
} packet;

static struct fj_cpu_tensor describe(const call *c, int which) {
    const tensor *t = &c->tensors[which];
    struct fj_cpu_tensor to = {.shape = {1, 1, 1, 1, 1, 1, 1, 1}};
    if (!call_has(c, which) || !t->values || (which == MAX && !c->kernel->problem.max)) return to;
    to.data = (char *)t->memory.host + t->offset;
    memcpy(to.shape, t->dims, sizeof t->dims);
    memcpy(to.stride, t->stride, sizeof t->stride);
    return to;
}

/* Gradients of captures go to column-major memory. */
static void put_capture(packet *p, const call *c, int i) {
    const fj_eval_tensor *t = &c->captures[i];
    struct fj_cpu_tensor *from = &p->captures[i], *to = &p->dcaptures[i];
    const int rank = c->kernel->problem.ir->captures.data[i].rank;
    int64_t stride = 1;
    from->data = (char *)c->capture_data[i].host;
    if (call_wants_grads(c, i)) to->data = (char *)c->grads[i].out.host;
    for (int d = 0; d < FJ_CPU_MAX_RANK; d++) {
        from->shape[d] = to->shape[d] = d < rank ? t->dims[d] : 1;
        from->stride[d] = d < rank ? t->strides[d] : 0;
        to->stride[d] = d < rank ? stride : 0;
        stride *= from->shape[d];
    }
}

static void put_blocks(packet *p, const call *c) {
    const block_mask *m = &c->blocks;
    if (!m->classes) return;
    p->args.block_mask = &p->blocks;
    p->blocks = (struct fj_cpu_block_mask){
        .starts = (const int64_t *)(const void *)m->starts[0].host,
        .runs = (const struct fj_cpu_run *)(const void *)m->runs[0].host,
        .planes_b = m->planes[0],
        .planes_h = m->planes[1],
        .block_q = m->block[0],
        .block_kv = m->block[1],
        .q_blocks = m->count[0],
    };
}

static void put_args(packet *p, const call *c, int workers) {
    const shape *s = c->shape;
    const fj_ir *ir = c->kernel->problem.ir;
    *p = (packet){.dscalar = {.shape = {1, 1, 1, 1, 1, 1, 1, 1}}};
    p->args = (struct fj_cpu_args){
        .query = describe(c, QUERY),
        .key = describe(c, KEY),
        .value = describe(c, VALUE),
        .out = describe(c, OUT),
        .lse = describe(c, LSE),
        .lse_low = describe(c, LOW),
        .out_raw = describe(c, RAW),
        .max = describe(c, MAX),
        .dout = describe(c, DOUT),
        .dlse = describe(c, DLSE),
        .dquery = describe(c, DQUERY),
        .dkey = describe(c, DKEY),
        .dvalue = describe(c, DVALUE),
        .captures = p->captures,
        .dcaptures = p->dcaptures,
        .scalars = &p->scalar,
        .dscalars = &p->dscalar,
        .batch = s->batch,
        .heads_q = s->heads_q,
        .heads_kv = s->heads_kv,
        .q_len = s->q_len,
        .kv_len = s->kv_len,
        .scale = s->scale,
        .dropout_threshold = fj_dropout_threshold(c->kernel->problem.dropout ? s->dropout : 0),
        .dropout_scale = call_keep_scale(c),
        .workers = workers,
        .faults = p->faults,
    };
    const fj_philox_key key = fj_dropout_key(s->seed, s->offset);
    memcpy(p->args.dropout_key, key.word, sizeof key.word);
    put_blocks(p, c);
    for (size_t i = 0; i < ir->captures.len; i++) put_capture(p, c, (int)i);
    if (ir->scalars.len > 0) p->scalar.f = ir->scalars.data[0].f; /* those of mods.c are floats */
    if (call_wants_grads(c, MAX_CAPTURES)) p->dscalar.data = (char *)c->grads[MAX_CAPTURES].out.host;
}

/* ---- Running ----------------------------------------------------------------------------------------------- */

static int64_t item_at(int64_t i, int64_t count, fj_emu_schedule schedule) {
    enum { STEP = 7919 }; /* a prime: every item once, but where it divides their number */
    if (schedule == FJ_EMU_FORWARD) return i;
    if (schedule == FJ_EMU_REVERSE || count % STEP == 0) return count - 1 - i;
    return i * STEP % count;
}

static void run_items(const struct fj_cpu_kernel *k, const struct fj_cpu_args *args,
                      fj_emu_schedule schedule) {
    for (int phase = 0;; phase++) {
        const int64_t items = k->items(args, phase);
        if (items < 0) return;
        for (int64_t i = 0; i < items; i++) {
            const int64_t item = item_at(i, items, schedule);
            k->run(args, phase, item, (int)(item % args->workers));
        }
    }
}

/* A fault that some worker saw, as the other devices tell it. Which one is told to a user is the library's to choose. */
static void tell_fault(const call *c, const packet *p) {
    struct fj_cuda_fault told = {0};
    for (int i = 0; i < p->args.workers; i++) {
        const struct fj_cpu_fault *f = &p->faults[i];
        if (f->found)
            told = (struct fj_cuda_fault){1, f->b, f->h, f->q, f->kv, f->found - FJ_CPU_FAULT_SCORE};
    }
    memcpy(c->fault.host, &told, sizeof told);
}

/* Of exactly the size that the kernel says, and NaN; kept for the next run, which is often the same. */
static buffer workspace;

static fj_status run(const call *c, const object *o, const mode *m, fj_emu_counts *counts, fj_error *error) {
    packet p;
    (void)counts;
    put_args(&p, c, m->schedule == FJ_EMU_FORWARD ? 1 : WORKERS);
    const size_t scratch = ((size_t)o->kernel->scratch + 255) / 256 * 256 * (size_t)p.args.workers;
    const size_t size = scratch + (o->kernel->workspace(&p.args) + 255) / 256 * 256;
    if (size != workspace.size) {
        host_destroy(&workspace);
        host_create(&workspace, size);
    }
    if (size > 0) memset(workspace.host, 0xff, size);
    p.args.scratch = (char *)workspace.host;
    p.args.workspace = p.args.scratch + scratch;
    run_items(o->kernel, &p.args, m->schedule);
    tell_fault(c, &p);
    return host_get(&workspace) ? FJ_OK : fj_error_set(error, FJ_ERR_DEVICE, "written before the workspace");
}

/* ---- Time ---------------------------------------------------------------------------------------------------- */

static bool measure(fj_status (*once)(void *user), void *user, int times, double *ret_ms) {
    for (int i = 0; i < times; i++) {
        const double from = fj_now_ms();
        if (once(user) != FJ_OK) return false;
        ret_ms[i] = fj_now_ms() - from;
    }
    return true;
}

const device device_cpu = {
    .name = "cpu",
    .has_modes = true,
    .build = build,
    .unload = unload,
    .run = run,
    HOST_MEMORY,
    .measure = measure,
};
