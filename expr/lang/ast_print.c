/* The syntax tree as text: S-expressions, one statement a line. */
#include "expr/lang/ast.h"

static void put_str(fj_buf *out, fj_str text) { fj_buf_write(out, text.data, text.len); }

static void put_quoted(fj_buf *out, fj_str text) {
    fj_buf_put(out, "\"");
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c == '"' || c == '\\')
            fj_buf_printf(out, "\\%c", c);
        else if (c < ' ' || c == 0x7F)
            fj_buf_printf(out, "\\x%02x", c);
        else
            fj_buf_write(out, &text.data[i], 1);
    }
    fj_buf_put(out, "\"");
}

/* ---- Expressions ------------------------------------------------------------------------- */

static void print_optional(const fj_expr *expression, fj_buf *out) {
    if (expression)
        fj_expr_print_expression(expression, out);
    else
        fj_buf_put(out, "_");
}

static void print_items(const fj_expr_list *items, fj_buf *out) {
    for (size_t i = 0; i < items->len; i++) {
        fj_buf_put(out, " ");
        fj_expr_print_expression(items->data[i], out);
    }
}

static void print_compare(const fj_expr *expression, fj_buf *out) {
    bool chain = expression->items.len > 1;
    if (chain) {
        fj_buf_put(out, "(compare ");
        fj_expr_print_expression(expression->left, out);
    }
    for (size_t i = 0; i < expression->items.len; i++) {
        fj_buf_printf(out, chain ? " %s " : "(%s ", fj_operator_text(expression->ops[i]));
        if (!chain) {
            fj_expr_print_expression(expression->left, out);
            fj_buf_put(out, " ");
        }
        fj_expr_print_expression(expression->items.data[i], out);
    }
}

static void print_call(const fj_expr *expression, fj_buf *out) {
    fj_buf_put(out, "(call ");
    fj_expr_print_expression(expression->left, out);
    print_items(&expression->items, out);
    for (size_t i = 0; i < expression->keyword_count; i++) {
        const fj_keyword *keyword = &expression->keywords[i];
        fj_buf_put(out, keyword->name.len ? " " : " **");
        put_str(out, keyword->name);
        fj_buf_put(out, keyword->name.len ? "=" : "");
        fj_expr_print_expression(keyword->value, out);
    }
}

static void print_comprehension(const fj_expr *expression, fj_buf *out) {
    fj_buf_put(out, expression->integer ? "(dict-comprehension " : "(comprehension ");
    fj_expr_print_expression(expression->left, out);
    for (size_t i = 0; i < expression->clause_count; i++) {
        const fj_clause *clause = &expression->clauses[i];
        fj_buf_put(out, " (for ");
        fj_expr_print_expression(clause->target, out);
        fj_buf_put(out, " ");
        fj_expr_print_expression(clause->iterable, out);
        print_items(&clause->conditions, out);
        fj_buf_put(out, ")");
    }
}

static void print_parameters(const fj_function *function, fj_buf *out) {
    static const char *const stars[] = {"", "*", "**"};
    fj_buf_put(out, "(");
    for (size_t i = 0; i < function->parameter_count; i++) {
        const fj_parameter *parameter = &function->parameters[i];
        fj_buf_printf(out, "%s%s", i ? " " : "", stars[parameter->kind]);
        put_str(out, parameter->name);
        fj_buf_put(out, parameter->keyword_only && parameter->kind == FJ_PARAMETER_PLAIN ? "!" : "");
        if (parameter->default_value) {
            fj_buf_put(out, "=");
            fj_expr_print_expression(parameter->default_value, out);
        }
    }
    fj_buf_put(out, ")");
}

static void print_operands(const char *head, const fj_expr *left, const fj_expr *right, fj_buf *out) {
    fj_buf_printf(out, "(%s ", head);
    fj_expr_print_expression(left, out);
    if (right) {
        fj_buf_put(out, " ");
        fj_expr_print_expression(right, out);
    }
}

static bool print_leaf(const fj_expr *expression, fj_buf *out) {
    switch (expression->kind) {
    case FJ_EXPR_NUMBER_INT: fj_buf_printf(out, "%lld", (long long)expression->integer); return true;
    case FJ_EXPR_NUMBER_FLOAT: fj_buf_double(out, expression->number); return true;
    case FJ_EXPR_STRING:
        fj_buf_put(out, expression->integer ? "opaque" : "");
        put_quoted(out, expression->text);
        return true;
    case FJ_EXPR_TRUE: fj_buf_put(out, "True"); return true;
    case FJ_EXPR_FALSE: fj_buf_put(out, "False"); return true;
    case FJ_EXPR_NONE: fj_buf_put(out, "None"); return true;
    case FJ_EXPR_ELLIPSIS: fj_buf_put(out, "..."); return true;
    case FJ_EXPR_NAME: put_str(out, expression->text); return true;
    default: return false;
    }
}

void fj_expr_print_expression(const fj_expr *expression, fj_buf *out) {
    if (print_leaf(expression, out)) return;
    switch (expression->kind) {
    case FJ_EXPR_UNARY:
    case FJ_EXPR_BINARY:
        print_operands(fj_operator_text(expression->op), expression->left, expression->right, out);
        break;
    case FJ_EXPR_NOT: print_operands("not", expression->left, NULL, out); break;
    case FJ_EXPR_STARRED: print_operands("star", expression->left, NULL, out); break;
    case FJ_EXPR_CONDITION:
        print_operands("if", expression->condition, expression->left, out);
        fj_buf_put(out, " ");
        fj_expr_print_expression(expression->right, out);
        break;
    case FJ_EXPR_COMPARE: print_compare(expression, out); break;
    case FJ_EXPR_CALL: print_call(expression, out); break;
    case FJ_EXPR_COMPREHENSION: print_comprehension(expression, out); break;
    case FJ_EXPR_ATTRIBUTE:
        print_operands(".", expression->left, NULL, out);
        fj_buf_put(out, " ");
        put_str(out, expression->text);
        break;
    case FJ_EXPR_SUBSCRIPT:
        print_operands("[]", expression->left, NULL, out);
        print_items(&expression->items, out);
        break;
    case FJ_EXPR_SLICE:
        fj_buf_put(out, "(: ");
        print_optional(expression->left, out);
        fj_buf_put(out, " ");
        print_optional(expression->right, out);
        fj_buf_put(out, " ");
        print_optional(expression->condition, out);
        break;
    case FJ_EXPR_LAMBDA:
        fj_buf_put(out, "(lambda ");
        print_parameters(expression->function, out);
        fj_buf_put(out, " ");
        fj_expr_print_expression(expression->function->body.data[0]->value, out);
        break;
    case FJ_EXPR_NAMED:
        fj_buf_put(out, "(:= ");
        put_str(out, expression->text);
        fj_buf_put(out, " ");
        fj_expr_print_expression(expression->left, out);
        break;
    case FJ_EXPR_UNSUPPORTED:
        fj_buf_put(out, "(unsupported ");
        put_quoted(out, expression->text);
        break;
    default:
        fj_buf_put(out, expression->kind == FJ_EXPR_TUPLE  ? "(tuple"
                        : expression->kind == FJ_EXPR_LIST ? "(list"
                        : expression->kind == FJ_EXPR_DICT ? "(dict"
                        : expression->kind == FJ_EXPR_AND  ? "(and"
                                                           : "(or");
        print_items(&expression->items, out);
    }
    fj_buf_put(out, ")");
}

/* ---- Statements -------------------------------------------------------------------------- */

static void start_line(int level, fj_buf *out) {
    fj_buf_put(out, "\n");
    for (int i = 0; i < level; i++) fj_buf_put(out, "  ");
}

static void print_statement(const fj_stmt *statement, int level, fj_buf *out);

static void print_block(const fj_stmt_list *body, int level, fj_buf *out) {
    for (size_t i = 0; i < body->len; i++) {
        start_line(level, out);
        print_statement(body->data[i], level, out);
    }
}

static void print_names(const char *head, const fj_str *names, size_t count, fj_buf *out) {
    fj_buf_printf(out, " (%s", head);
    for (size_t i = 0; i < count; i++) {
        fj_buf_put(out, " ");
        put_str(out, names[i]);
    }
    fj_buf_put(out, ")");
}

static void print_imports(const fj_stmt *statement, fj_buf *out) {
    fj_buf_put(out, "(import");
    for (size_t i = 0; i < statement->import_count; i++) {
        const fj_import *import = &statement->imports[i];
        fj_buf_put(out, " (");
        put_str(out, import->module);
        fj_buf_put(out, import->member.len ? " " : "");
        put_str(out, import->member);
        fj_buf_put(out, " -> ");
        put_str(out, import->name);
        fj_buf_put(out, ")");
    }
}

static void print_function(const fj_function *function, int level, fj_buf *out) {
    fj_buf_printf(out, "(%sdef ", function->is_async ? "async " : "");
    put_str(out, function->name);
    fj_buf_put(out, " ");
    print_parameters(function, out);
    if (function->decorators.len) {
        fj_buf_put(out, " (decorators");
        print_items(&function->decorators, out);
        fj_buf_put(out, ")");
    }
    print_names("locals", function->locals, function->local_count, out);
    fj_buf_put(out, function->is_generator ? " generator" : "");
    print_block(&function->body, level + 1, out);
    fj_buf_put(out, ")");
}

static void print_orelse(const fj_stmt *statement, int level, fj_buf *out) {
    if (!statement->orelse.len) return;
    start_line(level + 1, out);
    fj_buf_put(out, "(else");
    print_block(&statement->orelse, level + 2, out);
    fj_buf_put(out, ")");
}

static void print_value(const char *head, const fj_expr *value, const fj_expr *message, fj_buf *out) {
    fj_buf_printf(out, "(%s", head);
    for (int i = 0; i < 2; i++) {
        const fj_expr *expression = i ? message : value;
        if (!expression) continue;
        fj_buf_put(out, " ");
        fj_expr_print_expression(expression, out);
    }
}

static void print_statement(const fj_stmt *statement, int level, fj_buf *out) {
    switch (statement->kind) {
    case FJ_STMT_EXPRESSION: print_value("expression", statement->value, NULL, out); break;
    case FJ_STMT_ASSIGN:
        fj_buf_put(out, "(=");
        print_items(&statement->targets, out);
        fj_buf_put(out, " ");
        fj_expr_print_expression(statement->value, out);
        break;
    case FJ_STMT_AUGMENTED:
        fj_buf_printf(out, "(%s=", fj_operator_text(statement->op));
        print_items(&statement->targets, out);
        fj_buf_put(out, " ");
        fj_expr_print_expression(statement->value, out);
        break;
    case FJ_STMT_ANNOTATION: print_value("annotation", statement->targets.data[0], NULL, out); break;
    case FJ_STMT_RETURN: print_value("return", statement->value, NULL, out); break;
    case FJ_STMT_IF:
        print_value("if", statement->value, NULL, out);
        print_block(&statement->body, level + 1, out);
        print_orelse(statement, level, out);
        break;
    case FJ_STMT_FOR:
        print_value("for", statement->targets.data[0], statement->value, out);
        print_block(&statement->body, level + 1, out);
        print_orelse(statement, level, out);
        break;
    case FJ_STMT_BREAK: fj_buf_put(out, "(break"); break;
    case FJ_STMT_CONTINUE: fj_buf_put(out, "(continue"); break;
    case FJ_STMT_PASS: fj_buf_put(out, "(pass"); break;
    case FJ_STMT_ASSERT: print_value("assert", statement->value, statement->message, out); break;
    case FJ_STMT_RAISE: print_value("raise", statement->value, NULL, out); break;
    case FJ_STMT_DEF: print_function(statement->function, level, out); return;
    case FJ_STMT_CLASS:
        fj_buf_put(out, "(class ");
        put_str(out, statement->function->name);
        print_items(&statement->targets, out);
        print_names("locals", statement->function->locals, statement->function->local_count, out);
        print_block(&statement->function->body, level + 1, out);
        break;
    case FJ_STMT_DEL:
        fj_buf_put(out, "(del");
        print_items(&statement->targets, out);
        break;
    case FJ_STMT_IMPORT: print_imports(statement, out); break;
    default:
        fj_buf_put(out, statement->kind == FJ_STMT_GLOBAL ? "(global " : "(unsupported ");
        put_quoted(out, statement->text);
        print_names("binds", statement->binds, statement->bind_count, out);
    }
    fj_buf_put(out, ")");
}

void fj_expr_print_function(const fj_function *function, int indent, fj_buf *out) {
    for (int i = 0; i < indent; i++) fj_buf_put(out, "  ");
    print_function(function, indent, out);
    fj_buf_put(out, "\n");
}

void fj_expr_print_module(const fj_module *module, fj_buf *out) {
    for (size_t i = 0; i < module->body.len; i++) {
        print_statement(module->body.data[i], 0, out);
        fj_buf_put(out, "\n");
    }
}
