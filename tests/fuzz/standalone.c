/* A main() for the fuzz targets without libFuzzer: runs the target once on each file of the corpus, in the order of
 * their names, and on each of their prefixes where the file is short. Names a file before it is run, so that a crash
 * says which it was.
 *
 * usage: fuzz_smoke_NAME FILE-OR-FOLDER... */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Every prefix of a file up to this size: truncation is where readers break. */
enum { PREFIX_LIMIT = 512 };

static size_t files_run;

/* The target gets a block of exactly the input's size, so that a read past its end is seen by a sanitizer. */
static void run_exact(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL) {
        abort();
    }
    memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int read_all(FILE *file, size_t size, uint8_t *ret_data) {
    return fread(ret_data, 1, size, file) == size ? 0 : -1;
}

static int run_file(const char *path, size_t size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1);
    int status = -1;
    if (file != NULL && data != NULL && read_all(file, size, data) == 0) {
        printf("%s\n", path);
        fflush(stdout);
        for (size_t prefix = size <= PREFIX_LIMIT ? 0 : size; prefix <= size; prefix++) {
            run_exact(data, prefix);
        }
        files_run++;
        status = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    free(data);
    return status;
}

static int is_visible(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static int run_path(const char *path);

static int run_folder(const char *path) {
    struct dirent **entries;
    const int count = scandir(path, &entries, is_visible, alphasort);
    int status = count < 0 ? -1 : 0;
    for (int i = 0; i < count; i++) {
        char child[4096];
        const int length = snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        if (length < 0 || (size_t)length >= sizeof child || run_path(child) != 0) {
            status = -1;
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
    return status;
}

static int run_path(const char *path) {
    struct stat info;
    const int status = stat(path, &info) != 0 ? -1
                     : S_ISDIR(info.st_mode)  ? run_folder(path)
                                              : run_file(path, (size_t)info.st_size);
    if (status != 0) {
        fprintf(stderr, "%s: %s\n", path, errno != 0 ? strerror(errno) : "cannot be read");
    }
    return status;
}

int main(int argc, char **argv) {
    int status = 0;
    for (int i = 1; i < argc; i++) {
        if (run_path(argv[i]) != 0) {
            status = 1;
        }
    }
    printf("%zu files\n", files_run);
    return files_run > 0 ? status : 1;
}
