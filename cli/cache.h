/* The reports of `flexjit cache`, printed: as JSON or as text. Each takes the object over and returns an exit status. */
#ifndef FJ_CLI_CACHE_H
#define FJ_CLI_CACHE_H

#include <jansson.h>

int cli_cache_print_list(json_t *report);
int cli_cache_print_show(json_t *report);
int cli_cache_print_explain(json_t *report);
int cli_cache_print_verify(json_t *report);
int cli_cache_print_gc(json_t *report);
int cli_cache_print_export(json_t *report);
int cli_cache_print_import(json_t *report);
int cli_cache_print_path(json_t *report);

#endif
