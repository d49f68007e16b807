/* The files of record.h. */
#include "tests/prim/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { FORMAT = 1, PER_LINE = 8 };

uint64_t prim_input_digest(const uint32_t *in, uint32_t words) {
    uint64_t digest = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < words * 4; i++)
        digest = (digest ^ (in[i / 4] >> (i % 4 * 8) & 0xff)) * UINT64_C(0x100000001b3);
    return digest;
}

static void path_of(char path[512], const char *folder, uint32_t arch, const struct prim_case *test) {
    (void)snprintf(path, 512, "%s/sm_%u/%s.txt", folder, arch, test->kernel);
}

bool prim_record_write(const char *folder, uint32_t arch, const char *device, const struct prim_case *test,
                       const uint32_t *in, const uint32_t *out) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/sm_%u", folder, arch);
    (void)mkdir(folder, 0777);
    (void)mkdir(path, 0777);
    path_of(path, folder, arch, test);
    FILE *file = fopen(path, "w");
    if (!file) return false;
    (void)fprintf(file,
                  "flexjit-prim %d\nkernel %s\ndevice %s\narch sm_%u\ninput %016" PRIx64 "\noutput %u\n",
                  FORMAT, test->kernel, device, arch, prim_input_digest(in, test->in_words), test->out_words);
    for (uint32_t i = 0; i < test->out_words; i++)
        (void)fprintf(file, "%08x%c", out[i],
                      i % PER_LINE == PER_LINE - 1 || i + 1 == test->out_words ? '\n' : ' ');
    bool good = !ferror(file);
    return fclose(file) == 0 && good;
}

enum prim_record prim_record_read(const char *folder, uint32_t arch, const struct prim_case *test,
                                  const uint32_t *in, uint32_t *out) {
    char path[512], kernel[128] = "";
    path_of(path, folder, arch, test);
    FILE *file = fopen(path, "r");
    if (!file) return PRIM_RECORD_ABSENT;
    int format = 0;
    uint64_t digest = 0;
    unsigned recorded_arch = 0, words = 0;
    enum prim_record result = PRIM_RECORD_DAMAGED;
    if (fscanf(file, "flexjit-prim %d kernel %127s device%*[^\n] arch sm_%u input %" SCNx64 " output %u",
               &format, kernel, &recorded_arch, &digest, &words) == 5 &&
        format == FORMAT && strcmp(kernel, test->kernel) == 0) {
        uint32_t read = 0;
        while (read < test->out_words && fscanf(file, "%8" SCNx32, &out[read]) == 1) read++;
        if (digest != prim_input_digest(in, test->in_words) || words != test->out_words)
            result = PRIM_RECORD_STALE;
        else if (read == words)
            result = PRIM_RECORD_READ;
    }
    (void)fclose(file);
    return result;
}
