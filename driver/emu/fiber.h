/* Fibers: stacks that one OS thread switches between.
 *
 * Sanitizers are told of every switch, through symbols that are there only when the process has their
 * runtime. These files themselves are compiled without sanitizers: ThreadSanitizer must see what the
 * kernel does and not what the emulator does, and switches are no synchronisation.
 */
#ifndef FJ_DRIVER_EMU_FIBER_H
#define FJ_DRIVER_EMU_FIBER_H

#include <stdbool.h>
#include <stddef.h>

struct fj_emu_fiber {
    void *sp;             /* while it does not run */
    unsigned char *stack; /* lowest byte that may be used */
    size_t stack_size;
    void *fake_stack; /* AddressSanitizer's */
    void *race;       /* ThreadSanitizer's view of this fiber */
};

/* Prepares a fiber with a stack; the first switch to it calls entry, which must not return. */
void fj_emu_fiber_start(struct fj_emu_fiber *fiber, size_t stagger, void (*entry)(void));
/* Leaves `from`, continues `to`. ends: `from` will not be continued. */
void fj_emu_fiber_switch(struct fj_emu_fiber *from, struct fj_emu_fiber *to, bool ends);
/* The first thing entry does. caller, unless NULL, is given the bounds of the stack that was left. */
void fj_emu_fiber_entered(struct fj_emu_fiber *caller);

/* ---- AddressSanitizer ------------------------------------------------------------------------- */

bool fj_emu_asan(void); /* whether this process has it */
void fj_emu_asan_poison(const void *memory, size_t size);
void fj_emu_asan_unpoison(const void *memory, size_t size);

/* ---- ThreadSanitizer -------------------------------------------------------------------------- */

bool fj_emu_tsan(void);
void *fj_emu_tsan_create(void); /* the view of a fiber; NULL without ThreadSanitizer */
void fj_emu_tsan_name(void *view, const char *name);
void fj_emu_tsan_destroy(void **view);
void *fj_emu_tsan_current(void);
/* Accesses that follow are those of this view. */
void fj_emu_tsan_enter(void *view);
/* What happened before a release of a token happens before what follows an acquire of it. */
void fj_emu_tsan_release(void *token);
void fj_emu_tsan_acquire(void *token);
void fj_emu_tsan_write(void *memory, size_t size, void *pc);

#endif
