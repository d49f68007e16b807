/* Models that PyTorch exported, read with every allocation failing once: ours, and those of the JSON library. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fuse.h"
#include "tests/support/failing.h"

static const char *const names[] = {"sdpa_eager_F32_core.pt2", "dynamic_eager_F32_raw.pt2",
                                    "sdpa_eager_23.onnx", "alibi_eager_20.onnx"};

static uint8_t *load(const char *name, size_t *ret_size) {
    char path[1000];
    const char *slash = strrchr(__FILE__, '/');
    ck_assert_ptr_nonnull(slash);
    (void)snprintf(path, sizeof path, "%.*s/data/%s", (int)(slash - __FILE__), __FILE__, name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
    *ret_size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*ret_size);
    ck_assert_ptr_nonnull(bytes);
    ck_assert_uint_eq(fread(bytes, 1, *ret_size, file), *ret_size);
    (void)fclose(file);
    return bytes;
}

/* All that is done with a model but running it. */
static fj_status use(const uint8_t *bytes, size_t size, const fj_allocator *allocator, fj_error *error) {
    fj_model *model = NULL;
    fj_text text = {0};
    fj_status status = fj_fuse_parse(bytes, size, allocator, &model, error);
    if (status != FJ_OK) ck_assert_ptr_null(model);
    if (status == FJ_OK) status = fj_fuse_find(model, NULL, error);
    if (status == FJ_OK) {
        ck_assert_uint_eq(model->findings.fused.len, 1);
        status = fj_fuse_write_graph(model, &text, error);
        fj_text_finish(&text);
    }
    if (status == FJ_OK) status = fj_fuse_write_manifest(model, &text, error);
    fj_text_finish(&text);
    fj_fuse_close(&model);
    return status;
}

START_TEST(every_allocation) {
    size_t size;
    uint8_t *bytes = load(names[_i], &size);
    bool whole = false;
    for (long n = 0; !whole; n++) {
        failing_allocator memory = {.countdown = n, .live = 0};
        const fj_allocator allocator = {failing_resize, &memory};
        fj_error error = {0};
        const fj_status status = use(bytes, size, &allocator, &error);
        whole = memory.countdown >= 0;
        ck_assert_msg(status == (whole ? FJ_OK : FJ_ERR_MEMORY), "allocation %ld: %s", n, error.text);
        ck_assert_int_eq(memory.live, 0);
        ck_assert_int_lt(n, 10000);
    }
    free(bytes);
}
END_TEST

static long json_countdown, json_live;

static void *json_allocate(size_t size) {
    if (json_countdown >= 0 && json_countdown-- == 0) {
        json_countdown = -1;
        return NULL;
    }
    json_live++;
    return malloc(size);
}

static void json_release(void *memory) {
    json_live -= memory != NULL;
    free(memory);
}

/* Of our own tables of names. Jansson 2.14 cannot be tried in its parser: there it takes a token without memory for a wrong one, and
 * a failed allocation of an object's table ends the process. */
START_TEST(every_allocation_of_json) {
    size_t size;
    uint8_t *bytes = load(names[_i], &size);
    bool whole = false;
    json_set_alloc_funcs(json_allocate, json_release);
    for (long n = 0; !whole; n += 1 + n / 12) {
        fj_error error = {0};
        json_countdown = n;
        json_live = 0;
        const fj_status status = use(bytes, size, NULL, &error);
        whole = json_countdown >= 0;
        ck_assert_msg(status == (whole ? FJ_OK : FJ_ERR_MEMORY), "allocation %ld: %s", n, error.text);
        ck_assert_int_eq(json_live, 0);
    }
    json_set_alloc_funcs(malloc, free);
    free(bytes);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fuse reading");
    TCase *tests = tcase_create("reading");
    tcase_add_loop_test(tests, every_allocation, 0, (int)(sizeof names / sizeof names[0]));
    tcase_add_loop_test(tests, every_allocation_of_json, 2, (int)(sizeof names / sizeof names[0]));
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
