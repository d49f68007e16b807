/* The reader and the writer of safetensors files, and the conversions of elements: what the end-to-end tests cannot
 * reach or would reach too slowly. */
#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/number.h"
#include "cli/safetensors.h"

/* Builds a file from a header and a size of data, and reads it. */
static bool parse(const char *header, size_t data_size, cli_safetensors *ret_file,
                  char error[CLI_ST_ERROR_SIZE]) {
    static uint8_t bytes[4096];
    size_t length = strlen(header);
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(length >> (8 * i));
    for (size_t i = 0; i < length; i++) bytes[8 + i] = (uint8_t)header[i];
    memset(bytes + 8 + length, 7, data_size);
    return cli_st_parse(bytes, 8 + length + data_size, ret_file, error);
}

START_TEST(reads_in_the_order_of_the_header) {
    cli_safetensors file;
    char error[CLI_ST_ERROR_SIZE];
    ck_assert(parse("{\"__metadata__\":{\"a\":\"b\"},"
                    "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                    "\"\xc3\xa9\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]},"
                    "\"none\":{\"dtype\":\"F64\",\"shape\":[5,0],\"data_offsets\":[4,4]}}   ",
                    16, &file, error));
    ck_assert_uint_eq(file.count, 3);
    const cli_tensor *b = cli_st_find(&file, "b");
    ck_assert_ptr_eq(b, &file.tensors[0]);
    ck_assert(b->known && b->dtype == FJ_DTYPE_F16 && b->rank == 2 && b->dims[1] == 3 && b->size == 12);
    ck_assert_uint_eq(b->offset, 4);
    ck_assert_int_eq(cli_st_find(&file, "\xc3\xa9")->rank, 0);
    ck_assert_uint_eq(cli_st_find(&file, "none")->size, 0);
    ck_assert_ptr_null(cli_st_find(&file, "__metadata__"));
    cli_st_close(&file);
}
END_TEST

START_TEST(reads_an_empty_file) {
    cli_safetensors file;
    char error[CLI_ST_ERROR_SIZE];
    ck_assert(parse("{}", 0, &file, error));
    ck_assert_uint_eq(file.count, 0);
    cli_st_close(&file);
    ck_assert(!parse("{}", 1, &file, error));
    ck_assert_ptr_nonnull(strstr(error, "1 bytes"));
}
END_TEST

/* A dtype that the library does not compute with has its size all the same. */
START_TEST(knows_the_widths_of_all_dtypes) {
    cli_safetensors file;
    char error[CLI_ST_ERROR_SIZE];
    ck_assert(parse("{\"a\":{\"dtype\":\"C64\",\"shape\":[2],\"data_offsets\":[0,16]}}", 16, &file, error));
    ck_assert(!file.tensors[0].known);
    cli_st_close(&file);
    ck_assert(parse("{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, &file, error));
    cli_st_close(&file);
    ck_assert(!parse("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, &file, error));
    ck_assert_ptr_nonnull(strstr(error, "within a byte"));
}
END_TEST

START_TEST(writes_what_it_reads) {
    char path[] = "/tmp/flexjit_test_XXXXXX";
    int handle = mkstemp(path);
    ck_assert_int_ge(handle, 0);
    close(handle);
    const int64_t dims[2] = {3, 1};
    const uint16_t half[3] = {1, 2, 3};
    const double wide[1] = {0.5};
    const cli_tensor tensors[2] = {
        {.name = "half", .dtype = FJ_DTYPE_F16, .rank = 2, .dims = dims, .size = sizeof half, .data = half},
        {.name = "wide", .dtype = FJ_DTYPE_F64, .rank = 0, .dims = dims, .size = sizeof wide, .data = wide},
    };
    cli_st_writer writer = {0};
    ck_assert_int_eq(cli_st_create(path, tensors, 2, &writer), 0);
    ck_assert_int_eq(cli_st_commit(&writer), 0);
    cli_safetensors file;
    ck_assert_int_eq(cli_st_open(path, &file), 0);
    unlink(path);
    ck_assert_mem_eq(cli_st_find(&file, "half")->data, half, sizeof half);
    ck_assert_uint_eq(cli_st_find(&file, "wide")->offset, 0);
    ck_assert_uint_eq((uintptr_t)cli_st_find(&file, "wide")->data % sizeof(double), 0);
    cli_st_close(&file);
}
END_TEST

START_TEST(discards) {
    char folder[] = "/tmp/flexjit_test_XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/out", folder);
    cli_st_writer writer = {0};
    cli_st_discard(&writer);
    ck_assert_int_eq(cli_st_create(path, NULL, 0, &writer), 0);
    cli_st_discard(&writer);
    cli_st_discard(&writer);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing is left in it */
}
END_TEST

/* ---- Numbers ----------------------------------------------------------------------------- */

START_TEST(halves_come_back) {
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        for (int i = 0; i < 2; i++) {
            fj_dtype dtype = i == 0 ? FJ_DTYPE_F16 : FJ_DTYPE_BF16;
            uint16_t in = (uint16_t)bits, out = 0;
            double value = cli_load(dtype, &in, 0);
            cli_store(dtype, &out, 0, value);
            if (isnan(value)) {
                ck_assert(isnan(cli_load(dtype, &out, 0)));
            } else {
                ck_assert_uint_eq(out, in);
            }
        }
    }
}
END_TEST

START_TEST(rounds_to_even) {
    ck_assert_double_eq(cli_round(FJ_DTYPE_F16, 2049), 2048);
    ck_assert_double_eq(cli_round(FJ_DTYPE_F16, 2051), 2052);
    ck_assert_double_eq(cli_round(FJ_DTYPE_BF16, 257), 256);
    ck_assert_double_eq(cli_round(FJ_DTYPE_F16, 65519), 65504);
    ck_assert_double_eq(cli_round(FJ_DTYPE_F16, 65520), HUGE_VAL);
    ck_assert_double_eq(cli_round(FJ_DTYPE_F16, 0x1p-25), 0);
    ck_assert_double_eq(cli_round(FJ_DTYPE_F16, 0x1.8p-25), 0x1p-24);
    ck_assert_double_eq(cli_ulp(FJ_DTYPE_F32, 1.5), 0x1p-23);
    ck_assert_double_eq(cli_ulp(FJ_DTYPE_BF16, 0.99), 0x1p-8);
    ck_assert_double_eq(cli_ulp(FJ_DTYPE_F64, 0), 0x1p-1074);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cli");
    TCase *files = tcase_create("safetensors"), *numbers = tcase_create("numbers");
    tcase_add_test(files, reads_in_the_order_of_the_header);
    tcase_add_test(files, reads_an_empty_file);
    tcase_add_test(files, knows_the_widths_of_all_dtypes);
    tcase_add_test(files, writes_what_it_reads);
    tcase_add_test(files, discards);
    tcase_add_test(numbers, halves_come_back);
    tcase_add_test(numbers, rounds_to_even);
    suite_add_tcase(suite, files);
    suite_add_tcase(suite, numbers);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
