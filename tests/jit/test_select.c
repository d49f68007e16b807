/* Which variant is taken where none is named: the first that does not spill. A fake NVRTC says how much each does. */
#include "driver/cuda.h"
#include "tests/jit/session.h"

static fj_jit_problem gpu_problem = {
    .kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 64, .value_dim = 64, .deterministic = true};

static fj_features features;
static fj_variant variants[FJ_JIT_MAX_VARIANTS];
static int variant_count, next; /* the first after variants[0] that has 64 rows */

/* The variants' templates are a few words, and a cubin is what the fake makes of them. */
static void start(const char *settings) {
    static const char *const names[] = {"fwd_mma.cu", "fwd_simt.cu"};
    static const char text[] = "a kernel\nFJ_KERNEL(fj_fwd) FJ_KERNEL(fj_fwd_merge)\n";
    char path[96];
    const char *nvrtc = getenv("FJ_FAKE_NVRTC");
    ck_assert_ptr_nonnull(nvrtc);
    setenv("FLEXJIT_NVRTC", nvrtc, 1);
    setenv("FAKE_NVRTC", settings, 1);
    unsetenv("FAKE_NVRTC_LOG");
    (void)snprintf(path, sizeof path, "%s/templates/cuda", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) file_write(path, names[i], text, strlen(text), 0600);
    features = fj_jit_arch_features((fj_arch){80, 0});
    variant_count = fj_jit_variants(&gpu_problem, &features, variants);
    if (variants[0].pack_heads) return;
    ck_assert_int_eq(variants[0].tile_m, 128); /* what the tests are about */
    for (next = 1; next < variant_count && variants[next].tile_m != 64;) next++;
    ck_assert_int_lt(next, 3);
}

/* Behind the last variant that is on tensor cores, and packed or not, as this one. */
static int family_from(int first) {
    int end = first;
    for (int i = first; i < variant_count; i++)
        if (variants[i].mma == variants[first].mma && variants[i].pack_heads == variants[first].pack_heads)
            end = i + 1;
    return end;
}

static fj_status choose(session *self, bool verify, fj_jit_chosen *ret_chosen) {
    return fj_jit_choose(self->jit, NULL, &gpu_problem, &features, &variants[0], verify, ret_chosen,
                         &self->error);
}

/* In a session of its own. */
static void check_choice(const fj_variant *expected, bool hit) {
    session self;
    fj_jit_chosen chosen;
    session_open(&self);
    fj_status status = choose(&self, false, &chosen);
    ck_assert_msg(status == FJ_OK, "%s", self.error.text);
    ck_assert_str_eq(chosen.variant->name, expected->name);
    ck_assert_int_eq(chosen.info.cache_hit, hit);
    ck_assert_int_eq(chosen.info.resource_count, 1);
    session_close(&self);
}

START_TEST(what_does_not_spill_stays) {
    start("rows=128");
    check_choice(&variants[0], false);
    ck_assert_int_eq(folder_count(cache_path, ".kernel"), 1);
    check_choice(&variants[0], true);
}
END_TEST

START_TEST(few_spills_are_none) {
    start("rows=96"); /* 32 bytes */
    check_choice(&variants[0], false);
    ck_assert_int_eq(folder_count(cache_path, ".kernel"), 1);
    folder_remove(cache_path);
    setenv("FAKE_NVRTC", "rows=95", 1);
    check_choice(&variants[next], false);
}
END_TEST

START_TEST(the_next_that_does_not_spill_is_taken) {
    start("rows=64");
    check_choice(&variants[next], false);
    ck_assert_int_eq(folder_count(cache_path, ".kernel"), next + 1);
    /* The record remembers: nothing is compiled, and a machine without a compiler finds it. */
    check_choice(&variants[next], true);
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_choice(&variants[next], true);
    session self;
    fj_jit_chosen chosen;
    session_open(&self);
    ck_assert_int_eq(choose(&self, true, &chosen), FJ_OK);
    ck_assert_str_eq(chosen.variant->name, variants[next].name);
    session_close(&self);
}
END_TEST

START_TEST(the_one_that_spills_least_is_taken) {
    start("rows=8"); /* all do; of four steps the least rows */
    const fj_variant *least = &variants[0];
    for (int i = 1; i <= 4 && variants[i].mma; i++)
        if (variants[i].tile_m < least->tile_m) least = &variants[i];
    ck_assert_ptr_ne(least, &variants[0]);
    check_choice(least, false);
    check_choice(least, true);
}
END_TEST

/* All spill: a search looks at four more of its family, and at no other. */
START_TEST(a_search_has_four_steps) {
    start("rows=8");
    ck_assert_int_gt(family_from(0), 6);
    session self;
    fj_jit_chosen chosen;
    session_open(&self);
    ck_assert_int_eq(choose(&self, false, &chosen), FJ_OK);
    ck_assert_int_eq(folder_count(cache_path, ".kernel"), 5);
    session_close(&self);
}
END_TEST

static void check_family(bool packed_first) {
    gpu_problem.few_queries = packed_first;
    gpu_problem.gqa = packed_first ? 4 : 1;
    start("rows=8");
    int last = family_from(0) - 1;
    ck_assert_int_eq(variants[0].pack_heads, packed_first);
    ck_assert(variants[last].mma && variants[last].tile_m > 8);
    session self;
    fj_jit_chosen chosen;
    session_open(&self);
    ck_assert_int_eq(
        fj_jit_choose(self.jit, NULL, &gpu_problem, &features, &variants[last], false, &chosen, &self.error),
        FJ_OK);
    ck_assert_str_eq(chosen.variant->name, variants[last].name);
    ck_assert_int_eq(folder_count(cache_path, ".kernel"), 1);
    session_close(&self);
}

START_TEST(a_search_keeps_to_packed_or_not) {
    check_family(false);
    teardown();
    setup();
    check_family(true);
}
END_TEST

START_TEST(one_that_does_not_compile_stops_the_search) {
    start("rows=32 fails=64");
    check_choice(&variants[0], false);
    setenv("FAKE_NVRTC", "rows=64",
           1); /* nothing was remembered: the cache has the first, the next is tried */
    check_choice(&variants[next], false);
}
END_TEST

START_TEST(a_named_variant_is_that_one) {
    start("rows=64");
    check_choice(&variants[next], false);
    session self;
    session_open(&self);
    ck_assert_int_eq(fj_jit_build(self.jit, &gpu_problem, &variants[0], false, &self.info, &self.error),
                     FJ_OK);
    ck_assert_int_eq(self.info.cache_hit, true);
    ck_assert_int_eq(self.info.resources[0].spill_stores, 64);
    session_close(&self);
    check_choice(&variants[next], true); /* and does not change the choice */
}
END_TEST

START_TEST(a_mended_template_is_searched_again) {
    start("rows=64");
    static const char text[] = "another kernel\nFJ_KERNEL(fj_fwd)\n";
    char path[96];
    check_choice(&variants[next], false);
    (void)snprintf(path, sizeof path, "%s/templates/cuda", folder);
    file_write(path, "fwd_mma.cu", text, strlen(text), 0600);
    setenv("FAKE_NVRTC", "rows=128", 1);
    check_choice(&variants[0], false);
}
END_TEST

/* With a driver, and without a cache: what is loaded is the chosen one, and the process remembers. */
START_TEST(a_process_remembers) {
    start("rows=64");
    const fj_driver *device = NULL;
    session self;
    fj_jit_chosen first, second;
    const char *cuda = getenv("FJ_FAKE_CUDA");
    ck_assert_ptr_nonnull(cuda);
    setenv("FLEXJIT_LIBCUDA", cuda, 1);
    unsetenv("FAKE_CUDA");
    ck_assert_int_eq(fj_cuda_device_open(&fj_allocator_libc, 0, 75, &device, NULL), FJ_OK);
    (void)snprintf(cache_path, sizeof cache_path, "/proc/nowhere");
    session_open(&self);
    const fj_driver *driver = device;
    ck_assert_int_eq(
        fj_jit_choose(self.jit, driver, &gpu_problem, &features, &variants[0], false, &first, &self.error),
        FJ_OK);
    ck_assert_int_eq(
        fj_jit_choose(self.jit, driver, &gpu_problem, &features, &variants[0], false, &second, &self.error),
        FJ_OK);
    ck_assert_str_eq(first.variant->name, variants[next].name);
    ck_assert_ptr_eq(first.variant, second.variant);
    ck_assert_ptr_eq(first.object, second.object);
    ck_assert_int_eq(first.info.cache_hit, false);
    ck_assert_int_eq(second.info.cache_hit, true);
    ck_assert_int_eq(second.info.resource_count, 1);
    fj_jit_release(self.jit, &first.object);
    fj_jit_release(self.jit, &second.object);
    session_close(&self);
    if (device) device->close(&device);
}
END_TEST

START_TEST(any_allocation_may_fail) {
    start("rows=64");
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    for (int warm = 0; warm < 2; warm++) {
        bool reached_the_end = false;
        for (long n = 0; !reached_the_end; n++) {
            session self;
            fj_jit_chosen chosen;
            if (!warm) folder_remove(cache_path);
            failing.countdown = n;
            if (!session_try(&self, &allocator)) continue;
            fj_status status = choose(&self, false, &chosen);
            reached_the_end = failing.countdown >= 0;
            failing.countdown = -1;
            ck_assert_msg(status == FJ_OK || status == FJ_ERR_MEMORY || status == FJ_ERR_IO, "%ld: %s", n,
                          self.error.text);
            session_close(&self);
            ck_assert_int_eq(failing.live, 0);
        }
    }
}
END_TEST

RUN_SUITE("select", what_does_not_spill_stays, few_spills_are_none, the_next_that_does_not_spill_is_taken,
          the_one_that_spills_least_is_taken, a_search_has_four_steps, a_search_keeps_to_packed_or_not,
          one_that_does_not_compile_stops_the_search, a_named_variant_is_that_one,
          a_mended_template_is_searched_again, a_process_remembers, any_allocation_may_fail)
