/* Decimal text of doubles, both ways, whatever the locale of the process or the thread is.
 *
 * A library does not know the locale of the program that calls it: with a decimal comma, printf("%g") writes
 * and strtod reads one. tools/style.py refuses such calls outside of this file.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

/* The C library reads digits and an exponent, without a point: so the locale plays no part. 800 digits and
 * a mark for a rest decide every rounding. */
double fj_decimal_value(fj_str text) {
    enum { DIGITS = 800, EXPONENT_MAX = 100000000 };
    char digits[DIGITS + 32];
    size_t count = 0, at = 0;
    long exponent = 0, written = 0;
    bool point = false, rest = false;
    for (; at < text.len && (text.data[at] | 32) != 'e'; at++) {
        char c = text.data[at];
        if (c == '.') point = true;
        if (!fj_is_digit(c)) continue;
        exponent -= point;
        if (count == 0 && c == '0') continue;
        if (count < DIGITS) {
            digits[count++] = c;
        } else {
            rest = rest || c != '0';
            exponent++;
        }
    }
    bool negative = at + 1 < text.len && text.data[at + 1] == '-';
    for (; at < text.len; at++)
        if (fj_is_digit(text.data[at]) && written < EXPONENT_MAX)
            written = written * 10 + (text.data[at] - '0');
    if (count == 0) return 0.0;
    if (rest) {
        digits[count++] = '1';
        exponent--;
    }
    (void)snprintf(digits + count, sizeof digits - count, "e%ld", exponent + (negative ? -written : written));
    return strtod(digits, NULL);
}

static size_t count_digits(fj_str text, size_t at) {
    size_t count = 0;
    while (at + count < text.len && fj_is_digit(text.data[at + count])) count++;
    return count;
}

size_t fj_decimal_parse(fj_str text, double *ret_value) {
    static const struct {
        const char *name;
        double value;
    } names[] = {{"inf", (double)INFINITY}, {"nan", (double)NAN}};
    size_t start = text.len > 0 && (text.data[0] == '-' || text.data[0] == '+'), at = start;
    double sign = start == 1 && text.data[0] == '-' ? -1.0 : 1.0;
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (text.len - at < 3 || memcmp(text.data + at, names[i].name, 3) != 0) continue;
        *ret_value = sign * names[i].value;
        return at + 3;
    }
    size_t whole = count_digits(text, at), part = 0;
    at += whole;
    if (at < text.len && text.data[at] == '.') {
        part = count_digits(text, at + 1);
        at += whole + part > 0 ? 1 + part : 0;
    }
    if (whole + part == 0) return 0;
    if (at < text.len && (text.data[at] | 32) == 'e') {
        size_t mark = at + 1 + (at + 1 < text.len && (text.data[at + 1] == '-' || text.data[at + 1] == '+'));
        size_t digits = count_digits(text, mark);
        if (digits > 0) at = mark + digits;
    }
    *ret_value = sign * fj_decimal_value((fj_str){text.data + start, at - start});
    return at;
}

/* What stands between the digits is the locale's decimal point, of any length. */
static void put_point(char *text) {
    char *point = text + strspn(text, "+-0123456789einfa");
    if (*point == '\0') return;
    size_t length = strcspn(point, "0123456789");
    *point = '.';
    memmove(point + 1, point + length, strlen(point + length) + 1);
}

void fj_decimal_format(char *text, size_t size, int digits, double value) {
    (void)snprintf(text, size, "%.*g", digits, value);
    put_point(text);
}

void fj_buf_double(fj_buf *buf, double value) {
    if (isnan(value) || isinf(value)) {
        fj_buf_put(buf, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    if (fabs(value) < 1e15 && value == trunc(value)) {
        fj_buf_printf(buf, "%s%lld.0", signbit(value) ? "-" : "", (long long)fabs(value));
        return;
    }
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        double read = 0.0;
        fj_decimal_format(text, sizeof text, digits, value);
        if (fj_decimal_parse(fj_str_from(text), &read) > 0 && read == value) break;
    }
    fj_buf_put(buf, text);
}
