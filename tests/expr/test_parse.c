/* The parser: trees, located errors, what is tolerated until it is reached, and bounds. More than 400 lines: one harness
 * serves them all. */
#include "expr/lang/ast.h"
#include "expr/lang/lex.h"

#include <check.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

/* ---- Harness ------------------------------------------------------------------------------- */

typedef struct job {
    fj_source source;
    bool expression;
    fj_buf out;
    fj_expr *tree;
    fj_module *module;
} job;

static fj_arena arena;
static fj_error error;
static job current;

static void parse(fj_scope *scope, void *argument) {
    job *self = argument;
    if (self->expression) {
        self->tree = fj_expr_parse_expression(scope, &self->source);
        fj_expr_print_expression(self->tree, &self->out);
    } else {
        self->module = fj_expr_parse_module(scope, &self->source);
        fj_expr_print_module(self->module, &self->out);
    }
}

static void finish(void) {
    fj_buf_finish(&current.out);
    fj_arena_finish(&arena);
    fj_error_finish(&error);
}

static fj_status run(fj_str text, bool expression) {
    current = (job){.source = {expression ? "<score>" : "mod.py", text}, .expression = expression};
    fj_buf_init(&current.out, &fj_allocator_libc);
    fj_arena_init(&arena, &fj_allocator_libc);
    return fj_scope_run(&arena, &error, parse, &current);
}

static const char *printed(void) { return current.out.data ? current.out.data : ""; }

static void check_tree(const char *text, bool expression, const char *expected) {
    fj_status status = run(fj_str_from(text), expression);
    ck_assert_msg(status == FJ_OK, "%s\n%d:%d: %s", text, error.line, error.column, error.text);
    ck_assert_str_eq(printed(), expected);
    finish();
}

static void expression_is(const char *text, const char *expected) { check_tree(text, true, expected); }
static void module_is(const char *text, const char *expected) { check_tree(text, false, expected); }

static void check_error(fj_str text, bool expression, int line, int column, int length, const char *part) {
    ck_assert_int_eq(run(text, expression), FJ_ERR_MOD);
    ck_assert_msg(strstr(error.text, part) != NULL, "'%s' has no '%s'", error.text, part);
    ck_assert_msg(error.line == line && error.column == column && error.length == length,
                  "%s: at %d:%d+%d, expected %d:%d+%d", error.text, error.line, error.column, error.length,
                  line, column, length);
    finish();
}

static void expression_fails(const char *text, int column, int length, const char *part) {
    check_error(fj_str_from(text), true, 1, column, length, part);
}

static void module_fails(const char *text, int line, int column, int length, const char *part) {
    check_error(fj_str_from(text), false, line, column, length, part);
}

/* ---- Expressions --------------------------------------------------------------------------- */

START_TEST(operators_bind_as_in_python) {
    expression_is("1 + 2 * 3", "(+ 1 (* 2 3))");
    expression_is("a - b - c", "(- (- a b) c)");
    expression_is("-x ** 2", "(- (** x 2))");
    expression_is("2 ** -1 ** n", "(** 2 (- (** 1 n)))");
    expression_is("a | b ^ c & d << e + f // g", "(| a (^ b (& c (<< d (+ e (// f g))))))");
    expression_is("q >= kv and not k or m", "(or (and (>= q kv) (not k)) m)");
    expression_is("not a == b", "(not (== a b))");
    expression_is("0 <= a < b is not None", "(compare 0 <= a < b is not None)");
    expression_is("a not in b", "(not in a b)");
    expression_is("a if c else b if d else e", "(if c a (if d b e))");
    expression_is("~a @ b % +c", "(% (@ (~ a) b) (+ c))");
    expression_is("lambda s, *r, k=1, **w: s if k else r", "(lambda (s *r k!=1 **w) (if k s r))");
}
END_TEST

START_TEST(primaries) {
    expression_is("f(a, *b, c=1, **d).g[i, 1:, ::2, ...]",
                  "([] (. (call f a (star b) c=1 **d) g) i (: 1 _ _) (: _ _ 2) ...)");
    expression_is("x[(i, j)]", "([] x i j)");
    expression_is("(a, b), [], (), (c,)", "(tuple (tuple a b) (list) (tuple) (tuple c))");
    expression_is("[x + y for x, y in z if x if y for w in v]",
                  "(comprehension (+ x y) (for (tuple x y) z x y) (for w v))");
    expression_is("sum(x for x in y)", "(call sum (comprehension x (for x y)))");
    expression_is("'a' \"b\\n\" r'\\n'", "\"ab\\x0a\\\\n\"");
    expression_is("f'{a[\"}\"]!r:>{w}} {{' 'x'", "opaque\"{a[\\\"}\\\"]!r:>{w}} {{x\"");
    expression_is("f'{f\"{'nested'}\"}'", "opaque\"{f\\\"{'nested'}\\\"}\"");
    expression_is("'\\x41\\u00e9\\101\\q\\\n'", "\"A\xC3\xA9"
                                                "A\\\\q\"");
    expression_is("a\n +\r\n b # c\r", "(+ a b)");
    expression_is("µ_é + 变量", "(+ µ_é 变量)");
}
END_TEST

START_TEST(numbers) {
    expression_is("0x_Ff + 0o17 + 0b1_01 + 1_000 + 00", "(+ (+ (+ (+ 255 15) 5) 1000) 0)");
    expression_is("1. + .5 + 1e3 + 1_0.2_5e-1_0", "(+ (+ (+ 1.0 0.5) 1000.0) 1.025e-09)");
    expression_is("9223372036854775807", "9223372036854775807");
    expression_is("-9223372036854775808", "-9223372036854775808");
    expression_is("1if x else 2", "(if x 1 2)");
    expression_is("1e999", "inf");
    expression_fails("9223372036854775808", 1, 19, "beyond 64 bits");
    expression_fails("-9223372036854775808 ** 2", 2, 19, "beyond 64 bits");
    expression_fails("a + 2j", 5, 2, "imaginary");
    expression_fails("012", 1, 3, "leading zeros");
    expression_fails("1__0", 1, 2, "between two digits");
    expression_fails("0x", 1, 2, "needs digits");
    expression_fails("0b12", 4, 1, "no digit '2'");
    expression_fails("1x", 1, 2, "cannot follow a number");
}
END_TEST

/* 2^-1074 and the halfway cases need more digits than a double has; no locale may change a value. */
START_TEST(floats_are_correctly_rounded_in_any_locale) {
    (void)setlocale(LC_NUMERIC, "de_DE.UTF-8");
    ck_assert_double_eq(fj_lex_float(FJ_STR("0.1")), 0.1);
    ck_assert_double_eq(fj_lex_float(FJ_STR("123_456.5e-3")), 123.4565);
    ck_assert_double_eq(fj_lex_float(FJ_STR("4.9406564584124654e-324")), 0x1p-1074);
    ck_assert_double_eq(fj_lex_float(FJ_STR("1.00000000000000011102230246251565404236316680908203125")), 1.0);
    ck_assert_double_eq(fj_lex_float(FJ_STR("1.00000000000000011102230246251565404236316680908203126")),
                        1.0 + 0x1p-52);
    ck_assert_double_eq(fj_lex_float(FJ_STR("0e99999999999999999999")), 0.0);
    ck_assert_double_eq(fj_lex_float(FJ_STR("1e-99999999999999999999")), 0.0);
    char digits[4000] = "1.000000000000000111022302462515654042363166809082031250";
    const size_t zeros = strlen(digits);
    memset(digits + zeros, '0', 3000);
    ck_assert_double_eq(fj_lex_float(fj_str_from(digits)), 1.0);
    digits[zeros + 3000] = '1';
    ck_assert_double_eq(fj_lex_float(fj_str_from(digits)), 1.0 + 0x1p-52);
    (void)setlocale(LC_NUMERIC, "C");
}
END_TEST

START_TEST(places_are_exact) {
    ck_assert_int_eq(run(FJ_STR(" (a + b) * f( x )[i].y  "), true), FJ_OK);
    const fj_expr *product = current.tree;
    ck_assert_uint_eq(product->place.offset, 1);
    ck_assert_uint_eq(product->place.length, 21);
    ck_assert_uint_eq(product->left->place.offset, 2);
    ck_assert_uint_eq(product->left->place.length, 5);
    ck_assert_uint_eq(product->right->place.offset, 11);
    ck_assert_uint_eq(product->right->place.length, 11);
    ck_assert_uint_eq(product->right->left->left->place.length, 6);
    ck_assert_uint_eq(product->depth, 5);
    finish();
}
END_TEST

START_TEST(expression_errors) {
    expression_fails("", 1, 0, "empty");
    expression_fails("score +", 8, 0, "expected an expression");
    expression_fails("a = b", 3, 1, "'=='");
    expression_fails("f(a b)", 5, 1, "unexpected 'b': expected ',' or ')'");
    expression_fails("a && b", 4, 1, "'and'");
    expression_fails("a $ b", 3, 1, "unexpected character '$'");
    expression_fails("a ? b : c", 3, 1, "if condition else");
    expression_fails("!a", 1, 1, "'not x'");
    expression_fails("(a", 1, 1, "'(' of line 1 is never closed");
    expression_fails("a]", 2, 1, "']' closes nothing");
    expression_fails("(a]", 3, 1, "']' does not close the '(' of line 1");
    expression_fails("f(x=1, x=2)", 8, 1, "given twice");
    expression_fails("f(x=1, 2)", 8, 1, "positional");
    expression_fails("f(1, x for x in y)", 8, 3, "brackets of its own");
    expression_fails("x[]", 3, 1, "an index");
    expression_fails("(x := 1)", 2, 6, "':='");
    expression_is("{1: 2, **d}", "(dict 1 2 (star d) None)");
    expression_is("{k: v for k, v in d}", "(dict-comprehension (tuple k v) (for (tuple k v) d))");
    expression_fails("{1, 2}", 1, 6, "sets");
    expression_fails("(x for x in y)", 1, 14, "generator");
    expression_fails("'abc", 1, 4, "not closed on its line");
    expression_fails("'''", 1, 3, "never closed");
    expression_fails("1.5a", 1, 4, "number");
    expression_fails("'''abc", 1, 6, "never closed");
    expression_fails("'\\x4g'", 2, 3, "2 hexadecimal digits");
    expression_fails("f'{a'", 5, 1, "not closed");
    expression_fails("é + α ≥ b", 7, 1, "U+2265");
    expression_fails("lambda a, a: a", 11, 1, "two parameters");
    check_error((fj_str){"a\0b", 3}, true, 1, 2, 1, "NUL");
    check_error((fj_str){"\xC3\xA9 + \xFF", 6}, true, 1, 5, 1, "0xff");
    check_error((fj_str){"\xED\xA0\x80", 3}, true, 1, 1, 1, "UTF-8");
}
END_TEST

/* ---- Files --------------------------------------------------------------------------------- */

START_TEST(statements) {
    module_is("import a.b, c.d as e\nfrom ..m import (x as y, z,)\nfrom . import *\n",
              "(import (a.b -> a) (c.d -> e))\n(import (..m x -> y) (..m z -> z))\n(import (. * -> ))\n");
    module_is("a = b = 1, 2\nx: int\ny: int = 3\nz **= 2; pass\n",
              "(= a b (tuple 1 2))\n(annotation x)\n(= y 3)\n(**= z 2)\n(pass)\n");
    module_is("if a: b\nelif c:\n  d\nelse:\n  e\n",
              "(if a\n  (expression b)\n  (else\n    (if c\n      (expression d)\n      (else\n        "
              "(expression e)))))\n");
    module_is("for i, (j, k) in z:\n break\nelse:\n assert i, 'm'\n",
              "(for (tuple i (tuple j k)) z\n  (break)\n  (else\n    (assert i \"m\")))\n");
    module_is("", "");
    module_is("\xEF\xBB\xBF\f\n# only\r\r\n   \t\n", "");
    module_is("\xEF\xBB\xBF"
              "a\rb\r\nc",
              "(expression a)\n(expression b)\n(expression c)\n");
    module_is("if a:\n\tb\n\tif c:\n\t    d\n\t\\\n e\n",
              "(if a\n  (expression b)\n  (if c\n    (expression d))\n  (expression e))\n");
}
END_TEST

START_TEST(functions_and_their_locals) {
    module_is("@w(1)\ndef f[T](a: int, /, b=2, *r: T, c, d=3, **k) -> g[T]:\n  return a\n",
              "(def f (a b=2 *r c! d!=3 **k) (decorators (call w 1)) (locals a b r c d k)\n  (return a))\n");
    module_is(
        "def f():\n  x += 1\n  y: int\n  for i, [j] in z: import t\n  def g(h): u = 1\n  class C: v = 1\n"
        "  [w for w in z]\n  lambda l: l\n  (p := 1)\n  global m\n  m = 1\n  o.q = s[r] = 1\n",
        "(def f () (locals x y i j t g C p)\n  (+= x 1)\n  (annotation y)\n  (for (tuple i (list j)) z\n    "
        "(import (t -> t)))\n  (def g (h) (locals h u)\n    (= u 1))\n"
        "  (class C (locals v)\n    (= v 1))\n"
        "  (expression (comprehension w (for w z)))\n  (expression (lambda (l) l))\n"
        "  (expression (:= p 1))\n"
        "  (global \"'global' is not in the mod language: a mod assigns only its own names\" (binds m))\n"
        "  (= m 1)\n  (= (. o q) ([] s r) 1))\n");
    module_is(
        "async def f():\n  yield\n",
        "(async def f () (locals) generator\n  (expression (unsupported \"'yield' is not in the mod language: "
        "return a value\")))\n");
}
END_TEST

static void check_unsupported(const char *text, const char *part, const char *binds) {
    ck_assert_msg(run(fj_str_from(text), false) == FJ_OK, "%s: %s", text, error.text);
    ck_assert_uint_ge(current.module->body.len, 1);
    const fj_stmt *statement = current.module->body.data[0];
    ck_assert_int_eq(statement->kind, FJ_STMT_UNSUPPORTED);
    ck_assert_msg(strstr(printed(), part) != NULL, "%s: %s", text, printed());
    ck_assert_msg(strstr(printed(), binds) != NULL, "%s: %s", text, printed());
    /* What follows is parsed again. */
    ck_assert_int_eq(current.module->body.data[current.module->body.len - 1]->kind, FJ_STMT_PASS);
    finish();
}

START_TEST(what_is_not_understood_is_kept_for_later) {
    check_unsupported("while x:\n  y = 1\nelse:\n  z = 2\npass", "while loops", "(binds y z)");
    check_unsupported("class C(B, metaclass=M:\n  def f(self): return 1 if\n  x = y z\n)\npass", "unexpected",
                      "(binds C)");
    check_unsupported("try: import flash\nexcept ImportError as e:\n  flash = None\nfinally: pass\npass",
                      "try", "(binds flash e)");
    check_unsupported("with a as b, c as (d, e):\n  f.g = 1\npass", "with", "(binds b d e)");
    check_unsupported("match x:\n  case [a, B(c), d.e] if z: f = 1\npass", "matches constants",
                      "(binds a c f)");
    check_unsupported("match x:\n  case y: f = 1\npass", "matches constants", "(binds y f)");
    check_unsupported("async with a as b: pass\npass", "async", "(binds b)");
    check_unsupported("type X[T] = list[T]; pass", "type alias", "(binds X)");
    check_unsupported("*b = c\npass", "starred", "(binds b)");
    check_unsupported("a, *b, *c = d\npass", "two starred", "(binds a b c)");
    check_unsupported("print x\npass", "unexpected 'x': expected the end of the line", "(binds)");
    check_unsupported("return 1\npass", "outside a function", "");
    check_unsupported("break\npass", "outside a loop", "");
    check_unsupported("f() = 1\npass", "cannot assign to a call", "");
    check_unsupported("if a = b:\n  c = 1\nelif d:\n  e = 2\npass", "'=='", "(binds c e)");
    check_unsupported("def f(a, a):\n  return 1\npass", "two parameters", "(binds f)");
    check_unsupported("def f(a=1, b):\n  return 1\npass", "needs a default", "(binds f)");
    check_unsupported("else:\n  a = 1\npass", "belongs to no", "(binds a)");
    check_unsupported("del x:\n  a = 1\npass", "end of the line", "(binds x a)");
    module_is("del a, b[c]\na, *b = c\n@d\nclass C[T](B, metaclass=M): x: int = 1\n",
              "(del (tuple a ([] b c)))\n(= (tuple a (star b)) c)\n(class C B (locals x)\n  (= x 1))\n");
    module_is(
        "match x.y:\n  case 1 | 'a' if z: pass\n  case None: pass\n  case _: pass\n",
        "(if (and (or (== (. x y) 1) (== (. x y) \"a\")) z)\n  (pass)\n  (else\n    (if (is (. x y) None)\n"
        "      (pass)\n      (else\n        (if True\n          (pass))))))\n");
    module_is("match = 1\nmatch(x)\nmatch[x]: int\ntype = case = 2\n",
              "(= match 1)\n(expression (call match x))\n(annotation ([] match x))\n(= type case 2)\n");
}
END_TEST

/* A bad statement in a function is an error only when it is reached, and then nothing of its line counts. */
START_TEST(a_bad_line_spoils_only_itself) {
    module_is(
        "def f(q):\n  if q:\n    return q q\n  return 1\n",
        "(def f (q) (locals q)\n  (if q\n    (unsupported \"unexpected 'q': expected the end of the line\" "
        "(binds)))\n  (return 1))\n");
    ck_assert_int_eq(run(FJ_STR("def f():\n  a = = 3\n"), false), FJ_OK);
    const fj_stmt *bad = current.module->body.data[0]->function->body.data[0];
    ck_assert_int_eq(bad->kind, FJ_STMT_UNSUPPORTED);
    ck_assert_uint_eq(bad->place.offset, 15);
    ck_assert_uint_eq(bad->place.length, 1);
    ck_assert_uint_eq(current.module->body.data[0]->function->local_count, 1);
    finish();
}
END_TEST

START_TEST(file_errors) {
    module_fails("a = (1,\n  [2\nb = 3\n", 2, 3, 1, "'[' of line 2 is never closed");
    module_fails("f(\n]", 2, 1, 1, "']' does not close the '(' of line 1");
    module_fails("if a:\nb\n", 2, 1, 0, "expected an indented block after line 1");
    module_fails("if a:\n  # none\n", 1, 5, 1, "expected an indented block");
    module_fails("a\n  b\n", 2, 1, 2, "unexpected indentation");
    module_fails("if a:\n    b\n  c\n", 3, 1, 2, "matches no block");
    module_fails("if a:\n        b\n\tc\n", 3, 1, 1, "tabs and spaces");
    module_fails("if a:\n\tif b:\n        c\n", 3, 1, 8, "tabs and spaces");
    module_fails("x = 'é'; y = 'abc\n", 1, 14, 4, "not closed");
    module_fails("class A:\n  x = 09\n", 2, 7, 2, "leading zeros");
    module_fails("a \\ \nb", 1, 3, 1, "continues a line");
    module_fails("x =\xC2\xA0"
                 "1",
                 1, 4, 1, "U+00A0");
}
END_TEST

/* ---- Bounds -------------------------------------------------------------------------------- */

/* head, then `part` count times, then `middle`, then `tail` count times. */
static fj_str repeated(const char *head, const char *part, size_t count, const char *middle,
                       const char *tail) {
    fj_buf buf;
    fj_buf_init(&buf, &fj_allocator_libc);
    fj_buf_put(&buf, head);
    for (size_t i = 0; i < count; i++) fj_buf_put(&buf, part);
    fj_buf_put(&buf, middle);
    for (size_t i = 0; i < count; i++) fj_buf_put(&buf, tail);
    return (fj_str){buf.data, buf.len};
}

static void bounded(const char *head, const char *part, size_t count, const char *middle, const char *tail,
                    bool expression, const char *message) {
    fj_str text = repeated(head, part, count, middle, tail);
    fj_status status = run(text, expression);
    if (message) {
        const char *found = status == FJ_OK ? printed() : error.text;
        ck_assert_msg(strstr(found, message) != NULL, "%zu * '%s': %.200s", count, part, found);
    } else {
        ck_assert_msg(status == FJ_OK && !strstr(printed(), "unsupported"), "%zu * '%s': %s", count, part,
                      error.text);
    }
    finish();
    free((void *)(uintptr_t)text.data);
}

START_TEST(nesting_and_chains_are_bounded) {
    bounded("", "(", 200, "a", ")", true, NULL);
    bounded("", "(", 257, "a", ")", true, "more than 256 deep");
    bounded("", "(", 100000, "", "", true, "more than 256 deep");
    bounded("", "-", 200, "a", "", true, NULL);
    bounded("", "-", 100000, "a", "", true, "more than 256 deep");
    bounded("", "not ", 100000, "a", "", true, "more than 256 deep");
    bounded("", "2**-", 100000, "a", "", true, "more than 256 deep");
    bounded("", "lambda:", 100000, "a", "", true, "more than 256 deep");
    bounded("", "a if b else ", 50000, "a", "", true, "more than 256 deep");
    bounded("", "a+", 900, "a", "", true, NULL);
    bounded("", "a+", 400000, "a", "", true, "more than 1000");
    bounded("", "a.", 400000, "a", "", true, "more than 1000");
    bounded("a", "()", 400000, "", "", true, "more than 1000");
    bounded("", "a<", 400000, "a", "", true, NULL);
    bounded("", "a and ", 150000, "a", "", true, NULL);
    bounded("", "a,", 400000, "a", "", true, NULL);
    bounded("", "''", 400000, "", "", true, NULL);
    bounded("if a:b\n", "elif a:b\n", 900, "", "", false, NULL);
    bounded("if a:b\n", "elif a:b\n", 50000, "", "", false, "more than 1000 'elif'");
    bounded("", "f'{", 5000, "a", "}'", true, "f-strings are nested");
    bounded("", "a;", 400000, "a", "", false, NULL);
    bounded("while 1: ", "case x: ", 100000, "a", "", false, "while loops");
    bounded("", "match -x;", 100000, "a", "", false, NULL);
    bounded("def f():\n", " a=1;\n", 100000, "", "", false, NULL);
}
END_TEST

/* Blocks nested to the limit, each spoilt at its end, so that every level is given up and skipped. */
START_TEST(nested_blocks_are_bounded) {
    for (int levels = 100; levels <= 400; levels += 300) {
        fj_buf buf;
        fj_buf_init(&buf, &fj_allocator_libc);
        for (int i = 0; i < levels; i++) fj_buf_printf(&buf, "%*sif a:\n", i, "");
        fj_buf_printf(&buf, "%*sx = 1\n", levels, "");
        for (int i = levels; i-- > 0;) fj_buf_printf(&buf, "%*selif = :\n%*sy\n", i, "", i + 1, "");
        fj_status status = run((fj_str){buf.data, buf.len}, false);
        ck_assert_int_eq(status, levels == 100 ? FJ_OK : FJ_ERR_MOD);
        const char *found = status == FJ_OK ? printed() : error.text;
        ck_assert(strstr(found, status == FJ_OK ? "expected an expression" : "more than 256 deep") != NULL);
        finish();
        fj_buf_finish(&buf);
    }
}
END_TEST

START_TEST(a_text_has_a_greatest_length) {
    fj_str text = repeated("", "a\n", FJ_SOURCE_MAX / 2, "b", "");
    ck_assert_int_eq(run(text, false), FJ_ERR_MOD);
    ck_assert_ptr_nonnull(strstr(error.text, "1048576 is the most"));
    finish();
    free((void *)(uintptr_t)text.data);
}
END_TEST

START_TEST(long_lines_and_names_are_cut_between_characters) {
    fj_str text = repeated("x", "é", 2000, " = = 1", "");
    ck_assert_int_eq(run(text, true), FJ_ERR_MOD);
    ck_assert_int_eq(error.column, 2003);
    ck_assert_uint_eq(strlen(error.source_line), 511);
    finish();
    free((void *)(uintptr_t)text.data);
    text = repeated("a x", "é", 2000, "", "");
    ck_assert_int_eq(run(text, true), FJ_ERR_MOD);
    ck_assert_ptr_nonnull(strstr(error.text, "é...': expected"));
    finish();
    free((void *)(uintptr_t)text.data);
    ck_assert_int_eq(run(FJ_STR("\x1B[31m"), true), FJ_ERR_MOD);
    ck_assert_str_eq(error.source_line, "?[31m");
    finish();
}
END_TEST

/* ---- Memory -------------------------------------------------------------------------------- */

static void *failing_resize(void *user, void *pointer, size_t old_size, size_t new_size) {
    int *allowed = user;
    (void)old_size;
    if (new_size == 0) {
        free(pointer);
        return NULL;
    }
    return (*allowed)-- > 0 ? realloc(pointer, new_size) : NULL;
}

START_TEST(every_failing_allocation_is_reported) {
    fj_str text = repeated("class C: pass\ndef f(a):\n", "  b = [a + 1, 'x' 'y']\n", 400, "  a b\n", "");
    for (int limit = 0;; limit++) {
        int allowed = limit;
        fj_allocator allocator = {failing_resize, &allowed};
        current = (job){.source = {"mod.py", text}};
        fj_buf_init(&current.out, &fj_allocator_libc);
        fj_arena_init(&arena, &allocator);
        fj_status status = fj_scope_run(&arena, &error, parse, &current);
        finish();
        if (status == FJ_OK) {
            ck_assert_int_gt(limit, 3);
            break;
        }
        ck_assert_int_eq(status, FJ_ERR_MEMORY);
    }
    free((void *)(uintptr_t)text.data);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("expr parse");
    TCase *tests = tcase_create("parse");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, operators_bind_as_in_python);
    tcase_add_test(tests, primaries);
    tcase_add_test(tests, numbers);
    tcase_add_test(tests, floats_are_correctly_rounded_in_any_locale);
    tcase_add_test(tests, places_are_exact);
    tcase_add_test(tests, expression_errors);
    tcase_add_test(tests, statements);
    tcase_add_test(tests, functions_and_their_locals);
    tcase_add_test(tests, what_is_not_understood_is_kept_for_later);
    tcase_add_test(tests, a_bad_line_spoils_only_itself);
    tcase_add_test(tests, file_errors);
    tcase_add_test(tests, nesting_and_chains_are_bounded);
    tcase_add_test(tests, nested_blocks_are_bounded);
    tcase_add_test(tests, a_text_has_a_greatest_length);
    tcase_add_test(tests, long_lines_and_names_are_cut_between_characters);
    tcase_add_test(tests, every_failing_allocation_is_reported);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
