/* A kernel at its shapes, in every order of threads: right, and the same bits each time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/kern/kern.h"
#include "tests/support/bits.h"

/* What has the same bits in every mode, one after the other: all that is written, but for what floats are added up in
 * atomically. to NULL: only its size. */
static size_t collect(const call *c, unsigned char *to) {
    const bool backward = kernel_is_backward(c->kernel), all = !backward || c->kernel->problem.deterministic;
    size_t at = 0;
    for (int t = 0; t < TENSORS; t++) {
        const buffer *b = &c->tensors[t].memory;
        const bool summed = t == DQUERY && c->kernel->variant.mma && !all;
        if (!call_writes(c, t) || summed || !b->size) continue;
        if (to) memcpy(to + at, b->host, b->size);
        at += b->size;
    }
    for (int i = 0; i < GRADS && all; i++) {
        const buffer *b = &c->grads[i].out;
        if (to && b->size) memcpy(to + at, b->host, b->size);
        at += b->size;
    }
    return at;
}

static const char *const schedule_names[] = {"forward", "reverse", "random"};
static const char *const copies_names[] = {"eager", "late"};
_Static_assert(FJ_ARRAY_LEN(schedule_names) == FJ_EMU_SCHEDULE_COUNT, "a name for each");
_Static_assert(FJ_ARRAY_LEN(copies_names) == FJ_EMU_COPIES_COUNT, "a name for each");

typedef struct bits {
    unsigned char *first, *now;
    size_t size;
} bits;

/* After a first fault the others are only read: what cannot be written stays. */
static bool notes_one_fault(call *c, const object *o, const mode *m, FILE *out) {
    enum { PAGE = 4096 };
    const buffer own = c->fault;
    fj_error error = {0};
    fj_emu_counts counts = {0};
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) abort();
    ((struct fj_cuda_fault *)page)->found = 1;
    (void)mprotect(page, PAGE, PROT_READ);
    c->fault = (buffer){.host = page, .size = own.size, .address = (uint64_t)(uintptr_t)page};
    const bool good = c->device->run(c, o, m, &counts, &error) == FJ_OK;
    if (!good)
        (void)fprintf(out, "    a second fault: %s %s\n", error.text, error.detail ? error.detail : "");
    fj_error_finish(&error);
    (void)munmap(page, PAGE);
    c->fault = own;
    return good;
}

static bool run_mode(call *c, const object *o, const mode *m, bool is_first, bits *b, FILE *out) {
    fj_emu_counts counts = {0};
    if (!call_run(c, o, m, &counts, out)) return false;
    bool good = kernel_is_backward(c->kernel) || check_fault(c, out);
    const bool free_order = kernel_is_backward(c->kernel) && !c->kernel->problem.deterministic;
    if (is_first || free_order) good &= check_answers(c, out);
    if (is_first && c->device->counts) good &= check_counts(c, &counts, out);
    (void)collect(c, is_first ? b->first : b->now);
    if (is_first && c->device->counts && !kernel_is_backward(c->kernel) && c->want_fault)
        good &= notes_one_fault(c, o, m, out);
    if (!is_first && memcmp(b->first, b->now, b->size) != 0) {
        (void)fprintf(out, "    not the same bits as the first time\n");
        good = false;
    }
    return good;
}

/* Outputs that see nothing that is not finite have the bits that they have with zeros in its place. */
static bool run_zeros(call *c, const object *o, const mode *m, FILE *out) {
    static const int outputs[] = {OUT, LSE};
    fj_emu_counts counts = {0};
    double *before[2] = {NULL};
    bool good = true;
    for (int n = 0; n < 2; n++) {
        const tensor *t = &c->tensors[outputs[n]];
        before[n] = calloc((size_t)tensor_count(t) + 1, sizeof(double));
        if (!before[n]) abort();
        memcpy(before[n], t->values, (size_t)tensor_count(t) * sizeof(double));
    }
    call_spoil(c, true);
    good = call_run(c, o, m, &counts, out);
    for (int n = 0; n < 2 && good; n++) {
        tensor *t = &c->tensors[outputs[n]];
        if (!call_writes(c, outputs[n])) continue;
        (void)tensor_read(t);
        for (int64_t i = 0; i < tensor_count(t); i++)
            if (!isnan(c->answers[outputs[n]].exact[i]) && !same_bits(t->values[i], before[n][i]))
                good = false;
        if (!good) (void)fprintf(out, "    %s: not the bits that zeros give\n", tensor_names[outputs[n]]);
    }
    free(before[0]);
    free(before[1]);
    return good;
}

/* The first shape runs in all modes, others in the first and the last. */
static bool run_shape(const runner *r, const test *t, const object *o, int index, FILE *out, char *where) {
    const shape *s = &t->shapes[index];
    char shape_text[128];
    call c;
    bool good = true;
    shape_name(s, shape_text);
    (void)snprintf(where, ISOLATE_WHERE, "at %s", shape_text);
    call_make(&c, r->device, &t->kernel, s, r->seed + (uint64_t)index, true);
    bits b = {.size = collect(&c, NULL)};
    b.first = calloc(2, b.size + 1);
    b.now = b.first + b.size + 1;
    if (!b.first) abort();
    for (int i = 0; i < r->all.count && good; i++) {
        const mode *m = &r->all.list[i];
        if (index > 0 && i > 0 && i < r->all.count - 1) continue;
        if (r->device->has_modes)
            (void)snprintf(where, ISOLATE_WHERE, "at %s, %s, %s", shape_text, schedule_names[m->schedule],
                           copies_names[m->copies]);
        good = run_mode(&c, o, m, i == 0, &b, out);
    }
    if (good && c.spoil_count > 0) good = run_zeros(&c, o, &r->all.list[0], out);
    if (good && (index < 2 || r->planted)) good = poison_check(&c, o, &r->all.list[0], out);
    if (!good) (void)fprintf(out, "    %s\n", where);
    free(b.first);
    call_finish(&c);
    return good;
}

isolate_result run_test(const runner *r, const test *t, FILE *out, char where[ISOLATE_WHERE]) {
    fj_buf text;
    object *o = NULL;
    bool good = true;
    (void)snprintf(where, ISOLATE_WHERE, "while it is compiled");
    fj_buf_init(&text, &fj_allocator_libc);
    const bool built =
        kernel_render(&t->kernel, r->planted, &text, out) && r->device->build(&t->kernel, text.data, out, &o);
    fj_buf_finish(&text);
    if (!built) return ISOLATE_FAILED;
    for (int i = 0; i < t->shape_count && good; i++) good = run_shape(r, t, o, i, out, where);
    r->device->unload(o);
    return good ? ISOLATE_OK : r->device->has_modes ? ISOLATE_FAILED : ISOLATE_SPENT;
}
