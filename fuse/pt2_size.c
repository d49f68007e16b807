/* Sizes in what torch.export.save writes: expressions of symbols. */
#include <string.h>

#include "fuse/pt2.h"

/* Text of sympy's srepr: Symbol('s0', ...), Integer(4), Mul(a, b), Add(a, b), Pow(a, Integer(2)). What is anything else is a
 * symbol of its own: it is equal to itself. */
static fj_size parse_srepr(fj_reader *reader, fj_str *text, int depth);

bool fj_pt2_take(fj_str *text, const char *word) {
    const size_t length = strlen(word);
    if (text->len < length || memcmp(text->data, word, length) != 0) return false;
    text->data += length;
    text->len -= length;
    return true;
}

/* The text up to the bracket that closes what was opened before. */
static fj_str take_inside(fj_str *text) {
    int depth = 1;
    size_t at = 0;
    while (at < text->len && depth > 0) {
        depth += text->data[at] == '(';
        depth -= text->data[at] == ')';
        at++;
    }
    const fj_str inside = {text->data, at > 0 ? at - 1 : 0};
    text->data += at;
    text->len -= at;
    return inside;
}

static fj_size opaque(fj_reader *reader, fj_str text) {
    char *name = fj_arena_printf(reader->arena, "u_%.*s", (int)(text.len < 200 ? text.len : 200), text.data);
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < text.len; i++) hash = (hash ^ (unsigned char)text.data[i]) * 16777619u;
    for (char *at = name; *at != '\0'; at++)
        if (!fj_is_alnum(*at)) *at = '_';
    return fj_size_symbol(&reader->graph->sizes,
                          fj_str_from(fj_arena_printf(reader->arena, "%.60s_%08x", name, hash)));
}

static fj_size parse_symbol(fj_reader *reader, fj_str inside) {
    const char *quote =
        inside.len > 0 && inside.data[0] == '\'' ? memchr(inside.data + 1, '\'', inside.len - 1) : NULL;
    if (quote == NULL) return opaque(reader, inside);
    const fj_str name = {inside.data + 1, (size_t)(quote - inside.data - 1)};
    for (size_t i = 0; i < name.len; i++)
        if (!fj_is_alnum(name.data[i]) && name.data[i] != '_') return opaque(reader, name);
    return name.len == 0 ? opaque(reader, name) : fj_size_symbol(&reader->graph->sizes, name);
}

static fj_size parse_list(fj_reader *reader, fj_str inside, bool product, int depth) {
    fj_sizes *sizes = &reader->graph->sizes;
    fj_size total = fj_size_of(sizes, product);
    while (inside.len > 0) {
        const fj_size item = parse_srepr(reader, &inside, depth);
        total = product ? fj_size_mul(sizes, total, item) : fj_size_add(sizes, total, item);
        while (fj_pt2_take(&inside, " ") || fj_pt2_take(&inside, ",")) {}
    }
    return total;
}

static fj_size parse_srepr(fj_reader *reader, fj_str *text, int depth) {
    const fj_str whole = *text;
    fj_size size;
    if (depth > 32) fj_read_fail(reader, "a size is nested more than 32 deep");
    if (fj_pt2_take(text, "Symbol(")) return parse_symbol(reader, take_inside(text));
    if (fj_pt2_take(text, "Mul(")) return parse_list(reader, take_inside(text), true, depth + 1);
    if (fj_pt2_take(text, "Add(")) return parse_list(reader, take_inside(text), false, depth + 1);
    if (fj_pt2_take(text, "Integer(") && fj_size_parse(&reader->graph->sizes, take_inside(text), &size))
        return size;
    *text = whole;
    while (text->len > 0 && text->data[0] != '(' && text->data[0] != ',') text->data++, text->len--;
    if (fj_pt2_take(text, "(")) (void)take_inside(text);
    return opaque(reader, (fj_str){whole.data, (size_t)(text->data - whole.data)});
}

/* {"as_int": 4} or {"as_expr": {"expr_str": ..., "hint": ...}} */
fj_size fj_pt2_size(fj_reader *reader, json_t *item) {
    const json_t *number = json_object_get(item, "as_int");
    const char *text = json_string_value(json_object_get(json_object_get(item, "as_expr"), "expr_str"));
    if (json_is_integer(number)) return fj_size_of(&reader->graph->sizes, json_integer_value(number));
    if (text == NULL || strlen(text) > 4096)
        fj_read_fail(reader, "a size is neither a number nor an expression");
    fj_str rest = fj_str_from(text);
    return parse_srepr(reader, &rest, 0);
}
