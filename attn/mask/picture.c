/* Pictures of block masks: text for terminals, and SVG.
 *
 * A picture of a plane is a grid of cells, queries down and keys across: a block each, or as many blocks as it takes to
 * stay within the size that was asked for. */
#include <string.h>

#include "attn/mask/mask.h"

enum { MOST_PLANES = 16, MOST_CELLS = 4096, TEXT_CELLS = 64, SVG_CELLS = 512 };

/* A shade: 0 empty, FULL full. Of a block, PARTIAL; of several blocks, a step by the share that is seen, partial ones
 * counting half. */
enum { PARTIAL = 4, FULL = 8, SHADES = 9 };

typedef struct grid {
    const fj_block_mask *mask;
    int32_t width, height; /* cells */
    bool is_exact;         /* a cell is a block */
    int64_t *seen;         /* of a row of cells: twice the full blocks and the partial ones */
    int64_t *blocks;       /* all of its blocks */
    uint8_t *shades;
    fj_buf out;
} grid;

/* ---- Cells ------------------------------------------------------------------------------------------ */

static int32_t cell_count(int64_t blocks, int wanted, int otherwise) {
    int64_t most = wanted > 0 ? wanted : otherwise;
    if (most > MOST_CELLS) most = MOST_CELLS;
    return (int32_t)(blocks < most ? blocks : most);
}

/* The first of `blocks` that belongs to a cell of so many. */
static int64_t first_block(int64_t cell, int64_t cells, int64_t blocks) {
    return (cell * blocks + cells - 1) / cells;
}

static void add_stretch(grid *g, int64_t first, int64_t last, fj_block_class class) {
    const int64_t blocks = g->mask->kv_blocks;
    for (int64_t cell = first * g->width / blocks; first < last; cell++) {
        int64_t end = first_block(cell + 1, g->width, blocks);
        if (end > last) end = last;
        g->seen[cell] += (end - first) * (int64_t) class;
        g->blocks[cell] += end - first;
        first = end;
    }
}

static uint8_t shade_of(const grid *g, int64_t seen, int64_t blocks) {
    if (seen == 0) return 0;
    if (seen == 2 * blocks) return FULL;
    if (g->is_exact) return PARTIAL;
    const int64_t shade = (seen * FULL + blocks) / (2 * blocks);
    return (uint8_t)(shade < 1 ? 1 : shade > FULL - 1 ? FULL - 1 : shade);
}

/* One row of cells of a plane, into shades. */
static void shade_row(grid *g, int64_t plane, int32_t cell) {
    const int64_t rows = g->mask->q_blocks;
    memset(g->seen, 0, (size_t)g->width * sizeof *g->seen);
    memset(g->blocks, 0, (size_t)g->width * sizeof *g->blocks);
    for (int64_t row = first_block(cell, g->height, rows); row < first_block(cell + 1, g->height, rows);
         row++) {
        fj_row_cursor cursor = fj_row_begin(&g->mask->rows, plane * rows + row);
        for (int32_t at = 0, end = 0; at < g->mask->kv_blocks; at = end) {
            const fj_block_class class = fj_row_stretch(&cursor, at, &end);
            add_stretch(g, at, end, class);
        }
    }
    for (int32_t i = 0; i < g->width; i++) g->shades[i] = shade_of(g, g->seen[i], g->blocks[i]);
}

static int64_t planes_drawn(const fj_block_mask *mask) {
    const int64_t planes = fj_mask_planes(&mask->shape);
    return planes < MOST_PLANES ? planes : MOST_PLANES;
}

/* "batch 0, head 3", or nothing where all are alike. */
static void put_plane_name(fj_buf *out, const fj_mask_shape *shape, int64_t plane) {
    const bool b = shape->planes_b > 1, h = shape->planes_h > 1;
    if (b) fj_buf_printf(out, "batch %lld", (long long)(plane / shape->planes_h));
    if (b && h) fj_buf_put(out, ", ");
    if (h) fj_buf_printf(out, "head %lld", (long long)(plane % shape->planes_h));
}

static size_t line_size(const grid *g) { return ((size_t)g->width + 1) * (2 * sizeof(int64_t) + 1); }

/* Room for a row of cells, in one piece. */
static fj_status begin(grid *g, const fj_block_mask *mask, int width, int height, int cells,
                       fj_error *error) {
    *g = (grid){
        .mask = mask,
        .width = cell_count(mask->kv_blocks, width, cells),
        .height = cell_count(mask->q_blocks, height, cells),
    };
    g->is_exact = g->width == mask->kv_blocks && g->height == mask->q_blocks;
    g->seen = fj_alloc(&mask->context->allocator, line_size(g));
    if (!g->seen) return fj_mask_no_memory(error);
    g->blocks = g->seen + g->width + 1;
    g->shades = (uint8_t *)(g->blocks + g->width + 1);
    fj_buf_init(&g->out, &mask->context->allocator);
    return FJ_OK;
}

static fj_status end(grid *g, fj_text *ret_text, fj_error *error) {
    fj_free(&g->mask->context->allocator, g->seen, line_size(g));
    return fj_buf_take(&g->out, ret_text) == FJ_OK ? FJ_OK : fj_mask_no_memory(error);
}

/* ---- Text ------------------------------------------------------------------------------------------- */

static void put_text_plane(grid *g, int64_t plane) {
    for (int32_t row = 0; row < g->height; row++) {
        shade_row(g, plane, row);
        for (int32_t i = 0; i < g->width; i++) {
            const uint8_t shade = g->shades[i];
            fj_buf_put(&g->out, shade == 0          ? "··"
                                : shade == FULL     ? "██"
                                : shade <= FULL / 4 ? "░░"
                                : shade <= PARTIAL  ? "▒▒"
                                                    : "▓▓");
        }
        fj_buf_put(&g->out, "\n");
    }
}

fj_status fj_block_mask_text(const fj_block_mask *mask, int width, int height, fj_text *ret_text,
                             fj_error *error) {
    if (!mask || !ret_text) return fj_error_set(error, FJ_ERR_ARGUMENT, "mask or ret_text is NULL");
    grid g;
    const fj_status status = begin(&g, mask, width, height, TEXT_CELLS, error);
    if (status != FJ_OK) return status;
    const int64_t all = fj_mask_planes(&mask->shape), planes = planes_drawn(mask);
    fj_buf_put(&g.out, "");
    for (int64_t plane = 0; plane < planes; plane++) {
        if (all > 1) {
            fj_buf_put(&g.out, plane > 0 ? "\n" : "");
            put_plane_name(&g.out, &mask->shape, plane);
            fj_buf_put(&g.out, "\n");
        }
        put_text_plane(&g, plane);
    }
    if (planes < all) fj_buf_printf(&g.out, "\n%lld more\n", (long long)(all - planes));
    return end(&g, ret_text, error);
}

/* ---- SVG -------------------------------------------------------------------------------------------- */

enum { PLANE_SIZE = 480, MARGIN = 36, HEAD = 80 };

/* Where a plane stands in the picture, and how large a cell is, in pixels. */
typedef struct frame {
    int64_t columns, rows; /* of planes */
    double cell;
    int width, height; /* of a plane */
} frame;

static void put_number(fj_buf *out, double value) {
    char text[32];
    fj_decimal_format(text, sizeof text, 6, value);
    fj_buf_put(out, text);
}

/* Of the title only what any reader of XML takes. */
static void put_escaped(fj_buf *out, const char *text) {
    for (; *text; text++) {
        const char *escape = *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : NULL;
        if (escape)
            fj_buf_put(out, escape);
        else
            fj_buf_write(out, *text >= ' ' && *text <= '~' ? text : "?", 1);
    }
}

static frame frame_of(const grid *g, int64_t planes) {
    frame f = {.columns = 1};
    while (f.columns * f.columns < planes) f.columns++;
    f.rows = planes > 0 ? (planes + f.columns - 1) / f.columns : 1;
    const int32_t longest = g->width > g->height ? g->width : g->height;
    f.cell = longest > 0 ? (double)PLANE_SIZE / longest : 1;
    f.width = (int)(g->width * f.cell + 0.5);
    f.height = (int)(g->height * f.cell + 0.5);
    return f;
}

/* Cells of one shade are one path: a rectangle for each run of them in a row. */
static void put_shade(grid *g, int64_t plane, int shade) {
    fj_buf_printf(&g->out, "<path class=\"s%d\" d=\"", shade);
    for (int32_t row = 0; row < g->height; row++) {
        shade_row(g, plane, row);
        for (int32_t i = 0, from = 0; i < g->width; i++) {
            if (g->shades[i] != shade) continue;
            for (from = i; i + 1 < g->width && g->shades[i + 1] == shade; i++) {}
            fj_buf_printf(&g->out, "M%d %dh%dv1h-%dz", from, row, i + 1 - from, i + 1 - from);
        }
    }
    fj_buf_put(&g->out, "\"/>\n");
}

static void put_plane(grid *g, const frame *f, int64_t plane) {
    const int64_t x = MARGIN + plane % f->columns * (f->width + MARGIN);
    const int64_t y = HEAD + plane / f->columns * (f->height + MARGIN);
    fj_buf_printf(&g->out, "<text class=\"small\" x=\"%lld\" y=\"%lld\">", (long long)x, (long long)y - 5);
    put_plane_name(&g->out, &g->mask->shape, plane);
    fj_buf_put(&g->out,
               fj_mask_planes(&g->mask->shape) > 1 ? ": keys &#8594;</text>\n" : "keys &#8594;</text>\n");
    fj_buf_printf(
        &g->out,
        "<text class=\"small\" transform=\"translate(%lld %lld) rotate(90)\">queries &#8594;</text>\n",
        (long long)x - 14, (long long)y);
    fj_buf_printf(&g->out, "<g transform=\"translate(%lld %lld) scale(", (long long)x, (long long)y);
    put_number(&g->out, f->cell);
    fj_buf_put(&g->out, ")\">\n");
    for (int shade = 1; shade < SHADES; shade++)
        if (!g->is_exact || shade == PARTIAL || shade == FULL) put_shade(g, plane, shade);
    fj_buf_printf(&g->out, "</g>\n<rect class=\"frame\" x=\"%lld\" y=\"%lld\" width=\"%d\" height=\"%d\"/>\n",
                  (long long)x, (long long)y, f->width, f->height);
}

static void put_styles(grid *g) {
    fj_buf_put(&g->out, "<style>text{font:14px sans-serif;fill:#222}.small{font-size:11px;fill:#555}"
                        ".frame{fill:none;stroke:#999}path{shape-rendering:crispEdges}");
    if (g->is_exact) {
        fj_buf_printf(&g->out, ".s%d{fill:#f2a541}.s%d{fill:#2b5d8a}", PARTIAL, FULL);
    } else {
        for (int shade = 1; shade < SHADES; shade++) {
            fj_buf_printf(&g->out, ".s%d{fill:#2b5d8a;fill-opacity:", shade);
            put_number(&g->out, (double)shade / FULL);
            fj_buf_put(&g->out, "}");
        }
    }
    fj_buf_put(&g->out, "</style>\n");
}

/* What the colours are, and how many blocks of each there are. */
static void put_caption(grid *g) {
    const fj_block_mask_info info = fj_block_mask_describe(g->mask);
    fj_buf_printf(&g->out, "<text class=\"small\" x=\"%d\" y=\"40\">", MARGIN);
    if (g->is_exact)
        fj_buf_printf(&g->out,
                      "<tspan style=\"fill:#2b5d8a\">&#9632;</tspan> %lld full  <tspan "
                      "style=\"fill:#f2a541\">&#9632;</tspan> %lld partial  &#9633; %lld empty",
                      (long long)info.full, (long long)info.partial, (long long)info.empty);
    else
        fj_buf_printf(&g->out, "%lld full, %lld partial, %lld empty", (long long)info.full,
                      (long long)info.partial, (long long)info.empty);
    fj_buf_put(&g->out, ", ");
    put_number(&g->out, info.sparsity);
    fj_buf_printf(
        &g->out,
        " %% of all</text>\n<text class=\"small\" x=\"%d\" y=\"55\">%lld queries, %lld keys, blocks of %lld x "
        "%lld%s</text>\n",
        MARGIN, (long long)info.q_len, (long long)info.kv_len, (long long)info.block_q,
        (long long)info.block_kv, g->is_exact ? "" : "; the darker, the more is seen");
}

fj_status fj_block_mask_svg(const fj_block_mask *mask, const char *title, int width, int height,
                            fj_text *ret_text, fj_error *error) {
    if (!mask || !ret_text) return fj_error_set(error, FJ_ERR_ARGUMENT, "mask or ret_text is NULL");
    grid g;
    const fj_status status = begin(&g, mask, width, height, SVG_CELLS, error);
    if (status != FJ_OK) return status;
    const int64_t planes = planes_drawn(mask);
    const frame f = frame_of(&g, planes);
    long long wide = MARGIN + f.columns * (f.width + MARGIN), tall = HEAD + f.rows * (f.height + MARGIN);
    if (wide < PLANE_SIZE + 2 * MARGIN) wide = PLANE_SIZE + 2 * MARGIN; /* for the caption */
    fj_buf_printf(&g.out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%lld\" height=\"%lld\" "
                  "viewBox=\"0 0 %lld %lld\">\n",
                  wide, tall, wide, tall);
    put_styles(&g);
    fj_buf_printf(&g.out, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n<text x=\"%d\" y=\"22\">",
                  MARGIN);
    put_escaped(&g.out, title ? title : "block mask");
    fj_buf_put(&g.out, "</text>\n");
    put_caption(&g);
    for (int64_t plane = 0; plane < planes; plane++) put_plane(&g, &f, plane);
    fj_buf_put(&g.out, "</svg>\n");
    return end(&g, ret_text, error);
}
