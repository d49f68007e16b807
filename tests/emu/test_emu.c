/* The emulator: schedules, faults and what they say, memory, the tables of layouts. */
#include <check.h>
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "driver/emu/emu.h"
#include "driver/emu/layout.h"
#include "tests/support/failing.h"

enum { WORDS = 512 };

static void *object;
static fj_emu *emu;
static uint32_t out[WORDS];
static float in[64];
static fj_error error;
static fj_emu_counts counts;
static fj_launch one = {.struct_size = sizeof one, .workers = 1};

static void setup(void) {
    const char *path = getenv("FJ_EMU_OBJECT");
    ck_assert_msg(path != NULL, "FJ_EMU_OBJECT is the kernels' object");
    object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(object != NULL, "%s", dlerror());
    ck_assert_int_eq(fj_emu_create(&fj_allocator_libc, &emu, &error), FJ_OK);
    memset(out, 0, sizeof out);
    memset(&counts, 0, sizeof counts);
    for (int i = 0; i < 64; i++) in[i] = (float)i;
}

static void teardown(void) {
    fj_error_finish(&error);
    fj_emu_destroy(&emu);
    (void)dlclose(object);
}

static const fj_emu_kernel *kernel_of(const char *name) {
    const fj_emu_kernel *kernel = dlsym(object, name);
    ck_assert_msg(kernel != NULL, "%s", name);
    return kernel;
}

static fj_status launch_with(const char *name, uint32_t blocks, uint32_t threads, uint32_t shared,
                             fj_emu_options options) {
    const struct {
        uint32_t *out;
        const float *in;
    } args = {out, in};
    fj_emu_shape shape = {{blocks, 1, 1}, threads, shared};
    if (!options.launch) options.launch = &one;
    options.counts = &counts;
    return fj_emu_launch(emu, kernel_of(name), &shape, &args, &options, &error);
}

static fj_status launch(const char *name, uint32_t threads, uint32_t shared) {
    return launch_with(name, 1, threads, shared, (fj_emu_options){.idle_seconds = 0.05});
}

static void expect(const char *text) {
    ck_assert_msg(strstr(error.text, text) != NULL, "'%s' is not in: %s", text, error.text);
}

/* ---- Faults ----------------------------------------------------------------------------------- */

struct fault {
    const char *kernel;
    uint32_t threads, shared;
    const char *place, *text;
};

static const struct fault faults[] = {
    {"diverge", 64, 0, "diverge.cu:15",
     "divergence: shuffle, but thread 0 of the same warp calls shuffle in line 13"},
    {"diverge_barrier", 64, 0, "diverge_barrier.cu:22", "divergence: at barrier 0, but thread 0"},
    {"missing_warp", 128, 0, "missing_warp.cu:32", "deadlock, 96 threads wait"},
    {"missing_lanes", 64, 0, "missing_lanes.cu:41", "deadlock, 64 threads wait"},
    {"exited_mma", 32, 0, "exited_mma.cu:53", "mma needs all 32 lanes"},
    {"misaligned", 32, 0, "misaligned.cu:60", "misaligned address"},
    {"outside", 32, 496, "outside.cu:72", "a shared address outside"},
    {"trapped", 32, 0, "trapped.cu:81", "the input is wrong"},
    {"spin", 32, 0, "spin.cu:101", "a flag, asleep"},
    {"arrive_twice", 64, 0, "arrive_twice.cu:113", "comes to barrier 1 again"},
    {"counts_differ", 128, 0, "counts_differ.cu:120", "but others are at it with"},
    {"no_mbarrier", 32, 8, "no_mbarrier.cu:130", "was not initialised"},
    {"not_a_member", 32, 0, "not_a_member.cu:140", "by a lane that is none of them"},
    {"misaligned_shared", 32, 64, "misaligned_shared.cu:150", "misaligned byte of shared memory"},
    {"misaligned_copy", 32, 64, "misaligned_copy.cu:161", "misaligned shared address"},
    {"misaligned_source", 32, 64, "misaligned_source.cu:171", "misaligned address"},
    {"misaligned_matrix", 32, 256, "misaligned_matrix.cu:182", "misaligned shared address"},
    {"misaligned_store", 32, 0, "misaligned_store.cu:190", "misaligned address"},
    {"misaligned_atomic", 32, 0, "misaligned_atomic.cu:201", "misaligned address"},
    {"two_products", 32, 0, "two_products.cu:212",
     "divergence: mma, but thread 0 of the same warp calls mma in line 212, through another call"},
    {"two_barriers", 64, 0, "two_barriers.cu:232",
     "divergence: at barrier 0, but thread 0 of the same warp is at it in line 232, through another call"},
};

START_TEST(test_fault) {
    const struct fault *fault = &faults[_i];
    for (int schedule = 0; schedule < FJ_EMU_SCHEDULE_COUNT; schedule++) {
        fj_emu_options options = {
            .schedule = (fj_emu_schedule)schedule, .seed = 3, .idle_seconds = 0.05, .one_call_site = true};
        in[0] = 0;
        ck_assert_int_eq(launch_with(fault->kernel, 5, fault->threads, fault->shared, options),
                         FJ_ERR_DEVICE);
        expect(fault->kernel);
        if (schedule == FJ_EMU_FORWARD) expect(fault->place);
        if (schedule == FJ_EMU_FORWARD) expect(fault->text);
    }
    ck_assert_int_eq(launch("order", 128, 0), FJ_OK); /* nothing of it is left */
}
END_TEST

START_TEST(test_deadlock_detail) {
    ck_assert_int_eq(launch("missing_lanes", 64, 0), FJ_ERR_DEVICE);
    ck_assert_ptr_nonnull(error.detail);
    ck_assert_str_eq(
        error.detail,
        "warp 0 lanes 0-29 wait at missing_lanes.cu:41 for the block barrier; not there: warp 0 lanes "
        "30-31, warp 1 lanes 30-31\n"
        "warp 0 lanes 30-31 wait at missing_lanes.cu:42 for shuffle of lanes 0-31; not there: 0-29\n"
        "warp 1 lanes 0-29 wait at missing_lanes.cu:41 for the block barrier; not there: warp 0 lanes "
        "30-31, warp 1 lanes 30-31\n"
        "warp 1 lanes 30-31 wait at missing_lanes.cu:42 for shuffle of lanes 0-31; not there: 0-29\n");
    ck_assert_int_eq(launch("missing_warp", 128, 0), FJ_ERR_DEVICE);
    expect("barrier 1 of 128 threads; 32 threads have exited");
}
END_TEST

START_TEST(test_first_failure_is_told) {
    fj_launch two = {.struct_size = sizeof two, .workers = 2};
    ck_assert_int_eq(launch_with("trapped", 3, 32, 0, (fj_emu_options){0}), FJ_OK);
    ck_assert_int_eq(launch_with("trapped", 5, 32, 0, (fj_emu_options){0}), FJ_ERR_DEVICE);
    expect("kernel trapped, block (3, 0, 0), thread 5, trapped.cu:81: the input is wrong");
    ck_assert_int_eq(launch_with("trapped", 9, 32, 0, (fj_emu_options){.launch = &two}), FJ_ERR_DEVICE);
    ck_assert_int_eq(launch_with("trapped", 5, 32, 0, (fj_emu_options){.schedule = FJ_EMU_REVERSE}),
                     FJ_ERR_DEVICE);
    expect("block (4, 0, 0)");
}
END_TEST

START_TEST(test_arguments) {
    ck_assert_int_eq(launch("order", 129, 0), FJ_ERR_ARGUMENT);
    expect("kernel order takes blocks of 1 to 128 threads, not 129");
    ck_assert_int_eq(launch("order", 0, 0), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(launch("order", 128, 240 << 10), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(launch_with("order", 0, 128, 0, (fj_emu_options){0}), FJ_ERR_ARGUMENT);
    const fj_emu_options small = {.shared_limit = 99 << 10}; /* sm_86 */
    ck_assert_int_eq(launch_with("order", 1, 128, 100 << 10, small), FJ_ERR_ARGUMENT);
    expect(
        "kernel order takes 102400 bytes of shared memory; a block of this architecture has at most 101376");
    out[0] = 0;
    ck_assert_int_eq(launch_with("order", 1, 128, 99 << 10, small), FJ_OK);
    out[0] = 0;
    ck_assert_int_eq(launch_with("order", 1, 128, 227 << 10, (fj_emu_options){0}), FJ_OK);
}
END_TEST

/* Without being asked to, the emulator looks at lines only: compilers may double a call. */
START_TEST(test_one_call_site_is_a_choice) {
    ck_assert_int_eq(launch("two_products", 32, 0), FJ_OK);
    ck_assert_int_eq(launch("two_barriers", 64, 0), FJ_OK);
}
END_TEST

/* ---- Memory ----------------------------------------------------------------------------------- */

START_TEST(test_shared_memory) {
    out[0] = 25;
    ck_assert_int_eq(launch("overrun", 32, 100), FJ_ERR_DEVICE);
    expect("a write past its 100 bytes of shared memory");
    out[0] = 24;
    ck_assert_int_eq(launch("overrun", 32, 100), FJ_OK);
    for (int copies = 0; copies < FJ_EMU_COPIES_COUNT; copies++) {
        ck_assert_int_eq(
            launch_with("undefined", 2, 32, 128, (fj_emu_options){.copies = (fj_emu_copies)copies}), FJ_OK);
        for (int i = 0; i < 32; i++) {
            float value;
            ck_assert_uint_eq(out[i], UINT32_MAX);
            memcpy(&value, &out[32 + i], sizeof value);
            ck_assert(copies == FJ_EMU_EAGER ? (int)value == i : isnan(value));
            memcpy(&value, &out[64 + i], sizeof value);
            ck_assert_int_eq((int)value, i);
        }
    }
    ck_assert_int_eq((int)counts.async_copies, 2 * 2 * 32);
    ck_assert_int_eq((int)counts.async_bytes, 2 * 2 * 128);
}
END_TEST

START_TEST(test_deep_frames) {
    out[500] = 70000;
    ck_assert_int_eq(launch("deep", 64, 0), FJ_OK);
    for (uint32_t i = 0; i < 64; i++) ck_assert_uint_eq(out[i], 210000 + i);
}
END_TEST

/* By the options that tests compile kernels with: not the 0 that fresh memory has. */
START_TEST(test_unset_registers) {
    ck_assert_int_eq(launch("unset", 32, 0), FJ_OK);
    for (int i = 0; i < 7; i++) ck_assert_uint_ne(out[i], 0);
}
END_TEST

/* Late copies land when they must and not before. */
START_TEST(test_pending_copies) {
    static const bool landed[6] = {true, false, false, true, true, false};
    ck_assert_int_eq(launch_with("pending", 1, 32, 384, (fj_emu_options){.copies = FJ_EMU_LATE}), FJ_OK);
    for (uint32_t i = 0; i < 192; i++) {
        float value;
        memcpy(&value, &out[i], sizeof value);
        ck_assert(landed[i / 32] ? value == (float)(i % 32) : isnan(value));
    }
    ck_assert_int_eq(launch("pending", 32, 384), FJ_OK);
    for (uint32_t i = 0; i < 192; i++) {
        float value;
        memcpy(&value, &out[i], sizeof value);
        ck_assert(value == (float)(i % 32));
    }
}
END_TEST

/* Between a copy and its wait nobody sees what was there before; bytes that have no source become 0. */
START_TEST(test_copies_over_what_was_there) {
    for (int copies = 0; copies < FJ_EMU_COPIES_COUNT; copies++) {
        const fj_emu_options options = {.copies = (fj_emu_copies)copies};
        const bool late = copies == FJ_EMU_LATE;
        memset(out, 1, sizeof out);
        ck_assert_int_eq(launch_with("overwritten", 1, 32, 512, options), FJ_OK);
        for (uint32_t i = 0; i < 128; i++) {
            uint32_t word = 0;
            if (i % 4 < 2) memcpy(&word, &in[i % 32], sizeof word);
            ck_assert_uint_eq(out[i], late ? UINT32_MAX : word);
            ck_assert_uint_eq(out[128 + i], word);
        }
        ck_assert_int_eq(launch_with("overwritten_bulk", 1, 32, 136, options), FJ_OK);
        for (uint32_t i = 0; i < 32; i++) {
            uint32_t word;
            memcpy(&word, &in[i], sizeof word);
            ck_assert_uint_eq(out[i], late ? UINT32_MAX : word);
            ck_assert_uint_eq(out[32 + i], word);
        }
    }
}
END_TEST

START_TEST(test_bank_conflicts) {
    ck_assert_int_eq(launch("conflicts", 32, 256), FJ_OK);
    ck_assert_int_eq((int)counts.matrix_loads, 2);
    ck_assert_int_eq((int)counts.bank_conflicts, 2);
    ck_assert_int_eq((int)counts.barriers, 1);
}
END_TEST

START_TEST(test_guarded_memory) {
    for (size_t size = 1; size < 10000; size += 997) {
        unsigned char *memory = fj_emu_guarded_alloc(size);
        ck_assert_ptr_nonnull(memory);
        ck_assert_int_eq(memory[0], 0xff);
        memory[size - 1] = 0;
        ck_assert_uint_eq(((uintptr_t)memory + size) % 4096, 0);
        fj_emu_guarded_free(memory, size);
    }
    fj_emu_guarded_free(NULL, 5);
}
END_TEST

START_TEST(test_out_of_memory) {
    for (long n = 0;; n++) {
        failing_allocator failing = {n, 0};
        const fj_allocator allocator = {failing_resize, &failing};
        fj_emu *other = NULL;
        const struct {
            uint32_t *out;
            const float *in;
        } args = {out, in};
        fj_emu_shape shape = {{1, 1, 1}, 32, 128};
        fj_emu_options options = {.copies = FJ_EMU_LATE, .launch = &one};
        fj_status status = fj_emu_create(&allocator, &other, &error);
        if (status == FJ_OK)
            status = fj_emu_launch(other, kernel_of("undefined"), &shape, &args, &options, &error);
        fj_emu_destroy(&other);
        ck_assert_int_eq(failing.live, 0);
        if (status == FJ_OK) break;
        ck_assert_msg(strstr(error.text, "out of memory") != NULL, "%s", error.text);
        ck_assert_int_lt(n, 100);
    }
}
END_TEST

/* ---- Order ------------------------------------------------------------------------------------ */

static void order(fj_emu_schedule schedule, uint64_t seed, uint32_t *ret) {
    memset(out, 0, sizeof out);
    ck_assert_int_eq(launch_with("order", 1, 128, 0, (fj_emu_options){.schedule = schedule, .seed = seed}),
                     FJ_OK);
    ck_assert_uint_eq(out[0], 256);
    bool seen[2][128] = {{false}};
    for (int i = 0; i < 256; i++) seen[i / 128][out[1 + i]] = true; /* nobody is past the barrier too early */
    for (int i = 0; i < 256; i++) ck_assert(seen[i / 128][i % 128]);
    memcpy(ret, out + 1, 256 * sizeof *ret);
}

START_TEST(test_schedules) {
    uint32_t got[256], again[256], other[256];
    order(FJ_EMU_FORWARD, 0, got);
    for (uint32_t i = 0; i < 256; i++) ck_assert_uint_eq(got[i], i % 128);
    order(FJ_EMU_REVERSE, 0, got);
    for (uint32_t i = 0; i < 256; i++) ck_assert_uint_eq(got[i], 127 - i % 128);
    order(FJ_EMU_RANDOM, 5, got);
    order(FJ_EMU_RANDOM, 5, again);
    order(FJ_EMU_RANDOM, 6, other);
    ck_assert_mem_eq(got, again, sizeof got);
    ck_assert_mem_ne(got, other, sizeof got);
}
END_TEST

START_TEST(test_block_order) {
    for (int schedule = 0; schedule < FJ_EMU_SCHEDULE_COUNT; schedule++) {
        for (uint32_t blocks = 1; blocks < 20; blocks++) {
            fj_emu_options options = {.schedule = (fj_emu_schedule)schedule, .seed = blocks};
            uint32_t seen = 0;
            memset(out, 0, sizeof out);
            ck_assert_int_eq(launch_with("block_order", blocks, 32, 0, options), FJ_OK);
            for (uint32_t i = 0; i < blocks; i++) seen |= 1u << out[1 + i];
            ck_assert_uint_eq(seen, (1u << blocks) - 1);
            if (schedule != FJ_EMU_RANDOM)
                ck_assert_uint_eq(out[1], schedule == FJ_EMU_FORWARD ? 0 : blocks - 1);
        }
    }
}
END_TEST

/* ---- Rounding --------------------------------------------------------------------------------- */

/* 2^24 + 2 and 1: to nearest even, 2^24 + 4; cut, as it was. */
static void expect_product(fj_emu_rounding rounding, float value) {
    in[0] = 0x1p24f + 2;
    ck_assert_int_eq(launch_with("product", 1, 32, 0, (fj_emu_options){.rounding = rounding}), FJ_OK);
    for (int i = 0; i < 128; i++) {
        float got;
        memcpy(&got, &out[i], sizeof got);
        ck_assert_msg(got == value, "%a, not %a", (double)got, (double)value);
    }
}

static fj_status create_anew(const char *rounding) {
    fj_emu_destroy(&emu);
    setenv("FLEXJIT_EMU_MMA", rounding, 1);
    return fj_emu_create(&fj_allocator_libc, &emu, &error);
}

START_TEST(test_rounding) {
    const float nearest = 0x1p24f + 4, truncated = 0x1p24f + 2;
    ck_assert_int_eq(create_anew("truncate"), FJ_OK);
    expect_product(FJ_EMU_ROUND_DEFAULT, truncated);
    expect_product(FJ_EMU_ROUND_NEAREST, nearest);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(create_anew(i ? "nearest" : ""), FJ_OK);
        expect_product(FJ_EMU_ROUND_DEFAULT, nearest);
        expect_product(FJ_EMU_ROUND_TRUNCATE, truncated);
    }
    ck_assert_int_eq(create_anew("down"), FJ_ERR_ARGUMENT);
    expect("FLEXJIT_EMU_MMA is 'down': matrix products round to 'nearest' or 'truncate'");
    unsetenv("FLEXJIT_EMU_MMA");
}
END_TEST

/* ---- Threads ---------------------------------------------------------------------------------- */

static void run_items(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    *(int64_t *)user += items;
    for (int64_t i = items - 1; i >= 0; i--) fn(arg, i, (int)(i % 2));
}

START_TEST(test_executor) {
    int64_t items = 0;
    fj_executor executor = {&items, 2, run_items};
    fj_launch with = {.struct_size = sizeof with, .executor = &executor};
    ck_assert_int_eq(launch_with("block_order", 9, 32, 0, (fj_emu_options){.launch = &with}), FJ_OK);
    ck_assert_int_eq(items, 9);
    ck_assert_uint_eq(out[0], 9);
    ck_assert_uint_eq(out[1], 8);
}
END_TEST

static void *launch_often(void *ret) {
    uint32_t words[257];
    const struct {
        uint32_t *out;
        const float *in;
    } args = {words, in};
    fj_emu_shape shape = {{1, 1, 1}, 128, 0};
    fj_emu_options options = {.launch = &one};
    for (int i = 0; i < 50; i++) {
        words[0] = 0;
        if (fj_emu_launch(emu, kernel_of("order"), &shape, &args, &options, NULL) != FJ_OK || words[0] != 256)
            return ret;
    }
    return NULL;
}

START_TEST(test_launches_at_once) {
    pthread_t threads[3];
    void *wrong;
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, launch_often, &threads), 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &wrong), 0);
        ck_assert_ptr_null(wrong);
    }
}
END_TEST

/* ---- Tables ----------------------------------------------------------------------------------- */

START_TEST(test_layout_is_bijective) {
    const fj_emu_layout *layout = &fj_emu_layouts[_i];
    bool seen[256] = {false};
    ck_assert_int_eq(layout->rows * layout->columns, 32 * layout->values);
    for (uint32_t lane = 0; lane < 32; lane++)
        for (uint32_t value = 0; value < layout->values; value++) {
            uint32_t index = fj_emu_layout_index(layout, lane, value);
            ck_assert_uint_lt(index, (uint32_t)layout->rows * layout->columns);
            ck_assert_msg(!seen[index], "%s: lane %u, value %u", layout->name, lane, value);
            seen[index] = true;
            ck_assert_uint_eq(index,
                              fj_emu_layout_index(layout, lane, 0) + fj_emu_layout_index(layout, 0, value));
        }
}
END_TEST

START_TEST(test_layout_is_that_of_prim_h) {
    ck_assert_int_eq(launch("formulas", 32, 0), FJ_OK);
    for (uint32_t i = 0; i < 128; i++)
        ck_assert_uint_eq(out[i], fj_emu_layout_index(&fj_emu_layouts[FJ_EMU_C_16X8], i / 4, i % 4));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("emu");
    TCase *tcase = tcase_create("emu");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_fault, 0, sizeof faults / sizeof faults[0]);
    tcase_add_test(tcase, test_deadlock_detail);
    tcase_add_test(tcase, test_first_failure_is_told);
    tcase_add_test(tcase, test_arguments);
    tcase_add_test(tcase, test_one_call_site_is_a_choice);
    tcase_add_test(tcase, test_shared_memory);
    tcase_add_test(tcase, test_deep_frames);
    tcase_add_test(tcase, test_unset_registers);
    tcase_add_test(tcase, test_pending_copies);
    tcase_add_test(tcase, test_copies_over_what_was_there);
    tcase_add_test(tcase, test_bank_conflicts);
    tcase_add_test(tcase, test_guarded_memory);
    tcase_add_test(tcase, test_out_of_memory);
    tcase_add_test(tcase, test_schedules);
    tcase_add_test(tcase, test_block_order);
    tcase_add_test(tcase, test_rounding);
    tcase_add_test(tcase, test_executor);
    tcase_add_test(tcase, test_launches_at_once);
    tcase_add_loop_test(tcase, test_layout_is_bijective, 0, FJ_EMU_LAYOUT_COUNT);
    tcase_add_test(tcase, test_layout_is_that_of_prim_h);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
