/* ONNX's Attention (opset 23 to 25). What scaled_dot_product_attention computes becomes that; caps, windows, lengths, positions of
 * a past, or scores as a result become the operations that the standard defines it by, in its order: scale, cap, mask, softmax.
 *
 *   query i of a block stands at p = i + offset: offset is the past's length, nonpad_kv_seqlen - L of each batch, or 0
 *   is_causal: key <= p; windows: p - left <= key <= p + right; nonpad_kv_seqlen: key < it */
#include <math.h>

#include "base/dtype.h"
#include "fuse/onnx.h"

enum { Q, K, V, MASK, PAST_K, PAST_V, NONPAD };
enum { Y, PRESENT_K, PRESENT_V, SCORES };

typedef struct attention {
    fj_onnx *onnx;
    const fj_onnx_node *node;
    fj_sizes *sizes;
    int in[3];                 /* [B,H,L,E], [B,Hkv,T,E], [B,Hkv,T,Ev] */
    fj_size b, h, l, e, t, ev; /* as these */
    fj_size past;              /* how many keys come from the past; 0 */
    int64_t group;             /* heads of queries for each of keys */
    int mask;                  /* of T keys; -1 */
    int nonpad;                /* [B,1,1,1]; -1 */
    double scale, cap;         /* cap 0: none */
    int64_t left, right;       /* -1: open */
    bool causal, flat;         /* flat: of rank 3, heads side by side */
    fj_dtype dtype, precision;
} attention;

/* ---- Building ---------------------------------------------------------------------------- */

static const fj_value *value_of(const fj_onnx *onnx, int value) {
    return &onnx->reader->graph->values.data[value];
}

static fj_arg of_size(fj_size size) { return (fj_arg){.kind = FJ_ARG_INT, .size = size}; }

/* A node with these arguments, in the order of its signature; name: of its value, NULL: one of its own. */
static int build(const attention *a, fj_node_op op, int count, const fj_arg *args, fj_dtype dtype, int rank,
                 const fj_size *dims, const char *name) {
    fj_reader *reader = a->onnx->reader;
    fj_parameter parameter;
    const char *signature = fj_node_ops[op].signature,
               *own = fj_arena_printf(reader->arena, "%s.%zu", a->node->name, reader->graph->values.len);
    fj_read_node(reader, op, name ? a->node->name : own,
                 op == FJ_NODE_SOFTMAX ? "Attention (_safe_softmax)" : "Attention");
    for (int i = 0; i < count && fj_parameter_next(&signature, &parameter); i++)
        fj_read_arg(reader, fj_arena_strdup(reader->arena, parameter.name), args[i]);
    const int out = fj_read_value(reader, name ? name : own, FJ_VALUE_RESULT, dtype, rank, dims);
    fj_read_node_end(reader, &out, 1);
    reader->node = a->node->name;
    return out;
}

/* Of one operand with a number or another one; the result has the shape of `like`. */
static int point(const attention *a, fj_node_op op, int x, fj_arg y, fj_dtype dtype, int like) {
    const fj_value shape = *value_of(a->onnx, like);
    return build(a, op, y.kind == FJ_ARG_NONE ? 1 : 2, (fj_arg[]){fj_onnx_of_value(x), y}, dtype, shape.rank,
                 shape.dims, NULL);
}

static int view(const attention *a, int x, int rank, const fj_size *dims, const char *name) {
    return build(a, FJ_NODE_RESHAPE, 1, (fj_arg[]){fj_onnx_of_value(x)}, value_of(a->onnx, x)->dtype, rank,
                 dims, name);
}

static int permute(const attention *a, int x, const int64_t *order) {
    const fj_value in = *value_of(a->onnx, x);
    fj_size dims[4], sizes[4];
    for (int i = 0; i < 4; i++) dims[i] = in.dims[order[i]], sizes[i] = fj_size_of(a->sizes, order[i]);
    const fj_arg arg = {.kind = FJ_ARG_INTS, .count = 4, .sizes = sizes};
    return build(a, FJ_NODE_PERMUTE, 2, (fj_arg[]){fj_onnx_of_value(x), arg}, in.dtype, 4, dims, NULL);
}

static int join(const attention *a, int first, int second, int dim) {
    const fj_value x = *value_of(a->onnx, first), *y = value_of(a->onnx, second);
    fj_size dims[FJ_MAX_RANK];
    for (int i = 0; i < x.rank; i++) dims[i] = x.dims[i];
    dims[dim] = fj_size_add(a->sizes, x.dims[dim], y->dims[dim]);
    const fj_arg list = {.kind = FJ_ARG_VALUES, .count = 2, .values = (int[]){first, second}};
    return build(a, FJ_NODE_CAT, 2, (fj_arg[]){list, of_size(fj_size_of(a->sizes, dim))}, x.dtype, x.rank,
                 dims, NULL);
}

/* The value under the name of a result of the file. Types that it declares may not contradict. */
static void give(const attention *a, int index, int value) {
    const char *name = a->node->outputs[index];
    const fj_value found = *value_of(a->onnx, value);
    const fj_onnx_type type = fj_onnx_type_of(a->onnx, name);
    bool same = type.rank == found.rank && type.dtype == found.dtype;
    for (int i = 0; same && i < type.rank; i++) {
        int64_t x, y;
        same = !fj_size_is_const(a->sizes, type.dims[i], &x) ||
               !fj_size_is_const(a->sizes, found.dims[i], &y) || x == y;
    }
    if (!same)
        fj_read_fail(a->onnx->reader, "result %d, '%.80s', has another shape or dtype than its type says",
                     index, name);
    (void)view(a, value, found.rank, found.dims, name);
}

static bool wants(const attention *a, int index) {
    return index < a->node->output_count && a->node->outputs[index][0] != '\0';
}

/* ---- What it is given -------------------------------------------------------------------- */

/* Heads side by side become a dimension of their own. */
static int with_heads(const attention *a, int value, int64_t heads) {
    static const int64_t order[4] = {0, 2, 1, 3};
    const fj_value in = *value_of(a->onnx, value);
    const fj_size count = fj_size_of(a->sizes, heads);
    fj_size width;
    if (!a->flat) return value;
    if (heads < 1 || !fj_size_divide(a->sizes, in.dims[2], count, &width))
        fj_read_fail(a->onnx->reader, "the %s columns of '%.80s' are not %lld heads",
                     fj_size_text(a->sizes, in.dims[2]), in.name, (long long)heads);
    const fj_size parts[4] = {in.dims[0], in.dims[1], count, width};
    return permute(a, view(a, value, 4, parts, NULL), order);
}

/* NULL, or why the node stays one that is not known. */
static const char *read_tensors(attention *a) {
    fj_onnx *onnx = a->onnx;
    const int rank = value_of(onnx, fj_onnx_input(onnx, a->node, Q))->rank;
    const bool has_past = fj_onnx_has_input(a->node, PAST_K);
    a->flat = rank == 3;
    if (rank != 3 && rank != 4) return "its queries are not of rank 3 or 4";
    if (has_past != fj_onnx_has_input(a->node, PAST_V)) return "it has one half of a past";
    if (has_past && fj_onnx_has_input(a->node, NONPAD)) return "it has a past and nonpad_kv_seqlen";
    const int64_t heads[3] = {fj_onnx_integer(a->node, "q_num_heads", 0),
                              fj_onnx_integer(a->node, "kv_num_heads", 0),
                              fj_onnx_integer(a->node, "kv_num_heads", 0)};
    for (int i = Q; i <= V; i++) {
        const int value = fj_onnx_input(onnx, a->node, i);
        if (value_of(onnx, value)->rank != rank) return "queries, keys and values have different ranks";
        a->in[i] = with_heads(a, value, heads[i]);
    }
    a->past = fj_size_of(a->sizes, 0);
    for (int i = K; has_past && i <= V; i++) {
        const int past = fj_onnx_input(onnx, a->node, PAST_K + i - K);
        const fj_value *x = value_of(onnx, past), *y = value_of(onnx, a->in[i]);
        if (x->rank != 4 || x->dtype != y->dtype || x->dims[0] != y->dims[0] || x->dims[1] != y->dims[1] ||
            x->dims[3] != y->dims[3])
            return "its past does not fit";
        a->past = x->dims[2];
        a->in[i] = join(a, past, a->in[i], 2);
    }
    const fj_value *q = value_of(onnx, a->in[Q]), *k = value_of(onnx, a->in[K]),
                   *v = value_of(onnx, a->in[V]);
    fj_size group;
    a->b = q->dims[0], a->h = q->dims[1], a->l = q->dims[2], a->e = q->dims[3];
    a->t = k->dims[2], a->ev = v->dims[3];
    a->dtype = q->dtype;
    if (k->dims[0] != a->b || v->dims[0] != a->b || k->dims[3] != a->e || v->dims[2] != a->t ||
        v->dims[1] != k->dims[1] || !fj_size_divide(a->sizes, a->h, k->dims[1], &group) ||
        !fj_size_is_const(a->sizes, group, &a->group) || a->group < 1 || k->dtype != a->dtype ||
        v->dtype != a->dtype)
        return "queries, keys and values do not fit";
    return NULL;
}

/* A mask of fewer keys hides the others. Of one key it may be meant for all of them: that cannot be told. */
static const char *read_mask(attention *a) {
    a->mask = -1;
    if (!fj_onnx_has_input(a->node, MASK)) return NULL;
    a->mask = fj_onnx_input(a->onnx, a->node, MASK);
    fj_value mask = *value_of(a->onnx, a->mask);
    int64_t keys, total;
    if (mask.rank < 1 || mask.rank > 4) return "its mask is not of rank 1 to 4";
    const int last = mask.rank - 1;
    if (mask.dims[last] == a->t) return NULL;
    if (!fj_size_is_const(a->sizes, mask.dims[last], &keys) || !fj_size_is_const(a->sizes, a->t, &total) ||
        keys < 2 || keys > total || a->onnx->opset < 24)
        return "its mask may be of fewer keys than there are";
    mask.dims[last] = fj_size_of(a->sizes, total - keys);
    const bool is_bool = mask.dtype == FJ_DTYPE_BOOL;
    const int rest = is_bool ? build(a, FJ_NODE_ZEROS, 0, NULL, mask.dtype, mask.rank, mask.dims, NULL)
                             : build(a, FJ_NODE_FULL, 1, (fj_arg[]){fj_onnx_of_real(-HUGE_VAL)}, mask.dtype,
                                     mask.rank, mask.dims, NULL);
    a->mask = join(a, a->mask, rest, last);
    return NULL;
}

static const char *read_numbers(attention *a) {
    const fj_onnx_attribute *scale = fj_onnx_find(a->node, "scale"), *cap = fj_onnx_find(a->node, "softcap");
    const int64_t precision = fj_onnx_integer(a->node, "softmax_precision", 0);
    const fj_size one = fj_size_of(a->sizes, 1);
    int64_t columns = 0;
    a->scale = scale != NULL                                             ? scale->f
             : fj_size_is_const(a->sizes, a->e, &columns) && columns > 0 ? 1 / sqrt((double)columns)
                                                                         : (double)NAN;
    a->cap = cap != NULL && cap->f > 0 ? cap->f : 0;
    a->left = fj_onnx_integer(a->node, "left_window_size", -1);
    a->right = fj_onnx_integer(a->node, "right_window_size", -1);
    a->causal = fj_onnx_integer(a->node, "is_causal", 0) != 0;
    a->precision = precision == 1  ? FJ_DTYPE_F32
                 : precision == 10 ? FJ_DTYPE_F16
                 : precision == 11 ? FJ_DTYPE_F64
                 : precision == 16 ? FJ_DTYPE_BF16
                                   : a->dtype;
    a->nonpad = -1;
    if (isnan(a->scale)) return "its head dimension is a symbol, and it has no scale";
    if (a->left < -1 || a->right < -1 || a->left > INT32_MAX || a->right > INT32_MAX)
        return "its window is not one";
    if (!fj_onnx_has_input(a->node, NONPAD)) return NULL;
    const int nonpad = fj_onnx_input(a->onnx, a->node, NONPAD);
    const fj_value *lengths = value_of(a->onnx, nonpad);
    if (lengths->rank != 1 || lengths->dtype != FJ_DTYPE_I64 || lengths->dims[0] != a->b)
        return "its nonpad_kv_seqlen is not an I64 for each batch";
    a->nonpad = view(a, nonpad, 4, (fj_size[]){a->b, one, one, one}, NULL);
    return NULL;
}

/* ---- As one node ------------------------------------------------------------------------- */

static bool is_plain(const attention *a) {
    const bool positions = a->causal && !fj_size_is(a->sizes, a->past, 0);
    return a->cap == 0 && a->left < 0 && a->right < 0 && a->nonpad < 0 && !positions && !wants(a, SCORES) &&
           (a->precision == a->dtype || (a->precision == FJ_DTYPE_F32 && a->dtype != FJ_DTYPE_F64));
}

static int plain(const attention *a) {
    const fj_arg yes = {.kind = FJ_ARG_BOOL, .flag = true}, no = {.kind = FJ_ARG_BOOL};
    const fj_arg args[] = {
        fj_onnx_of_value(a->in[Q]), fj_onnx_of_value(a->in[K]),
        fj_onnx_of_value(a->in[V]), a->mask >= 0 ? fj_onnx_of_value(a->mask) : (fj_arg){.kind = FJ_ARG_NONE},
        fj_onnx_of_real(0),         a->causal ? yes : no,
        fj_onnx_of_real(a->scale),  a->group > 1 ? yes : no};
    return build(a, FJ_NODE_SDPA, 8, args, a->dtype, 4, (fj_size[]){a->b, a->h, a->l, a->ev}, NULL);
}

/* ---- As many ----------------------------------------------------------------------------- */

static int positions(const attention *a, fj_size start, fj_size count, bool rows) {
    const fj_size one = fj_size_of(a->sizes, 1);
    const int line = build(a, FJ_NODE_ARANGE, 1, (fj_arg[]){of_size(start)}, FJ_DTYPE_I64, 1, &count, NULL);
    return view(a, line, 2, (fj_size[]){rows ? count : one, rows ? one : count}, NULL);
}

static int compare(const attention *a, fj_node_op op, int x, fj_arg y) {
    return point(a, op, x, y, FJ_DTYPE_BOOL, x);
}

/* seen, and also `more`, which may be of a larger rank; -1: everything. */
static int both(const attention *a, int seen, int more) {
    if (seen < 0) return more;
    const fj_value x = *value_of(a->onnx, seen), y = *value_of(a->onnx, more);
    const int rank = x.rank > y.rank ? x.rank : y.rank;
    fj_size dims[FJ_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        const int at = i - (rank - x.rank), other = i - (rank - y.rank);
        dims[i] = at >= 0 && !fj_size_is(a->sizes, x.dims[at], 1) ? x.dims[at]
                : other >= 0                                      ? y.dims[other]
                                                                  : x.dims[at];
    }
    return build(a, FJ_NODE_LOGICAL_AND, 2, (fj_arg[]){fj_onnx_of_value(seen), fj_onnx_of_value(more)},
                 FJ_DTYPE_BOOL, rank, dims, NULL);
}

/* Where a key is seen by what positions say; -1: everywhere. */
static int seen_of(const attention *a) {
    const fj_size zero = fj_size_of(a->sizes, 0), one = fj_size_of(a->sizes, 1);
    const fj_size start = a->nonpad < 0 ? a->past : fj_size_sub(a->sizes, zero, a->l);
    const int keys = positions(a, zero, a->t, false), queries = positions(a, start, a->l, true);
    /* p - key */
    int apart = build(a, FJ_NODE_SUB, 2, (fj_arg[]){fj_onnx_of_value(queries), fj_onnx_of_value(keys)},
                      FJ_DTYPE_I64, 2, (fj_size[]){a->l, a->t}, NULL),
        seen = -1;
    if (a->nonpad >= 0) {
        apart = build(a, FJ_NODE_ADD, 2, (fj_arg[]){fj_onnx_of_value(apart), fj_onnx_of_value(a->nonpad)},
                      FJ_DTYPE_I64, 4, (fj_size[]){a->b, one, a->l, a->t}, NULL);
        seen = build(a, FJ_NODE_LT, 2, (fj_arg[]){fj_onnx_of_value(keys), fj_onnx_of_value(a->nonpad)},
                     FJ_DTYPE_BOOL, 4, (fj_size[]){a->b, one, one, a->t}, NULL);
    }
    if (a->causal) seen = both(a, seen, compare(a, FJ_NODE_GE, apart, of_size(zero)));
    if (a->left >= 0)
        seen = both(a, seen, compare(a, FJ_NODE_LE, apart, of_size(fj_size_of(a->sizes, a->left))));
    if (a->right >= 0)
        seen = both(a, seen, compare(a, FJ_NODE_GE, apart, of_size(fj_size_of(a->sizes, -a->right))));
    return seen;
}

static int repeated(const attention *a, int value) {
    const fj_value in = *value_of(a->onnx, value);
    const fj_size dims[4] = {in.dims[0], a->h, in.dims[2], in.dims[3]};
    const fj_arg args[] = {fj_onnx_of_value(value), of_size(fj_size_of(a->sizes, a->group)),
                           of_size(fj_size_of(a->sizes, 1))};
    return a->group == 1 ? value : build(a, FJ_NODE_REPEAT_INTERLEAVE, 3, args, in.dtype, 4, dims, NULL);
}

static int in_parts(const attention *a) {
    static const int64_t order[4] = {0, 1, 3, 2};
    const fj_size dims[4] = {a->b, a->h, a->l, a->t};
    const fj_arg none = {.kind = FJ_ARG_NONE};
    int stages[4], seen = seen_of(a); /* by qk_matmul_output_mode */
    const int keys = permute(a, repeated(a, a->in[K]), order), values = repeated(a, a->in[V]);
    int scores = build(a, FJ_NODE_MATMUL, 2, (fj_arg[]){fj_onnx_of_value(a->in[Q]), fj_onnx_of_value(keys)},
                       a->dtype, 4, dims, NULL);
    stages[0] = scores = point(a, FJ_NODE_MUL, scores, fj_onnx_of_real(a->scale), a->dtype, scores);
    if (a->cap > 0) {
        scores = point(a, FJ_NODE_DIV, scores, fj_onnx_of_real(a->cap), a->dtype, scores);
        scores = point(a, FJ_NODE_TANH, scores, none, a->dtype, scores);
        scores = point(a, FJ_NODE_MUL, scores, fj_onnx_of_real(a->cap), a->dtype, scores);
    }
    stages[1] = scores;
    if (a->mask >= 0 && value_of(a->onnx, a->mask)->dtype == FJ_DTYPE_BOOL)
        seen = both(a, seen, a->mask);
    else if (a->mask >= 0)
        scores = point(a, FJ_NODE_ADD, scores, fj_onnx_of_value(a->mask), a->dtype, scores);
    if (seen >= 0)
        scores =
            build(a, FJ_NODE_WHERE, 3,
                  (fj_arg[]){fj_onnx_of_value(seen), fj_onnx_of_value(scores), fj_onnx_of_real(-HUGE_VAL)},
                  a->dtype, 4, dims, NULL);
    stages[2] = scores;
    int weights = point(a, FJ_NODE_SOFTMAX, scores, of_size(fj_size_of(a->sizes, -1)), a->precision, scores);
    if (a->precision != a->dtype) weights = point(a, FJ_NODE_CAST, weights, none, a->dtype, weights);
    stages[3] = weights;
    if (wants(a, SCORES)) give(a, SCORES, stages[fj_onnx_integer(a->node, "qk_matmul_output_mode", 0)]);
    return build(a, FJ_NODE_MATMUL, 2, (fj_arg[]){fj_onnx_of_value(weights), fj_onnx_of_value(values)},
                 a->dtype, 4, (fj_size[]){a->b, a->h, a->l, a->ev}, NULL);
}

const char *fj_onnx_attention(fj_onnx *onnx, const fj_onnx_node *node) {
    static const int64_t order[4] = {0, 2, 1, 3};
    attention a = {.onnx = onnx, .node = node, .sizes = &onnx->reader->graph->sizes};
    const int64_t mode = fj_onnx_integer(node, "qk_matmul_output_mode", 0);
    const char *wrong = read_tensors(&a);
    if (wrong == NULL) wrong = read_numbers(&a);
    if (wrong == NULL) wrong = read_mask(&a);
    if (wrong == NULL && !wants(&a, Y)) wrong = "it has no result";
    if (wrong == NULL && (mode < 0 || mode > 3)) wrong = "its qk_matmul_output_mode is not 0 to 3";
    if (wrong != NULL) return wrong;
    int out = is_plain(&a) ? plain(&a) : in_parts(&a);
    if (a.flat) {
        out = permute(&a, out, order);
        out = view(&a, out, 3, (fj_size[]){a.b, a.l, fj_size_mul(a.sizes, a.h, a.ev)}, NULL);
    }
    give(&a, Y, out);
    if (wants(&a, PRESENT_K)) give(&a, PRESENT_K, a.in[K]);
    if (wants(&a, PRESENT_V)) give(&a, PRESENT_V, a.in[V]);
    return NULL;
}
