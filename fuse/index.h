/* Index expressions: where an element of a tensor lies, as a function of the variables of a region. Sums of atoms with sizes as
 * coefficients; an atom is a variable, or a floor quotient or remainder of a sum by a size. Equal expressions have equal
 * numbers as far as the rules below know; what is not known to be equal is taken to differ. */
#ifndef FJ_FUSE_INDEX_H
#define FJ_FUSE_INDEX_H

#include "fuse/graph.h"

typedef int32_t fj_index; /* into the table */

typedef enum fj_atom_kind { FJ_ATOM_VAR, FJ_ATOM_DIV, FJ_ATOM_MOD } fj_atom_kind;

typedef struct fj_index_atom {
    fj_atom_kind kind;
    int var;
    fj_index of;
    fj_size by;
    fj_size extent;       /* it is from 0 to below this */
    bool may_be_negative; /* then it has no extent */
} fj_index_atom;

enum { FJ_INDEX_TERMS = 12 };

typedef struct fj_index_sum {
    fj_size base;
    int count;
    int atoms[FJ_INDEX_TERMS]; /* ascending */
    fj_size coefs[FJ_INDEX_TERMS];
} fj_index_sum;

typedef struct fj_indices {
    fj_arena *arena;
    fj_sizes *sizes;
    FJ_VEC(fj_index_atom) atoms;
    FJ_VEC(fj_index_sum) sums;
} fj_indices;

void fj_indices_init(fj_indices *x, fj_sizes *sizes, fj_arena *arena);
/* A variable from 0 to extent - 1. */
fj_index fj_index_var(fj_indices *x, int var, fj_size extent);
fj_index fj_index_size(fj_indices *x, fj_size size);
fj_index fj_index_add(fj_indices *x, fj_index a, fj_index b);
fj_index fj_index_scale(fj_indices *x, fj_index a, fj_size by);
fj_index fj_index_div(fj_indices *x, fj_index a, fj_size by);
fj_index fj_index_mod(fj_indices *x, fj_index a, fj_size by);
bool fj_index_is_size(const fj_indices *x, fj_index a, fj_size *ret_size);
/* Whether it is a variable as it stands: its number, else -1. */
int fj_index_is_var(const fj_indices *x, fj_index a);
/* Bits of the variables that it depends on. */
unsigned fj_index_vars(const fj_indices *x, fj_index a);
/* The same with variable var replaced by an expression. */
fj_index fj_index_replace(fj_indices *x, fj_index a, int var, fj_index by);

/* From the indices of a reshape's result to those of its argument. False: it cannot be said. */
bool fj_index_reshape(fj_indices *x, const fj_value *from, const fj_index *index, const fj_value *to,
                      fj_index *ret);
/* The same for any view of one argument. */
bool fj_index_view(fj_graph *graph, fj_indices *x, const fj_node *node, int output, const fj_index *index,
                   fj_index *ret);

#endif
