/* The GPU of the fake driver: memory, streams and kernels.
 *
 * A "cubin" that is a shared object made for the emulator runs there, so that the library's whole path to a GPU is
 * driven: what is launched computes. Any other that begins as ELF does loads too, and its launches only are noted.
 *
 *  1. Memory of the GPU is closed to the host (PROT_NONE) but while the GPU works: who reads or writes it from the host
 *     is stopped at once. It ends close before a page that is always closed. A launch whose parameters have an address
 *     of the host is refused.
 *  2. Work is done in the order in which it is put on streams, all of them one queue. FAKE_CUDA says when: async=0 at
 *     once, async=1 when somebody waits, async=2 on a thread. Parameters are copied when a kernel is launched, as CUDA
 *     does; the host's side of a copy is read or written when the copy is made.
 *  3. While a stream is captured, its work goes into a graph. What CUDA does not allow then breaks the capture.
 *  4. A kernel that the emulator stops is error 719, for everything that follows.
 *  5. A CUfunction is of one context and refused in another, a green one of the same primary included. A CUkernel runs
 *     in the stream's context; where it is not resident it is loaded, which breaks a capture.
 *  6. An image at no multiple of 16 bytes is refused. */
#ifdef FAKE_OLD_DRIVER
#define cuLibraryLoadData cuFakeLibraryLoadData /* it has none */
#endif
#include "tests/driver/fake_gpu.h"

#include <dlfcn.h>
#include <elf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/emu/emu.h"

enum {
    OUT_OF_MEMORY = 2,
    INVALID_VALUE = 1,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    MOST_STREAMS = 16,
    MOST_KERNELS = 256,
    MOST_FUNCTIONS = 256,
    MOST_MEMORY = 256,
    MOST_THREADS = 2048,
    DEFAULT_SHARED = 48 << 10
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static struct memory {
    unsigned char *map;
    size_t pages, size;
    uint64_t address;
} memories[MOST_MEMORY];

static void open_memory(bool open) {
    for (int i = 0; i < MOST_MEMORY; i++)
        if (memories[i].map)
            (void)mprotect(memories[i].map, memories[i].pages, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

size_t fake_memory(void) {
    size_t size = 0;
    for (int i = 0; i < MOST_MEMORY; i++) size += memories[i].map ? memories[i].size : 0;
    return size;
}

/* ---- Work ------------------------------------------------------------------------------------------------ */

/* A CUkernel. */
struct kernel {
    const fj_emu_kernel *code; /* NULL: launches do nothing */
    void *library;             /* NULL: unloaded */
    unsigned shared;
    bool resident[FAKE_CONTEXTS]; /* of no green one */
};

struct function {
    struct kernel *kernel;
    void *context;
};

struct work {
    enum { LAUNCH, COPY, FILL } kind;
    const fj_emu_kernel *code;
    fj_emu_shape shape;
    void *parameters;
    void *to;
    const void *from;
    size_t size;
    unsigned char byte;
};

struct list {
    struct work *items;
    size_t count, limit;
};

static struct list queue, graph;
static size_t next; /* of the queue */
static bool working, thread_runs;
static int failure;
static struct stream { void *context; } streams[MOST_STREAMS];
static int stream_count;
static void *captured;
static bool is_capturing, is_broken;
static fj_emu *emu;

static void add(struct list *list, const struct work *work) {
    const struct work kept = *work; /* which may lie in the list */
    if (list->count == list->limit) {
        list->limit = list->limit * 2 + 16;
        list->items = realloc(list->items, list->limit * sizeof *list->items);
        if (!list->items) abort();
    }
    list->items[list->count++] = kept;
}

static int launch(const struct work *work) {
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    const fj_emu_options options = {.launch = &one};
    fj_error error = {0};
    if (!work->code) return 0;
    if (!emu && fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK) abort();
    if (fj_emu_launch(emu, work->code, &work->shape, work->parameters, &options, &error) == FJ_OK) return 0;
    (void)fprintf(stderr, "fake GPU: %s\n%s\n", error.text, error.detail ? error.detail : "");
    fj_error_finish(&error);
    return LAUNCH_FAILED;
}

static void perform(const struct work *work) {
    if (failure) return;
    open_memory(true);
    switch (work->kind) {
    case LAUNCH: failure = launch(work); break;
    case COPY: memcpy(work->to, work->from, work->size); break;
    case FILL: memset(work->to, work->byte, work->size); break;
    }
    open_memory(false);
}

/* With the lock. */
static void perform_all(void) {
    for (; next < queue.count; next++) perform(&queue.items[next]);
}

static void *work_forever(void *unused) {
    (void)unused;
    (void)pthread_mutex_lock(&lock);
    for (;;) {
        if (next == queue.count) {
            (void)pthread_cond_wait(&changed, &lock);
            continue;
        }
        const struct work work = queue.items[next];
        working = true;
        (void)pthread_mutex_unlock(&lock);
        (void)usleep(2000); /* who does not wait is early */
        (void)pthread_mutex_lock(&lock);
        perform(&work);
        working = false;
        next++;
        (void)pthread_cond_broadcast(&changed);
    }
    return NULL;
}

static void start(void) {
    pthread_t thread;
    int async = fake_setting("async", 0);
    if (async == 0) perform_all();
    if (async == 2 && !thread_runs) thread_runs = pthread_create(&thread, NULL, work_forever, NULL) == 0;
    if (async == 2) (void)pthread_cond_broadcast(&changed);
}

static int put(void *stream, const struct work *work) {
    bool captures = is_capturing && stream == captured;
    (void)pthread_mutex_lock(&lock);
    add(captures ? &graph : &queue, work);
    if (!captures) start();
    int result = failure;
    (void)pthread_mutex_unlock(&lock);
    return result;
}

static int drain(void) {
    (void)pthread_mutex_lock(&lock);
    if (thread_runs)
        while (next < queue.count || working) (void)pthread_cond_wait(&changed, &lock);
    else
        perform_all();
    int result = failure;
    (void)pthread_mutex_unlock(&lock);
    return result;
}

/* What breaks a capture, whichever stream it is of. */
static int unless_capturing(void) {
    if (!is_capturing) return 0;
    is_broken = true;
    return CAPTURE_UNSUPPORTED;
}

/* ---- For the tests ---------------------------------------------------------------------------------------- */

void *fake_stream(int context) {
    if (stream_count == MOST_STREAMS) abort();
    streams[stream_count].context = fake_context(context);
    return &streams[stream_count++];
}

void fake_capture(void *stream) {
    is_capturing = true;
    is_broken = false;
    captured = stream;
    graph.count = 0;
}

bool fake_end_capture(void) {
    is_capturing = false;
    return !is_broken;
}

int fake_replay(void) {
    int result = 0;
    for (size_t i = 0; i < graph.count && result == 0; i++) result = put(captured, &graph.items[i]);
    return result;
}

/* ---- Code -------------------------------------------------------------------------------------------------- */

static char no_library;
static struct kernel kernels[MOST_KERNELS];
static struct function functions[MOST_FUNCTIONS];
static int kernel_count, function_count;

/* The library that is told of only that it was loaded, or a handle of dlopen. */
static void *open_code(const unsigned char *code) {
    const Elf64_Ehdr *header = (const void *)code;
    char path[64];
    static int serial;
    if (code[EI_CLASS] != ELFCLASS64 || header->e_type != ET_DYN) return &no_library;
    size_t size = header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;
    (void)snprintf(path, sizeof path, "/tmp/fake-gpu-%d-%d.so", (int)getpid(), serial++);
    FILE *file = fopen(path, "w");
    if (!file || fwrite(code, 1, size, file) != size || fclose(file) != 0) abort();
    void *opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    (void)unlink(path);
    return opened;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): the signature is the driver's */
EXPORT int cuLibraryLoadData(void **to, const void *code, int *a, void **b, unsigned c, int *d, void **e,
                             unsigned f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    fake_note("load %.4s;", (const char *)code + 1);
    int result = fake_setting("load", (uintptr_t)code % 16 ? INVALID_IMAGE : unless_capturing());
    *to = result == 0 ? open_code(code) : NULL;
    return *to || result ? result : INVALID_IMAGE;
}
EXPORT int cuLibraryUnload(void *of) {
    fake_note("unload;");
    for (int i = 0; i < kernel_count; i++)
        if (kernels[i].library == of && of != &no_library) kernels[i].library = NULL;
    return of == &no_library ? unless_capturing() : drain() | unless_capturing() | dlclose(of);
}
EXPORT int cuLibraryGetKernel(void **to, void *of, const char *name) {
    const fj_emu_kernel *code = of == &no_library ? NULL : dlsym(of, name);
    if ((of != &no_library && !code) || strcmp(name, "absent") == 0) return NOT_FOUND;
    struct kernel *kernel = kernels;
    while (kernel < kernels + kernel_count && (kernel->library != of || kernel->code != code)) kernel++;
    if (kernel == kernels + MOST_KERNELS) return OUT_OF_MEMORY;
    if (kernel == kernels + kernel_count)
        kernels[kernel_count++] = (struct kernel){.code = code, .library = of, .shared = DEFAULT_SHARED};
    *to = kernel;
    return 0;
}
EXPORT int cuKernelGetFunction(void **to, void *of) {
    struct function *function = functions;
    fake_note("function;");
    while (function < functions + function_count &&
           (function->kernel != of || function->context != fake_current()))
        function++;
    if (function == functions + MOST_FUNCTIONS) return OUT_OF_MEMORY;
    if (function == functions + function_count)
        functions[function_count++] = (struct function){of, fake_current()};
    *to = function;
    return fake_setting("function", 0);
}
EXPORT int cuKernelSetAttribute(int attribute, int value, void *of, int device) {
    struct kernel *kernel = of;
    fake_note("attribute %d=%d of %d;", attribute, value, device);
    if (attribute == 9)
        return value < -1 || value > 100 ? INVALID_VALUE : fake_setting("carveout", unless_capturing());
    if (attribute != 8) return INVALID_VALUE;
    kernel->shared = (unsigned)value;
    return fake_setting("attribute", unless_capturing());
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, void *of) {
    const struct kernel *kernel = ((const struct function *)of)->kernel;
    int threads = kernel->code ? (int)kernel->code->max_threads : 1024;
    *value = attribute == 0 ? fake_setting("threads", threads) : 0;
    return 0;
}
static bool *is_resident(struct kernel *kernel, void *context) {
    for (int i = 0; i < FAKE_CONTEXTS; i++)
        if (fake_context(i) == fake_root(context)) return &kernel->resident[i];
    abort();
}
EXPORT int cuFuncLoad(void *of) {
    const struct function *function = of;
    fake_note("resident;");
    if (!function) return INVALID_HANDLE;
    *is_resident(function->kernel, function->context) = true;
    return fake_setting("resident", unless_capturing());
}
/* The setting fits: blocks that an SM has registers for. */
EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *of, int threads, size_t shared) {
    const int by_memory = FAKE_SHARED / ((int)shared + FAKE_RESERVED), by_threads = MOST_THREADS / threads;
    const int fits = fake_setting("fits", by_threads);
    *blocks = by_memory < fits ? by_memory : fits;
    return of ? fake_setting("occupancy", 0) : INVALID_HANDLE;
}
/* Whether a word of a kernel's parameters is an address that the host has and the GPU has not: the emulator would read
 * there, a GPU could not. */
static bool is_host_address(uint64_t word) {
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    unsigned char resident;
    if (word >> 45 == 0 || word >> 47 != 0)
        return false; /* below: pairs of ints, and shadows of sanitizers */
    for (int i = 0; i < MOST_MEMORY; i++)
        if (memories[i].map && word - memories[i].address <= memories[i].size) return false;
    return mincore((void *)(uintptr_t)(word / page * page), 1, &resident) == 0;
}

static bool has_host_address(const void *parameters, size_t size) {
    for (size_t at = 0; at + sizeof(uint64_t) <= size; at += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, (const char *)parameters + at, sizeof word);
        if (!is_host_address(word)) continue;
        (void)fprintf(stderr, "fake GPU: byte %zu of the parameters is an address of the host\n", at);
        return true;
    }
    return false;
}

static void *context_of(const void *stream) {
    for (int i = 0; i < stream_count; i++)
        if (stream == &streams[i]) return streams[i].context;
    return fake_current();
}

/* The kernel of a CUkernel or of a CUfunction; NULL: it cannot be launched on the stream. */
static const struct kernel *launched(void *of, const void *stream) {
    void *context = context_of(stream);
    for (int i = 0; i < function_count; i++) {
        if (of != &functions[i]) continue;
        return context == fake_current() && context == functions[i].context ? functions[i].kernel : NULL;
    }
    struct kernel *kernel = of;
    if (!kernel->library) return NULL;
    bool *resident = is_resident(kernel, context);
    if (!*resident && unless_capturing()) return NULL;
    *resident = true;
    return kernel;
}

/* Memory for the process's life, which no leak checker takes for lost: graphs launch again with it. */
static void *keep(size_t size) {
    static struct kept {
        struct kept *next;
        max_align_t bytes[];
    } * _Atomic all;
    struct kept *fresh = malloc(sizeof *fresh + size);
    if (!fresh) return NULL;
    fresh->next = atomic_load(&all);
    while (!atomic_compare_exchange_weak(&all, &fresh->next, fresh)) continue;
    return fresh->bytes;
}

EXPORT int cuLaunchKernel(void *of, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                          unsigned shared, void *stream, void **parameters, void **extra) {
    int first;
    memcpy(&first, parameters[0], sizeof first);
    fake_note("launch %u,%u,%u %u,%u,%u %u stream %d args %d;", x, y, z, tx, ty, tz, shared,
              (int)(intptr_t)stream, first);
    const struct kernel *kernel = launched(of, stream);
    if (!kernel) {
        (void)unless_capturing();
        return INVALID_HANDLE;
    }
    const fj_emu_kernel *code = kernel->code;
    size_t size = code ? code->args_size : sizeof(int);
    bool legal = x > 0 && x <= INT32_MAX && y > 0 && y <= 65535 && z > 0 && z <= 65535 && !extra;
    if (!legal || ty != 1 || tz != 1 || shared > kernel->shared) return INVALID_VALUE;
    if (fake_setting("launch", 0)) return fake_setting("launch", 0);
    if (code && has_host_address(parameters[0], size)) return INVALID_VALUE;
    struct work work = {.kind = LAUNCH, .code = code, .shape = {{x, y, z}, tx, shared}};
    work.parameters = keep(size);
    if (!work.parameters) return OUT_OF_MEMORY;
    memcpy(work.parameters, parameters[0], size);
    return put(stream, &work);
}

/* ---- Streams and time ---------------------------------------------------------------------------------------- */

EXPORT int cuStreamIsCapturing(void *stream, int *capturing) {
    *capturing = fake_setting("capturing", is_capturing && stream == captured);
    return 0;
}
EXPORT int cuStreamGetCtx(void *stream, void **context) {
    *context = context_of(stream);
    return *context ? 0 : INVALID_CONTEXT;
}
#ifndef FAKE_OLD_DRIVER
EXPORT int cuStreamGetCtx_v2(void *stream, void **context, void **green) {
    void *own = context_of(stream);
    *context = fake_root(own);
    *green = own == *context ? NULL : own;
    return own ? fake_setting("contexts", 0) : INVALID_CONTEXT;
}
#endif
EXPORT int cuStreamSynchronize(void *stream) {
    (void)stream;
    fake_note("wait;");
    int result = unless_capturing();
    if (result == 0) result = drain();
    return fake_setting("wait", result);
}
EXPORT int cuEventCreate(void **event, unsigned flags) {
    *event = malloc(1);
    return (int)flags + unless_capturing();
}
EXPORT int cuEventDestroy_v2(void *event) {
    free(event);
    return 0;
}
EXPORT int cuEventRecord(void *event, void *stream) {
    (void)stream;
    return event ? 0 : INVALID_HANDLE;
}
EXPORT int cuEventSynchronize(void *event) {
    (void)event;
    return unless_capturing() | drain();
}
EXPORT int cuEventElapsedTime(float *ms, void *begin, void *end) {
    *ms = 1.5F;
    return begin == end;
}

/* ---- Memory, as the driver gives it ---------------------------------------------------------------------------- */

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t size) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int result = fake_setting("alloc", unless_capturing());
    struct memory *to = memories;
    while (to < memories + MOST_MEMORY && to->map) to++;
    if (result != 0 || to == memories + MOST_MEMORY) return result ? result : OUT_OF_MEMORY;
    const size_t pages = (size + page - 1) / page * page;
    void *map = mmap(NULL, pages + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return OUT_OF_MEMORY;
    *to = (struct memory){map, pages, size, (uint64_t)(uintptr_t)map + (pages - size) / 256 * 256};
    open_memory(true);
    memset(map, 0xff, pages); /* NaN of any type */
    open_memory(false);
    *address = to->address;
    return 0;
}
EXPORT int cuMemFree_v2(uint64_t address) {
    int result = unless_capturing() | drain();
    for (int i = 0; i < MOST_MEMORY; i++) {
        if (!memories[i].map || memories[i].address != address) continue;
        (void)munmap(memories[i].map, memories[i].pages + (size_t)sysconf(_SC_PAGESIZE));
        memories[i].map = NULL;
        return result;
    }
    return INVALID_VALUE;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    return put(stream, &(struct work){.kind = COPY, .to = (void *)(uintptr_t)to, .from = from, .size = size});
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    return put(stream, &(struct work){.kind = COPY, .to = to, .from = (void *)(uintptr_t)from, .size = size});
}
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t size, void *stream) {
    return put(stream, &(struct work){.kind = FILL, .to = (void *)(uintptr_t)to, .byte = byte, .size = size});
}
