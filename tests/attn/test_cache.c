/* The reports about the kernel cache: every allocation and every file operation fails once. */
#include <jansson.h>

#include "tests/attn/calls.h"

static char folder[64], layer[80], archive[80];
static failing_allocator failing;

static void setup(void) {
    folder_create(folder);
    (void)snprintf(layer, sizeof layer, "%s/layer", folder);
    (void)snprintf(archive, sizeof archive, "%s/x.tar", folder);
    failing = (failing_allocator){.countdown = -1};
    failing_files_countdown = -1;
    const char *fake = getenv("FJ_FAKE_NVRTC");
    setenv("FLEXJIT_NVRTC", fake ? fake : "", 1);
}

static void teardown(void) { folder_remove(folder); }

static fj_context *open_context(const char *path) {
    fj_context *context = NULL;
    fj_context_desc desc = {
        .struct_size = sizeof desc, .resize = failing_resize, .allocator_user = &failing, .cache_path = path};
    (void)fj_attn_context_create(&desc, &failing_files, &context);
    return context;
}

/* Two kernels of one mod. */
static void fill(void) {
    fj_context *context = open_context(layer);
    fj_mod *mod = NULL;
    fj_device *device = NULL;
    const fj_mod_desc desc = {.struct_size = sizeof desc, .mask = "q >= kv"};
    fj_error error = {0};
    ck_assert_int_eq(fj_mod_create(context, &desc, &mod, &error), FJ_OK);
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_80", &device, &error), FJ_OK);
    for (int dim = 64; dim <= 128; dim += 64) {
        const fj_problem problem = {
            .struct_size = sizeof problem, .dtype = FJ_DTYPE_BF16, .head_dim = dim, .value_dim = dim};
        fj_plan *plan = NULL;
        fj_kernel_info info;
        ck_assert_int_eq(fj_plan_create(device, mod, &problem, &plan, &error), FJ_OK);
        ck_assert_msg(fj_plan_build(plan, false, &info, &error) == FJ_OK, "%s", error.text);
        fj_plan_unref(&plan);
    }
    fj_device_unref(&device);
    fj_mod_unref(&mod);
    fj_context_unref(&context);
}

/* ---- Each report ------------------------------------------------------------------------------- */

static char key[2][33];

static fj_status list(fj_context *context, fj_text *text, fj_error *error) {
    const fj_cache_filter filter = {.struct_size = sizeof filter, .variant = "fwd_*", .arch = "sm_80"};
    return fj_cache_list(context, &filter, text, error);
}
static fj_status show(fj_context *context, fj_text *text, fj_error *error) {
    return fj_cache_show(context, key[0], NULL, text, error);
}
static fj_status explain(fj_context *context, fj_text *text, fj_error *error) {
    return fj_cache_explain(context, key[0], key[1], text, error);
}
static fj_status collect(fj_context *context, fj_text *text, fj_error *error) {
    return fj_cache_collect(context, 0, 0, true, text, error);
}
static fj_status export(fj_context *context, fj_text *text, fj_error *error) {
    return fj_cache_export(context, archive, NULL, text, error);
}
static fj_status import(fj_context *context, fj_text *text, fj_error *error) {
    return fj_cache_import(context, archive, text, error);
}

static fj_status (*const reports[])(fj_context *context, fj_text *text, fj_error *error) = {
    fj_cache_path, list, show, explain, fj_cache_verify, collect, export, import};

static json_int_t count_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return json_is_array(value) ? (json_int_t)json_array_size(value) : json_integer_value(value);
}

/* What a report says where nothing fails. */
static void check_report(size_t index, const fj_text *text) {
    json_t *object = json_loadb(text->data, text->length, 0, NULL);
    ck_assert_int_eq(count_of(object, "schema"), 1);
    if (reports[index] == fj_cache_path) ck_assert_int_eq(count_of(object, "layers"), 1);
    if (reports[index] == list || reports[index] == export) ck_assert_int_eq(count_of(object, "kernels"), 2);
    if (reports[index] == fj_cache_verify) ck_assert_int_eq(count_of(object, "entries"), 4);
    if (reports[index] == collect) ck_assert_int_eq(count_of(object, "removed"), 4);
    if (reports[index] == show) ck_assert_str_eq(json_string_value(json_object_get(object, "key")), key[0]);
    json_decref(object);
}

static void read_keys(void) {
    fj_context *context = open_context(layer);
    fj_text text = {0};
    ck_assert_int_eq(fj_cache_list(context, NULL, &text, NULL), FJ_OK);
    json_t *object = json_loadb(text.data, text.length, 0, NULL);
    for (size_t i = 0; i < 2; i++) {
        const json_t *row = json_array_get(json_object_get(object, "kernels"), i);
        (void)snprintf(key[i], sizeof key[i], "%s", json_string_value(json_object_get(row, "key")));
    }
    json_decref(object);
    fj_text_finish(&text);
    fj_context_unref(&context);
}

static void fill_and_export(void) {
    fill();
    read_keys();
    fj_context *context = open_context(layer);
    fj_text text = {0};
    ck_assert_int_eq(export(context, &text, NULL), FJ_OK);
    fj_text_finish(&text);
    fj_context_unref(&context);
}

/* One report; outputs are untouched on failure, and a failure has a sentence. */
static fj_status ask(size_t index, fj_text *text) {
    fj_context *context = open_context(layer);
    if (!context) return FJ_ERR_MEMORY;
    fj_error error = {0};
    fj_status status = reports[index](context, text, &error);
    ck_assert_int_eq(text->data != NULL, status == FJ_OK);
    ck_assert_int_eq(error.text[0] == '\0', status == FJ_OK);
    fj_error_finish(&error);
    fj_context_unref(&context);
    return status;
}

START_TEST(any_allocation_may_fail) {
    fill_and_export();
    bool reached_the_end = false;
    for (long n = 0; !reached_the_end; n++) {
        failing.countdown = n;
        fj_text text = {0};
        fj_status status = ask((size_t)_i, &text);
        reached_the_end = failing.countdown >= 0;
        failing.countdown = -1;
        ck_assert(status == FJ_OK || status == FJ_ERR_MEMORY);
        if (status == FJ_OK) check_report((size_t)_i, &text);
        fj_text_finish(&text);
        ck_assert_int_eq(failing.live, 0);
    }
}
END_TEST

static long json_countdown = -1;

static void *json_malloc(size_t size) {
    if (json_countdown >= 0 && json_countdown-- == 0) return NULL;
    return malloc(size);
}

/* A report is whole, or there is none. That of a lack of memory while metadata are read is that they cannot be. */
START_TEST(any_allocation_of_json_may_fail) {
    fill_and_export();
    json_set_alloc_funcs(json_malloc, free);
    bool reached_the_end = false;
    for (long n = 0; !reached_the_end; n++) {
        json_countdown = n;
        fj_text text = {0};
        fj_status status = ask((size_t)_i, &text);
        reached_the_end = json_countdown >= 0;
        json_countdown = -1;
        ck_assert(status == FJ_OK || status == FJ_ERR_MEMORY || status == FJ_ERR_IO);
        if (reached_the_end) check_report((size_t)_i, &text);
        fj_text_finish(&text);
    }
}
END_TEST

START_TEST(any_file_operation_may_fail) {
    fill_and_export();
    bool reached_the_end = false;
    for (long n = 0; !reached_the_end; n++) {
        failing_files_countdown = n;
        fj_text text = {0};
        fj_status status = ask((size_t)_i, &text);
        reached_the_end = failing_files_countdown >= 0;
        failing_files_countdown = -1;
        ck_assert(status == FJ_OK || status == FJ_ERR_IO);
        if (reached_the_end) check_report((size_t)_i, &text);
        fj_text_finish(&text);
        ck_assert_int_eq(failing.live, 0);
        ck_assert_int_eq(folder_count(layer, ".kernel"), 2);
        ck_assert_int_eq(folder_count(folder, ".new-"), 0);
    }
}
END_TEST

/* ---- Metadata that a digest is right about ----------------------------------------------------- */

#define DIGEST "00000000000000000000000000000001"

/* Puts an entry, and looks for what is wrong with it in the report of verifying. */
static void check_wrong(fj_cache_kind kind, const char *metadata, const char *expected) {
    fj_context *context = open_context(layer);
    fj_digest number = {{1}};
    fj_text text = {0};
    ck_assert(fj_cache_put(context->cache, kind, number, fj_str_from(metadata), (fj_str){0}));
    ck_assert_int_eq(fj_cache_verify(context, &text, NULL), FJ_OK);
    json_t *object = json_loadb(text.data, text.length, 0, NULL);
    const json_t *row = json_array_get(json_object_get(object, "damaged"), 0);
    const char *said = json_string_value(json_object_get(row, "text"));
    ck_assert_msg(said && strcmp(said, expected) == 0, "%s: '%s'", metadata, said ? said : "");
    json_decref(object);
    fj_text_finish(&text);
    fj_error error = {0};
    ck_assert_int_eq(export(context, &text, &error), FJ_ERR_IO); /* it is not a kernel */
    ck_assert_int_eq(fj_cache_show(context, "01000000", NULL, &text, &error), FJ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(error.text, expected));
    const fj_cache_ref ref = {0, kind, number};
    int64_t bytes;
    ck_assert_int_eq(fj_cache_pack(context->cache, archive, &ref, 1, &bytes, NULL), FJ_OK);
    ck_assert_int_eq(import(context, &text, &error), FJ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(error.text, expected));
    fj_error_finish(&error);
    fj_context_unref(&context);
    folder_remove(layer);
}

START_TEST(metadata_are_checked) {
    static const char no_object[] = "has metadata that is not a JSON object";
    static const char *const kernels[][2] = {
        {"", no_object},
        {"[]", no_object},
        {"{\"schema\":1", no_object},
        {"{\"schema\":1,\"schema\":1}", no_object},
        {"{}", "has metadata of another schema"},
        {"{\"schema\":2}", "has metadata of another schema"},
        {"{\"schema\":1}", "names no variant"},
        {"{\"schema\":1,\"variant\":7}", "names no variant"},
        {"{\"schema\":1,\"variant\":\"x\"}", "names no compiler"},
        {"{\"schema\":1,\"variant\":\"x\",\"compiler\":\"cc\"}", "names no compiler"},
        {"{\"schema\":1,\"variant\":\"x\",\"compiler\":{\"path\":\"cc\",\"version\":\"1\"}}",
         "names no source"},
        {"{\"schema\":1,\"variant\":\"x\",\"compiler\":{\"path\":\"cc\",\"version\":\"1\"},\"source\":\"x\"}",
         "names no source"},
        {"{\"schema\":1,\"variant\":\"x\",\"compiler\":{\"path\":\"cc\",\"version\":\"1\"},\"source\":\"" DIGEST
         "\"}",
         "has a key that is not its source's and compiler's"},
    };
    static const char *const records[][2] = {
        {"{\"schema\":1}", "names no request"},
        {"{\"schema\":1,\"request\":\"x\"}", "names no kernel"},
        {"{\"schema\":1,\"request\":\"x\",\"source\":\"" DIGEST "\",\"content\":\"" DIGEST "x\"}",
         "names no kernel"},
        {"{\"schema\":1,\"request\":\"x\",\"source\":\"" DIGEST "\",\"content\":\"" DIGEST "\"}",
         "has a key that is not its request's"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(kernels); i++)
        check_wrong(FJ_CACHE_KERNEL, kernels[i][0], kernels[i][1]);
    for (size_t i = 0; i < FJ_ARRAY_LEN(records); i++)
        check_wrong(FJ_CACHE_SELECTION, records[i][0], records[i][1]);
}
END_TEST

/* A request's text is anybody's: no line of it is lost, none breaks the report. */
START_TEST(any_request_is_shown) {
    static const char *const texts[] = {"",
                                        "\n",
                                        "\n\n",
                                        " ",
                                        "x",
                                        "kernel",
                                        "kernel ",
                                        "kernel a\nkernel b\n",
                                        "source x\n%1 = q\n",
                                        "\xc3\xa9 x",
                                        "UPPER x\n",
                                        "%",
                                        "capture \n",
                                        "averyveryveryveryveryverylongname x\n"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(texts); i++) {
        fj_context *context = open_context(layer);
        fj_digest number = fj_cache_digest(texts[i], strlen(texts[i]));
        json_t *metadata = json_pack("{s:i, s:s, s:s, s:s}", "schema", 1, "request", texts[i], "source",
                                     DIGEST, "content", DIGEST);
        char *form = json_dumps(metadata, 0), name[33];
        fj_text text = {0};
        ck_assert(fj_cache_put(context->cache, FJ_CACHE_SELECTION, number, fj_str_from(form), (fj_str){0}));
        fj_cache_digest_hex(number, name);
        ck_assert_int_eq(fj_cache_show(context, name, NULL, &text, NULL), FJ_OK);
        fj_text_finish(&text);
        ck_assert_int_eq(fj_cache_explain(context, name, name, &text, NULL), FJ_OK);
        fj_text_finish(&text);
        json_decref(metadata);
        free(form);
        fj_context_unref(&context);
    }
}
END_TEST

START_TEST(arguments_are_checked) {
    fj_context *context = open_context(layer);
    fj_text text = {0};
    fj_cache_filter empty = {0};
    ck_assert_int_eq(fj_cache_list(NULL, NULL, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_list(context, NULL, NULL, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_list(context, &empty, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_show(context, NULL, NULL, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_show(context, "x", &empty, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_show(context, "x", NULL, &text, NULL), FJ_ERR_IO);
    ck_assert_int_eq(fj_cache_explain(context, "x", NULL, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_export(context, NULL, NULL, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_export(context, archive, NULL, &text, NULL), FJ_ERR_IO);
    ck_assert_int_eq(fj_cache_import(context, NULL, &text, NULL), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_cache_import(context, archive, &text, NULL), FJ_ERR_IO);
    ck_assert_ptr_null(text.data);
    fj_context_unref(&context);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn cache");
    TCase *tests = tcase_create("attn cache");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, any_allocation_may_fail, 0, (int)FJ_ARRAY_LEN(reports));
    tcase_add_loop_test(tests, any_allocation_of_json_may_fail, 0, (int)FJ_ARRAY_LEN(reports));
    tcase_add_loop_test(tests, any_file_operation_may_fail, 0, (int)FJ_ARRAY_LEN(reports));
    tcase_add_test(tests, metadata_are_checked);
    tcase_add_test(tests, any_request_is_shown);
    tcase_add_test(tests, arguments_are_checked);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
