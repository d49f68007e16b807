/* A pass over a call: memory filled, kernels run, memory looked at. */
#include <string.h>

#include "tests/kern/kern.h"

/* All that a kernel is given; outputs, and whatever else it writes, are NaN. */
static bool put_all(call *c) {
    bool there = true;
    for (int t = 0; t < TENSORS; t++) {
        if (!c->tensors[t].values) continue;
        if (!call_reads(c, t)) tensor_clear(&c->tensors[t]);
        there &= c->device->put(&c->tensors[t].memory);
    }
    memset(c->fault.host, 0, c->fault.size);
    buffer *const fresh[] = {&c->rows, &c->query_sums, &c->runs, &c->parts, &c->dout_before};
    for (size_t i = 0; i < FJ_ARRAY_LEN(fresh); i++) {
        if (fresh[i]->size) memset(fresh[i]->host, 0xff, fresh[i]->size);
        there &= c->device->put(fresh[i]);
    }
    for (int i = 0; i < GRADS; i++) {
        buffer *each[] = {&c->grads[i].sums, &c->grads[i].most, &c->grads[i].out};
        for (int n = 0; n < 3; n++) {
            if (each[n]->size)
                memset(each[n]->host, n == 0 ? 0x55 : 0xff, each[n]->size); /* -1 would add little */
            there &= c->device->put(each[n]);
        }
    }
    for (int i = 0; i < MAX_CAPTURES; i++) there &= c->device->put(&c->capture_data[i]);
    return there && blocks_put(c) && c->device->put(&c->sequences) && c->device->put(&c->fault) &&
           c->device->put(&c->dropout_state) && c->device->put(&c->positions[0]) &&
           c->device->put(&c->positions[1]);
}

/* Everything comes back: so what is around each is looked at. */
static bool get_all(call *c, FILE *out) {
    bool clean = true;
    for (int t = 0; t < TENSORS; t++)
        if (c->tensors[t].values && !c->device->get(&c->tensors[t].memory)) {
            (void)fprintf(out, "    %s: written around it\n", tensor_names[t]);
            clean = false;
        }
    buffer *const work[] = {&c->rows, &c->query_sums, &c->runs, &c->parts, &c->fault, &c->dout_before};
    for (size_t i = 0; i < FJ_ARRAY_LEN(work); i++) clean &= c->device->get(work[i]);
    for (int i = 0; i < GRADS; i++)
        clean &= c->device->get(&c->grads[i].sums) && c->device->get(&c->grads[i].most) &&
                 c->device->get(&c->grads[i].out);
    if (!clean) (void)fprintf(out, "    memory around a tensor or the workspace was written\n");
    return clean;
}

bool call_run(call *c, const object *o, const mode *m, fj_emu_counts *counts, FILE *out) {
    fj_error error = {0};
    if (!put_all(c)) return (void)fprintf(out, "    memory cannot be written\n"), false;
    if (c->device->run(c, o, m, counts, &error) != FJ_OK) {
        (void)fprintf(out, "    %s %s\n", error.text, error.detail ? error.detail : "");
        fj_error_finish(&error);
        return false;
    }
    return get_all(c, out);
}
