#ifndef FLEXJIT_KERNEL_H
#define FLEXJIT_KERNEL_H

/* A kernel that is loaded, of the context that was current. Filled by NAME_load; any number of threads may launch it. */
typedef struct flexjit_kernel {
    CUlibrary library;
    CUkernel entries[6];
    CUdeviceptr tables; /* of the mod's text; 0: it has none */
    CUdevice device;
    int multiprocessors, cache; /* bytes of L2 */
} flexjit_kernel;

#endif
