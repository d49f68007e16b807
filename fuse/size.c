/* Polynomials with integer coefficients, each kept once. */
#include "fuse/size.h"

#include <string.h>

/* ---- The table --------------------------------------------------------------------------- */

static int compare(const fj_size_term *a, const fj_size_term *b) {
    return memcmp(a->symbols, b->symbols, sizeof a->symbols);
}

static uint64_t hash_of(const fj_size_term *terms, int count) {
    uint64_t hash = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < count; i++) {
        hash = (hash ^ (uint64_t)terms[i].coef) * 0x100000001b3u;
        for (int j = 0; j < FJ_SIZE_DEGREE; j++)
            hash = (hash ^ (uint16_t)terms[i].symbols[j]) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return hash;
}

static bool same(const struct fj_poly *poly, const fj_size_term *terms, int count) {
    if (poly->count != count) return false;
    for (int i = 0; i < count; i++)
        if (poly->terms[i].coef != terms[i].coef || compare(&poly->terms[i], &terms[i]) != 0) return false;
    return true;
}

static void rehash(fj_sizes *sizes) {
    const size_t room = sizes->buckets.len == 0 ? 64 : sizes->buckets.len * 2;
    sizes->buckets.data = FJ_NEW_ARRAY(sizes->arena, fj_size, room);
    sizes->buckets.len = sizes->buckets.cap = room;
    for (size_t i = 0; i < sizes->polys.len; i++) {
        size_t at = sizes->polys.data[i].hash & (room - 1);
        while (sizes->buckets.data[at] != 0) at = (at + 1) & (room - 1);
        sizes->buckets.data[at] = (fj_size)i + 1;
    }
}

/* terms: sorted, without zeros and equals. */
static fj_size intern(fj_sizes *sizes, const fj_size_term *terms, int count) {
    const uint64_t hash = hash_of(terms, count);
    if (sizes->polys.len * 2 >= sizes->buckets.len) rehash(sizes);
    size_t at = hash & (sizes->buckets.len - 1);
    for (; sizes->buckets.data[at] != 0; at = (at + 1) & (sizes->buckets.len - 1)) {
        const fj_size found = sizes->buckets.data[at] - 1;
        if (sizes->polys.data[found].hash == hash && same(&sizes->polys.data[found], terms, count))
            return found;
    }
    fj_size_term *kept = FJ_NEW_ARRAY(sizes->arena, fj_size_term, count > 0 ? count : 1);
    if (count > 0) memcpy(kept, terms, sizeof *terms * (size_t)count);
    FJ_PUSH(sizes->arena, &sizes->polys, (struct fj_poly){kept, count, hash});
    sizes->buckets.data[at] = (fj_size)sizes->polys.len;
    return (fj_size)sizes->polys.len - 1;
}

void fj_sizes_init(fj_sizes *sizes, fj_arena *arena) { *sizes = (fj_sizes){.arena = arena}; }

static const fj_size_term unit = {1, {-1, -1, -1, -1, -1, -1}};

fj_size fj_size_of(fj_sizes *sizes, int64_t value) {
    fj_size_term term = unit;
    term.coef = value;
    return intern(sizes, &term, value != 0);
}

fj_size fj_size_symbol(fj_sizes *sizes, fj_str name) {
    size_t index = 0;
    while (index < sizes->symbols.len && !fj_str_is(name, sizes->symbols.data[index])) index++;
    if (index == sizes->symbols.len) {
        if (index == INT16_MAX)
            fj_fail(sizes->arena->scope, FJ_ERR_TENSOR, "the graph has more than %d symbolic sizes",
                    INT16_MAX);
        FJ_PUSH(sizes->arena, &sizes->symbols, fj_arena_strdup(sizes->arena, name));
    }
    fj_size_term term = unit;
    term.symbols[0] = (int16_t)index;
    return intern(sizes, &term, 1);
}

/* ---- Arithmetic -------------------------------------------------------------------------- */

_Noreturn static void too_large(const fj_sizes *sizes) {
    fj_fail(sizes->arena->scope, FJ_ERR_TENSOR,
            "a size is too large: 63 bits, %d terms and products of %d symbols are the limits", FJ_SIZE_TERMS,
            FJ_SIZE_DEGREE);
}

typedef struct poly_sum {
    fj_size_term terms[FJ_SIZE_TERMS];
    int count;
} poly_sum;

static void sum_add(const fj_sizes *sizes, poly_sum *sum, fj_size_term term) {
    int at = 0;
    if (term.coef == 0) return;
    while (at < sum->count && compare(&sum->terms[at], &term) < 0) at++;
    if (at < sum->count && compare(&sum->terms[at], &term) == 0) {
        if (__builtin_add_overflow(sum->terms[at].coef, term.coef, &sum->terms[at].coef)) too_large(sizes);
        if (sum->terms[at].coef != 0) return;
        memmove(&sum->terms[at], &sum->terms[at + 1], sizeof sum->terms[0] * (size_t)(sum->count - at - 1));
        sum->count--;
        return;
    }
    if (sum->count == FJ_SIZE_TERMS) too_large(sizes);
    memmove(&sum->terms[at + 1], &sum->terms[at], sizeof sum->terms[0] * (size_t)(sum->count - at));
    sum->terms[at] = term;
    sum->count++;
}

static fj_size combine(fj_sizes *sizes, fj_size a, fj_size b, int sign) {
    poly_sum sum = {.count = 0};
    const struct fj_poly left = sizes->polys.data[a], right = sizes->polys.data[b];
    for (int i = 0; i < left.count; i++) sum_add(sizes, &sum, left.terms[i]);
    for (int i = 0; i < right.count; i++) {
        fj_size_term term = right.terms[i];
        if (__builtin_mul_overflow(term.coef, (int64_t)sign, &term.coef)) too_large(sizes);
        sum_add(sizes, &sum, term);
    }
    return intern(sizes, sum.terms, sum.count);
}

fj_size fj_size_add(fj_sizes *sizes, fj_size a, fj_size b) { return combine(sizes, a, b, 1); }
fj_size fj_size_sub(fj_sizes *sizes, fj_size a, fj_size b) { return combine(sizes, a, b, -1); }

static int degree(const fj_size_term *term) {
    int count = 0;
    while (count < FJ_SIZE_DEGREE && term->symbols[count] >= 0) count++;
    return count;
}

static fj_size_term product(const fj_sizes *sizes, const fj_size_term *a, const fj_size_term *b) {
    fj_size_term term = unit;
    const int na = degree(a), nb = degree(b);
    if (na + nb > FJ_SIZE_DEGREE || __builtin_mul_overflow(a->coef, b->coef, &term.coef)) too_large(sizes);
    for (int i = 0, j = 0; i + j < na + nb;) {
        const bool left = j == nb || (i < na && a->symbols[i] <= b->symbols[j]);
        const int at = i + j;
        term.symbols[at] = left ? a->symbols[i++] : b->symbols[j++];
    }
    return term;
}

fj_size fj_size_mul(fj_sizes *sizes, fj_size a, fj_size b) {
    poly_sum sum = {.count = 0};
    const struct fj_poly left = sizes->polys.data[a], right = sizes->polys.data[b];
    for (int i = 0; i < left.count; i++)
        for (int j = 0; j < right.count; j++)
            sum_add(sizes, &sum, product(sizes, &left.terms[i], &right.terms[j]));
    return intern(sizes, sum.terms, sum.count);
}

static bool term_divide(const fj_size_term *a, const fj_size_term *b, fj_size_term *ret) {
    *ret = unit;
    if (b->coef == 0 || (b->coef == -1 && a->coef == INT64_MIN) || a->coef % b->coef != 0) return false;
    ret->coef = a->coef / b->coef;
    const int na = degree(a), nb = degree(b);
    int j = 0, kept = 0;
    for (int i = 0; i < na; i++) {
        if (j < nb && a->symbols[i] == b->symbols[j])
            j++;
        else
            ret->symbols[kept++] = a->symbols[i];
    }
    return j == nb;
}

bool fj_size_divide(fj_sizes *sizes, fj_size a, fj_size b, fj_size *ret) {
    poly_sum sum = {.count = 0};
    const struct fj_poly left = sizes->polys.data[a], right = sizes->polys.data[b];
    if (right.count == 0) return false;
    if (a == b) return *ret = fj_size_of(sizes, 1), true;
    if (right.count != 1) return false;
    for (int i = 0; i < left.count; i++) {
        fj_size_term term;
        if (!term_divide(&left.terms[i], &right.terms[0], &term)) return false;
        sum_add(sizes, &sum, term);
    }
    *ret = intern(sizes, sum.terms, sum.count);
    return true;
}

/* ---- Questions --------------------------------------------------------------------------- */

bool fj_size_is_const(const fj_sizes *sizes, fj_size a, int64_t *ret_value) {
    const struct fj_poly *poly = &sizes->polys.data[a];
    if (poly->count > 1 || (poly->count == 1 && poly->terms[0].symbols[0] >= 0)) return false;
    *ret_value = poly->count == 0 ? 0 : poly->terms[0].coef;
    return true;
}

bool fj_size_is(const fj_sizes *sizes, fj_size a, int64_t value) {
    int64_t found;
    return fj_size_is_const(sizes, a, &found) && found == value;
}

bool fj_size_at_least_0(const fj_sizes *sizes, fj_size a) {
    const struct fj_poly *poly = &sizes->polys.data[a];
    int64_t least = 0;
    for (int i = 0; i < poly->count; i++) {
        if (poly->terms[i].coef < 0 && poly->terms[i].symbols[0] >= 0) return false;
        if (__builtin_add_overflow(least, poly->terms[i].coef, &least)) return false;
    }
    return least >= 0;
}

bool fj_size_value(const fj_sizes *sizes, fj_size a, const int64_t *values, int64_t *ret_value) {
    const struct fj_poly *poly = &sizes->polys.data[a];
    int64_t total = 0;
    for (int i = 0; i < poly->count; i++) {
        int64_t value = poly->terms[i].coef;
        for (int j = 0; j < degree(&poly->terms[i]); j++)
            if (__builtin_mul_overflow(value, values[poly->terms[i].symbols[j]], &value)) return false;
        if (__builtin_add_overflow(total, value, &total)) return false;
    }
    *ret_value = total;
    return true;
}

/* ---- Text -------------------------------------------------------------------------------- */

const char *fj_size_text(fj_sizes *sizes, fj_size a) {
    const struct fj_poly *poly = &sizes->polys.data[a];
    const char *text = "";
    for (int i = 0; i < poly->count; i++) {
        const fj_size_term *term = &poly->terms[i];
        const int symbols = degree(term);
        const char *part = "";
        for (int j = 0; j < symbols; j++)
            part = fj_arena_printf(sizes->arena, "%s%s%s", part, j > 0 ? "*" : "",
                                   sizes->symbols.data[term->symbols[j]]);
        if (symbols == 0)
            part = fj_arena_printf(sizes->arena, "%lld", (long long)term->coef);
        else if (term->coef != 1)
            part = fj_arena_printf(sizes->arena, "%lld*%s", (long long)term->coef, part);
        text = fj_arena_printf(sizes->arena, "%s%s%s", text, i > 0 ? " + " : "", part);
    }
    return poly->count > 0 ? text : "0";
}

static bool is_letter(char c) { return fj_is_alnum(c) || c == '_'; }

static bool parse_factor(fj_sizes *sizes, fj_str word, fj_size *ret) {
    const bool negative = word.len > 0 && word.data[0] == '-';
    int64_t value = 0;
    if (word.len == (size_t)negative) return false;
    if (!fj_is_digit(word.data[negative])) {
        for (size_t i = 0; i < word.len; i++)
            if (!is_letter(word.data[i])) return false;
        *ret = fj_size_symbol(sizes, word);
        return true;
    }
    for (size_t i = negative; i < word.len; i++)
        if (!fj_is_digit(word.data[i]) || __builtin_mul_overflow(value, (int64_t)10, &value) ||
            __builtin_add_overflow(value, (int64_t)(word.data[i] - '0'), &value))
            return false;
    *ret = fj_size_of(sizes, negative ? -value : value);
    return true;
}

static fj_str trim(fj_str text) {
    while (text.len > 0 && text.data[0] == ' ') text.data++, text.len--;
    while (text.len > 0 && text.data[text.len - 1] == ' ') text.len--;
    return text;
}

/* Cuts what is before the separator off the text's front. */
static fj_str cut(fj_str *text, char separator) {
    const char *end = memchr(text->data, separator, text->len);
    const size_t length = end ? (size_t)(end - text->data) : text->len;
    const fj_str front = {text->data, length};
    const size_t skip = end ? length + 1 : length;
    text->data += skip;
    text->len -= skip;
    return trim(front);
}

bool fj_size_parse(fj_sizes *sizes, fj_str text, fj_size *ret) {
    fj_size total = fj_size_of(sizes, 0);
    text = trim(text);
    if (text.len == 0 || text.len > 4096 || text.data[text.len - 1] == '+') return false;
    do {
        fj_str part = cut(&text, '+');
        if (part.len > 0 && part.data[part.len - 1] == '*') return false;
        fj_size value = fj_size_of(sizes, 1), factor;
        do {
            if (!parse_factor(sizes, cut(&part, '*'), &factor)) return false;
            value = fj_size_mul(sizes, value, factor);
        } while (part.len > 0);
        total = fj_size_add(sizes, total, value);
    } while (text.len > 0);
    *ret = total;
    return true;
}
