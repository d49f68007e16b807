/* Fibers: switching, and telling the sanitizers. */
#include "driver/emu/fiber.h"

#include <stdint.h>
#include <string.h>

#define WEAK __attribute__((weak))

WEAK void __sanitizer_start_switch_fiber(void **fake_stack_save, const void *bottom, size_t size);
WEAK void __sanitizer_finish_switch_fiber(void *fake_stack_save, const void **bottom_old, size_t *size_old);
WEAK void __asan_poison_memory_region(void const volatile *memory, size_t size);
WEAK void __asan_unpoison_memory_region(void const volatile *memory, size_t size);
WEAK void *__tsan_create_fiber(unsigned flags);
WEAK void __tsan_destroy_fiber(void *fiber);
WEAK void *__tsan_get_current_fiber(void);
WEAK void __tsan_switch_to_fiber(void *fiber, unsigned flags);
WEAK void __tsan_set_fiber_name(void *fiber, const char *name);
WEAK void __tsan_acquire(void *address);
WEAK void __tsan_release(void *address);
WEAK void __tsan_write_range_pc(void *address, unsigned long size, void *pc);

#define TSAN_NO_SYNC 1u

/* ---- Switching -------------------------------------------------------------------------------- */

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(FJ_EMU_UCONTEXT)

/* switch.S */
void fj_emu_switch(void **ret_sp, void *sp);
void fj_emu_begin(void);

/* What fj_emu_switch pops: callee-saved registers, all zero but the one that fj_emu_begin calls. */
static void *first_frame(const struct fj_emu_fiber *fiber, unsigned char *top, void (*entry)(void)) {
    (void)fiber;
    uintptr_t *frame = (uintptr_t *)(void *)top;
#ifdef __x86_64__
    frame -= 9; /* r15 r14 r13 r12 rbx rbp, return address, and 16 bytes that keep the stack aligned */
    memset(frame, 0, 9 * sizeof *frame);
    frame[4] = (uintptr_t)entry;
    frame[6] = (uintptr_t)fj_emu_begin;
#else
    frame -= 20; /* x19..x30, d8..d15 */
    memset(frame, 0, 20 * sizeof *frame);
    frame[0] = (uintptr_t)entry;
    frame[11] = (uintptr_t)fj_emu_begin;
#endif
    return frame;
}

#else

#include <ucontext.h>

/* The context lies on its own stack. */
static void fj_emu_switch(void **ret_sp, void *sp) {
    ucontext_t here;
    *ret_sp = &here;
    (void)swapcontext(&here, sp);
}

static void *first_frame(const struct fj_emu_fiber *fiber, unsigned char *top, void (*entry)(void)) {
    ucontext_t *context = (ucontext_t *)(void *)(top - (sizeof *context + 63) / 64 * 64);
    (void)getcontext(context);
    context->uc_stack.ss_sp = fiber->stack;
    context->uc_stack.ss_size = (size_t)((unsigned char *)context - fiber->stack);
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    return context;
}

#endif

void fj_emu_fiber_start(struct fj_emu_fiber *fiber, size_t stagger, void (*entry)(void)) {
    fiber->fake_stack = NULL;
    fiber->sp = first_frame(fiber, fiber->stack + fiber->stack_size - stagger, entry);
}

void fj_emu_fiber_switch(struct fj_emu_fiber *from, struct fj_emu_fiber *to, bool ends) {
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to->race, TSAN_NO_SYNC);
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(ends ? NULL : &from->fake_stack, to->stack, to->stack_size);
    fj_emu_switch(&from->sp, to->sp);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
}

void fj_emu_fiber_entered(struct fj_emu_fiber *caller) {
    if (!__sanitizer_finish_switch_fiber) return;
    const void *stack = NULL;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(NULL, &stack, &size);
    if (!caller) return;
    memcpy(&caller->stack, &stack, sizeof stack);
    caller->stack_size = size;
}

/* ---- AddressSanitizer ------------------------------------------------------------------------- */

bool fj_emu_asan(void) { return __asan_poison_memory_region != NULL; }

void fj_emu_asan_poison(const void *memory, size_t size) {
    if (__asan_poison_memory_region) __asan_poison_memory_region(memory, size);
}

void fj_emu_asan_unpoison(const void *memory, size_t size) {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(memory, size);
}

/* ---- ThreadSanitizer -------------------------------------------------------------------------- */

bool fj_emu_tsan(void) { return __tsan_create_fiber != NULL; }

void *fj_emu_tsan_create(void) { return __tsan_create_fiber ? __tsan_create_fiber(0) : NULL; }

void fj_emu_tsan_name(void *view, const char *name) {
    if (view && __tsan_set_fiber_name) __tsan_set_fiber_name(view, name);
}

void fj_emu_tsan_destroy(void **view) {
    if (*view) __tsan_destroy_fiber(*view);
    *view = NULL;
}

void *fj_emu_tsan_current(void) { return __tsan_get_current_fiber ? __tsan_get_current_fiber() : NULL; }

void fj_emu_tsan_enter(void *view) {
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(view, TSAN_NO_SYNC);
}

void fj_emu_tsan_release(void *token) {
    if (__tsan_release) __tsan_release(token);
}

void fj_emu_tsan_acquire(void *token) {
    if (__tsan_acquire) __tsan_acquire(token);
}

void fj_emu_tsan_write(void *memory, size_t size, void *pc) {
    if (__tsan_write_range_pc) __tsan_write_range_pc(memory, size, pc);
}
