/* Files of a model, mapped for reading: its own, and those beside it that hold weights. Their names are untrusted. */
#ifndef FJ_FUSE_FILES_H
#define FJ_FUSE_FILES_H

#include "base/base.h"

typedef struct fj_mapping {
    void *bytes;
    size_t size;
} fj_mapping;

typedef struct fj_file {
    const char *name;
    fj_mapping mapping;
} fj_file;

typedef struct fj_files {
    const char *path; /* of the model; NULL: it is not a file's, and nothing lies beside it */
    FJ_VEC(fj_file) items;
} fj_files;

/* FJ_ERR_IO: it cannot be opened, or is empty or not a file. */
fj_status fj_file_map(const char *path, fj_mapping *ret, fj_error *error);
void fj_file_unmap(fj_mapping *mapping);

/* Whether a name is absolute, or has "..": it names nothing in a folder. */
bool fj_file_leaves_folder(const char *name);
/* The file of this name in the model's folder, mapped once; NULL: there is none, or a link leads out of the folder. */
const fj_mapping *fj_files_find(fj_files *files, fj_scope *scope, const char *name);
void fj_files_close(fj_files *files);

#endif
