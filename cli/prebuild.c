/* `flexjit prebuild`: the kernels of a manifest, compiled in parallel into a cache layer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/emit.h"
#include "cli/interrupt.h"
#include "cli/mod.h"
#include "cli/prebuild.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum { MOST_JOBS = 256 };

/* ---- Options ----------------------------------------------------------------------------- */

static int open_arch(cli_prebuild *p, const char *text, size_t length) {
    char name[32];
    if (length == 0 || length >= sizeof name || p->device_count == CLI_MOST_ARCHS)
        return cli_usage(p->args->verb,
                         "'--arch %s' is not a list of at most %d architectures, such as sm_80,sm_90,avx512",
                         text, CLI_MOST_ARCHS);
    memcpy(name, text, length);
    name[length] = '\0';
    const bool is_cpu = strncmp(name, "avx", 3) == 0 || strcmp(name, "portable") == 0;
    fj_error error = {0};
    fj_status result = fj_device_create_for_arch(p->context, is_cpu ? FJ_DEVICE_CPU : FJ_DEVICE_CUDA, name,
                                                 &p->devices[p->device_count], &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    for (size_t i = 0; i < p->device_count; i++) {
        if (strcmp(fj_device_name(p->devices[i]), fj_device_name(p->devices[p->device_count])) != 0) continue;
        fj_device_unref(&p->devices[p->device_count]); /* named twice */
        return CLI_EXIT_OK;
    }
    p->device_count++;
    return CLI_EXIT_OK;
}

static int open_archs(cli_prebuild *p) {
    const char *text;
    for (size_t i = 0; (text = cli_args_nth(p->args, CLI_OPT_ARCHS, i)) != NULL; i++) {
        for (const char *at = text;; at++) {
            size_t length = strcspn(at, ",");
            int status = open_arch(p, at, length);
            if (status != CLI_EXIT_OK) return status;
            at += length;
            if (*at == '\0') break;
        }
    }
    return CLI_EXIT_OK;
}

static int read_options(cli_prebuild *p) {
    const cli_args *args = p->args;
    if (args->positional_count > 0) return cli_usage(args->verb, "'%s' is too much", args->positionals[0]);
    if (!cli_args_has(args, CLI_OPT_MANIFEST)) return cli_usage(args->verb, "--manifest FILE is missing");
    if (cli_args_count(args, CLI_OPT_ARCHS) == 0)
        return cli_usage(args->verb, "--arch is missing, such as --arch sm_80,sm_90");
    p->jobs = sysconf(_SC_NPROCESSORS_ONLN);
    if (p->jobs < 1) p->jobs = 1;
    if (p->jobs > MOST_JOBS) p->jobs = MOST_JOBS;
    p->verify = cli_args_has(args, CLI_OPT_VERIFY);
    int status = cli_args_integer(args, CLI_OPT_JOBS, 1, MOST_JOBS, &p->jobs), variants = CLI_VARIANTS_TUNED;
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_VARIANTS, variants, &variants);
    p->variants = (cli_variants)variants;
    if (status == CLI_EXIT_OK) status = cli_prebuild_shard(args, &p->shard, &p->shards);
    if (status == CLI_EXIT_OK && p->shards > 1 && cli_args_has(args, CLI_OPT_EMIT_C))
        return cli_usage(args->verb, "--emit-c writes a folder as a whole: it does not go with --shard");
    return status;
}

/* ---- The shard --------------------------------------------------------------------------- */

/* The finaliser of splitmix64: different numbers stay different. */
static uint64_t scatter(size_t number) {
    uint64_t z = (uint64_t)number + 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static int by_scatter(const void *a, const void *b) {
    uint64_t x = scatter(*(const size_t *)a), y = scatter(*(const size_t *)b);
    return (x > y) - (x < y);
}

/* The distinct kernels in a scattered order, which is the same on every machine; a shard takes every N-th of
 * it. In the manifest's order a shard might get nothing but the costly direction, or a single architecture. */
static int choose_kernels(cli_prebuild *p) {
    const size_t count = p->builds.count;
    p->order = calloc(count + 1, sizeof *p->order);
    p->rows = calloc(count + 1, sizeof *p->rows);
    if (p->order == NULL || p->rows == NULL) return cli_no_memory();
    for (size_t i = 0; i < count; i++) p->order[i] = i;
    qsort(p->order, count, sizeof *p->order, by_scatter);
    for (size_t i = (size_t)(p->shard - 1); i < count; i += (size_t)p->shards)
        p->order[p->wanted++] = p->order[i];
    return CLI_EXIT_OK;
}

/* ---- Building ---------------------------------------------------------------------------- */

/* The place in the order of the next build, or false when there is none. */
static bool take(cli_prebuild *p, size_t *ret_place) {
    pthread_mutex_lock(&p->lock);
    bool more = p->next < p->wanted && !p->no_room && !cli_interrupted();
    if (cli_interrupted() && !p->stopping && p->done < p->next) {
        p->stopping = true;
        fprintf(stderr, "%swaiting for the kernels that are being compiled; Ctrl-C again ends it at once\n",
                isatty(STDERR_FILENO) != 0 ? "\r\033[K" : "");
    }
    *ret_place = p->next;
    if (more) p->next++;
    pthread_mutex_unlock(&p->lock);
    return more;
}

/* One sentence with its place; a compiler's log is for --json. A layer that cannot be written is said once. */
static void settle_failure(cli_prebuild *p, const cli_build *build, cli_prebuild_row *of, fj_status result,
                           fj_error *error) {
    of->reason = result;
    of->error = strdup(error->text);
    of->detail = error->detail;
    error->detail = NULL;
    if (result == FJ_ERR_IO && p->no_room) return;
    p->no_room |= result == FJ_ERR_IO;
    if (isatty(STDERR_FILENO) != 0) fputs("\r\033[K", stderr);
    if (error->file[0] == '\0')
        snprintf(error->file, sizeof error->file, "%s for %s", build->name,
                 fj_device_name(p->devices[build->device]));
    int status = cli_fail_library(result, error);
    if (p->status == CLI_EXIT_OK) p->status = status;
}

static void settle(cli_prebuild *p, size_t place, fj_status result, const fj_kernel_info *info,
                   fj_error *error) {
    cli_prebuild_row *of = &p->rows[place];
    pthread_mutex_lock(&p->lock);
    of->how = result != FJ_OK ? CLI_FAILED : info->cache_hit ? CLI_FOUND : CLI_BUILT;
    p->counts[of->how]++;
    p->done++;
    if (result == FJ_OK)
        of->info = *info;
    else
        settle_failure(p, &p->builds.items[p->order[place]], of, result, error);
    cli_prebuild_progress(p);
    pthread_mutex_unlock(&p->lock);
}

static void *work(void *argument) {
    cli_prebuild *p = argument;
    size_t place;
    while (take(p, &place)) {
        fj_kernel_info info = {0};
        fj_error error = {0};
        fj_status result = fj_plan_build(p->builds.items[p->order[place]].plan, p->verify, &info, &error);
        settle(p, place, result, &info, &error);
        fj_error_finish(&error);
    }
    return NULL;
}

/* A layer that is too small for them all has lost some again. */
static int check_kept(const cli_prebuild *p) {
    size_t lost = 0;
    for (size_t i = 0; i < p->wanted; i++) {
        fj_kernel_info info;
        fj_error error = {0};
        lost += fj_plan_build(p->builds.items[p->order[i]].plan, true, &info, &error) != FJ_OK;
        fj_error_finish(&error);
    }
    if (lost == 0) return CLI_EXIT_OK;
    return cli_fail(
        CLI_EXIT_FAILED,
        "%zu of the kernels were removed again: the layer's limit, FLEXJIT_CACHE_SIZE, is too small", lost);
}

static int build_all(cli_prebuild *p) {
    pthread_t threads[MOST_JOBS];
    size_t started = 0;
    cli_interrupt_defer();
    p->started = p->said = cli_prebuild_seconds();
    for (; started + 1 < (size_t)p->jobs && started + 1 < p->wanted; started++)
        if (pthread_create(&threads[started], NULL, work, p) != 0) break;
    (void)work(p);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (cli_interrupted() && p->done < p->wanted) return CLI_EXIT_INTERRUPTED;
    return p->status == CLI_EXIT_OK && p->counts[CLI_BUILT] > 0 ? check_kept(p) : p->status;
}

static void finish(cli_prebuild *p) {
    for (size_t i = 0; p->rows != NULL && i < p->wanted; i++) {
        free(p->rows[i].error);
        free(p->rows[i].detail);
    }
    free(p->rows);
    free(p->order);
    cli_builds_close(&p->builds);
    cli_manifest_close(&p->manifest);
    for (size_t i = 0; i < p->device_count; i++) fj_device_unref(&p->devices[i]);
    fj_context_unref(&p->context);
}

int cli_verb_prebuild(const cli_args *args) {
    cli_prebuild p = {.args = args, .lock = PTHREAD_MUTEX_INITIALIZER, .shards = 1};
    int status = read_options(&p);
    if (status == CLI_EXIT_OK)
        status = cli_context_open_at(cli_args_text(args, CLI_OPT_LAYER, NULL), &p.context);
    if (status == CLI_EXIT_OK) status = open_archs(&p);
    if (status == CLI_EXIT_OK)
        status = cli_manifest_open(cli_args_text(args, CLI_OPT_MANIFEST, ""), p.context, &p.manifest);
    if (status == CLI_EXIT_OK)
        status = cli_builds_open(&p.manifest, p.devices, p.device_count, p.variants, &p.builds);
    if (status == CLI_EXIT_OK) status = choose_kernels(&p);
    if (status == CLI_EXIT_OK) {
        status = build_all(&p);
        const char *folder = cli_args_text(args, CLI_OPT_EMIT_C, NULL);
        if (status == CLI_EXIT_OK && folder != NULL)
            status = cli_emit_c(folder, &p.builds, p.order, p.wanted, p.devices);
        int reported = cli_prebuild_report(&p);
        if (status == CLI_EXIT_OK) status = reported;
    }
    finish(&p);
    return status;
}
