/* The mod as Python text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/region.h"

static fj_term term_of(const fj_region *region, int term) { return region->terms.data[term]; }

/* Buffers of the arena: an error that leaves the scope leaks nothing. */
static void *resize_in_arena(void *user, void *pointer, size_t old_size, size_t new_size) {
    void *fresh = new_size > 0 ? fj_arena_alloc(user, new_size) : NULL;
    if (fresh != NULL && pointer != NULL) memcpy(fresh, pointer, old_size < new_size ? old_size : new_size);
    return fresh;
}

typedef struct text_emitter {
    fj_region *region;
    fj_fused *fused;
    fj_buf buf;
    int *uses;
    const char **names; /* of terms that have one */
    int temporaries;
    fj_allocator allocator;
} text_emitter;

static bool is_reserved(const char *name) {
    static const char *const words[] = {
        "q",        "k",        "v",      "do",   "dlse",   "b",         "h",        "q_idx",
        "kv_idx",   "kv",       "score",  "sink", "torch",  "score_mod", "mask_mod", "False",
        "None",     "True",     "and",    "as",   "assert", "async",     "await",    "break",
        "class",    "continue", "def",    "del",  "elif",   "else",      "except",   "finally",
        "for",      "from",     "global", "if",   "import", "in",        "is",       "lambda",
        "nonlocal", "not",      "or",     "pass", "raise",  "return",    "try",      "while",
        "with",     "yield",    "float",  "math", "out",    "out_mod",   "sink_mod"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(words); i++)
        if (strcmp(words[i], name) == 0) return true;
    return name[0] == 't' && fj_is_digit(name[1]);
}

static const char *capture_name(text_emitter *e, int value) {
    fj_fused *fused = e->fused;
    fj_arena *arena = e->region->arena;
    for (int i = 0; i < fused->capture_count; i++)
        if (fused->captures[i] == value) return fused->capture_names[i];
    char *name = fj_arena_strdup(arena, fj_str_from(e->region->graph->values.data[value].name));
    for (char *at = name; *at != '\0'; at++)
        if (!fj_is_alnum(*at)) *at = '_';
    if (strlen(name) > 60) name[60] = '\0';
    if (name[0] == '\0' || fj_is_digit(name[0]) || name[0] == '_' || is_reserved(name))
        name = fj_arena_printf(arena, "c_%s", name);
    for (int i = 0; i < fused->capture_count; i++)
        if (strcmp(fused->capture_names[i], name) == 0) { /* the new name may be taken too */
            name = fj_arena_printf(arena, "%s_%d", name, fused->capture_count);
            i = -1;
        }
    fused->capture_names[fused->capture_count] = name;
    fused->captures[fused->capture_count++] = value;
    return name;
}

static const char *number_text(text_emitter *e, const fj_term *t) {
    fj_buf buf;
    if (t->type == FJ_TERM_BOOL) return t->number != 0 ? "True" : "False";
    if (t->type == FJ_TERM_INT)
        return fj_arena_printf(e->region->arena, t->number < 0 ? "(%lld)" : "%lld",
                               (long long)fj_to_int(t->number));
    if (isinf(t->number)) return t->number < 0 ? "float(\"-inf\")" : "float(\"inf\")";
    if (isnan(t->number)) return "float(\"nan\")";
    fj_buf_init(&buf, &e->allocator);
    fj_buf_double(&buf, t->number);
    return fj_arena_printf(e->region->arena, t->number < 0 ? "(%s)" : "%s", buf.data);
}

static const char *index_text(text_emitter *e, fj_index index) {
    static const char *const vars[] = {"b", "h", "q_idx", "kv_idx"};
    fj_indices *x = &e->region->indices;
    fj_arena *arena = e->region->arena;
    const fj_index_sum sum = x->sums.data[index];
    int64_t number = 0;
    const char *text = "";
    for (int i = 0; i < sum.count; i++) {
        const fj_index_atom atom = x->atoms.data[sum.atoms[i]];
        const char *part;
        if (atom.kind == FJ_ATOM_VAR) {
            part = vars[atom.var];
        } else {
            (void)fj_size_is_const(x->sizes, atom.by, &number);
            part = fj_arena_printf(arena, "(%s %s %lld)", index_text(e, atom.of),
                                   atom.kind == FJ_ATOM_DIV ? "//" : "%", (long long)number);
        }
        (void)fj_size_is_const(x->sizes, sum.coefs[i], &number);
        const bool minus = number < 0;
        const long long size = (long long)(minus ? -number : number);
        if (size != 1)
            part = fj_arena_printf(arena, size > 64 ? "%lld * %s.long()" : "%lld * %s", size, part);
        text = fj_arena_printf(arena, "%s%s%s", text,
                               i > 0   ? (minus ? " - " : " + ")
                               : minus ? "-"
                                       : "",
                               part);
    }
    (void)fj_size_is_const(x->sizes, sum.base, &number);
    if (sum.count == 0) return fj_arena_printf(arena, "%lld", (long long)number);
    if (number != 0)
        text = fj_arena_printf(arena, "%s %s %lld", text, number < 0 ? "-" : "+", (long long)llabs(number));
    return sum.count > 1 || number != 0 || text[0] == '-' ? fj_arena_printf(arena, "(%s)", text) : text;
}

static const char *term_text(text_emitter *e, int term);

static const char *read_text(text_emitter *e, const fj_term *t) {
    fj_arena *arena = e->region->arena;
    const char *text = capture_name(e, t->value);
    for (int i = 0; i < t->count; i++)
        text = fj_arena_printf(arena, "%s%s%s", text, i > 0 ? ", " : "[", term_text(e, t->args[i]));
    return t->count > 0 ? fj_arena_printf(arena, "%s]", text) : text;
}

/* minimum and maximum take no numbers in PyTorch; clamp does. */
static const char *extreme_text(text_emitter *e, const fj_term *t, bool *ret_done) {
    const bool least = t->op == FJ_NODE_MINIMUM;
    const fj_term a = term_of(e->region, t->args[0]), b = term_of(e->region, t->args[1]);
    *ret_done = a.kind == FJ_TERM_NUMBER || b.kind == FJ_TERM_NUMBER;
    const int number = a.kind == FJ_TERM_NUMBER ? 0 : 1;
    if (!*ret_done) return NULL;
    return fj_arena_printf(e->region->arena, "torch.clamp(%s, %s=%s)", term_text(e, t->args[!number]),
                           least ? "max" : "min", term_text(e, t->args[number]));
}

static const char *clamp_text(text_emitter *e, const fj_term *t) {
    static const char *const words[] = {NULL, "min", "max"};
    const char *text = fj_arena_printf(e->region->arena, "torch.clamp(%s", term_text(e, t->args[0]));
    for (int i = 1; i < 3; i++)
        if (!isinf(term_of(e->region, t->args[i]).number))
            text = fj_arena_printf(e->region->arena, "%s, %s=%s", text, words[i], term_text(e, t->args[i]));
    return fj_arena_printf(e->region->arena, "%s)", text);
}

static const char *op_text(text_emitter *e, const fj_term *t) {
    fj_arena *arena = e->region->arena;
    const char *text = "";
    bool done = false;
    if (t->op == FJ_NODE_CAST)
        return fj_arena_printf(arena, "%s.to(torch.float%d)", term_text(e, t->args[0]),
                               e->region->dtype == FJ_DTYPE_F64 ? 64 : 32);
    if (t->op == FJ_NODE_CLAMP) return clamp_text(e, t);
    if (t->op == FJ_NODE_MINIMUM || t->op == FJ_NODE_MAXIMUM) text = extreme_text(e, t, &done);
    if (done) return text;
    text = "";
    for (const char *at = fj_node_ops[t->op].text; *at != '\0';) {
        const size_t plain = strcspn(at, "$");
        text = fj_arena_printf(arena, "%s%.*s", text, (int)plain, at);
        at += plain;
        if (*at != '$') break;
        text = fj_arena_printf(arena, "%s%s", text, term_text(e, t->args[at[1] - 'a']));
        at += 2;
    }
    return text;
}

static const char *plain_text(text_emitter *e, int term) {
    const fj_term t = term_of(e->region, term);
    switch (t.kind) {
    case FJ_TERM_SCORE: return "score";
    case FJ_TERM_NUMBER: return number_text(e, &t);
    case FJ_TERM_INDEX: return index_text(e, t.index);
    case FJ_TERM_READ: return read_text(e, &t);
    case FJ_TERM_OP: return op_text(e, &t);
    }
    return "";
}

static const char *term_text(text_emitter *e, int term) {
    const fj_term_kind kind = term_of(e->region, term).kind;
    if (e->names[term] != NULL) return e->names[term];
    const char *text = plain_text(e, term);
    /* What is used again, or has grown long, has a line of its own. */
    if ((kind == FJ_TERM_OP || kind == FJ_TERM_READ) && (e->uses[term] > 1 || strlen(text) > 400)) {
        e->names[term] = fj_arena_printf(e->region->arena, "t%d", e->temporaries++);
        fj_buf_printf(&e->buf, "    %s = %s\n", e->names[term], text);
        return e->names[term];
    }
    return text;
}

static void count_uses(const fj_region *region, int term, int *uses) {
    const fj_term t = term_of(region, term);
    if (uses[term]++ > 0) return;
    for (int i = 0; i < t.count; i++) count_uses(region, t.args[i], uses);
}

static void emit_function(text_emitter *e, int term, const char *header) {
    const size_t count = e->region->terms.len;
    e->uses = FJ_NEW_ARRAY(e->region->arena, int, count + 1);
    e->names = FJ_NEW_ARRAY(e->region->arena, const char *, count + 1);
    e->temporaries = 0;
    count_uses(e->region, term, e->uses);
    fj_buf_printf(&e->buf, "\n\ndef %s:\n", header);
    const char *text = term_text(e, term);
    fj_buf_printf(&e->buf, "    return %s\n", text);
}

static void put_captures(text_emitter *e, fj_buf *head) {
    static const char *const types[FJ_DTYPE_COUNT] = {[FJ_DTYPE_BOOL] = "bool",
                                                      [FJ_DTYPE_I8] = "int8",
                                                      [FJ_DTYPE_U8] = "uint8",
                                                      [FJ_DTYPE_I16] = "int16",
                                                      [FJ_DTYPE_I32] = "int32",
                                                      [FJ_DTYPE_I64] = "int64",
                                                      [FJ_DTYPE_F16] = "float16",
                                                      [FJ_DTYPE_BF16] = "bfloat16",
                                                      [FJ_DTYPE_F32] = "float32",
                                                      [FJ_DTYPE_F64] = "float64",
                                                      [FJ_DTYPE_F8_E4M3] = "float8_e4m3fn",
                                                      [FJ_DTYPE_F8_E5M2] = "float8_e5m2"};
    for (int i = 0; i < e->fused->capture_count; i++) {
        const fj_value *value = &e->region->graph->values.data[e->fused->captures[i]];
        fj_buf_printf(head, "%s = torch.empty(", e->fused->capture_names[i]);
        if (value->rank == 0) fj_buf_put(head, "()");
        for (int d = 0; d < value->rank; d++) {
            int64_t extent;
            if (!fj_size_is_const(&e->region->graph->sizes, value->dims[d], &extent)) extent = 1;
            fj_buf_printf(head, "%s%lld", d > 0 ? ", " : "", (long long)extent);
        }
        fj_buf_printf(head, ", dtype=torch.%s)\n", types[value->dtype]);
    }
}

/* A name of a file, which may have anything in it, as part of a comment: a line's end would end that. */
static const char *printable(fj_arena *arena, const char *name) {
    char *text = fj_arena_strdup(arena, fj_str_from(name));
    for (char *at = text; *at != '\0'; at++)
        if (*at < ' ' || *at > '~') *at = '?';
    return text;
}

void fj_emit_mod(fj_region *region, fj_fused *fused, const fj_roots *roots) {
    text_emitter e = {.region = region, .fused = fused};
    fj_buf head;
    size_t reads = 0;
    for (size_t i = 0; i < region->terms.len; i++) reads += region->terms.data[i].kind == FJ_TERM_READ;
    fused->captures = FJ_NEW_ARRAY(region->arena, int, reads + 1);
    fused->capture_names = FJ_NEW_ARRAY(region->arena, const char *, reads + 1);
    fused->has_score = region->terms.data[roots->score].kind != FJ_TERM_SCORE;
    fused->has_mask = roots->mask >= 0;
    fused->has_sink = roots->sink >= 0;
    e.allocator = (fj_allocator){resize_in_arena, region->arena};
    fj_buf_init(&e.buf, &e.allocator);
    fj_buf_init(&head, &e.allocator);
    if (fused->has_score) emit_function(&e, roots->score, "score_mod(score, b, h, q_idx, kv_idx)");
    if (fused->has_mask) emit_function(&e, roots->mask, "mask_mod(b, h, q_idx, kv_idx)");
    if (fused->has_sink) emit_function(&e, roots->sink, "sink_mod(b, h)");
    fj_buf_printf(&head, "# %s: what '%s' of the graph computes, with a scale of ", fused->name,
                  printable(region->arena, fused->softmax));
    fj_buf_double(&head, fused->scale);
    fj_buf_put(&head, ".\nimport torch\n");
    if (fused->capture_count > 0) fj_buf_put(&head, "\n");
    put_captures(&e, &head);
    if (!fused->has_score && !fused->has_mask) fj_buf_put(&head, "\nscore_mod = None\nmask_mod = None\n");
    fused->mod = fj_arena_printf(region->arena, "%s%s", head.data, e.buf.data ? e.buf.data : "");
}
