/* void fj_emu_switch(void **ret_sp, void *sp): saves the callee-saved registers on this stack, stores its
 * pointer, and continues on the other. fj_emu_begin: where a new fiber starts; the return address is
 * undefined there, so that debuggers and sanitizers stop unwinding. The rounding mode is not switched. */

#if defined(__x86_64__) && !defined(FJ_EMU_UCONTEXT)

    .text
    .globl fj_emu_switch
    .hidden fj_emu_switch
    .type fj_emu_switch, @function
    .p2align 4
fj_emu_switch:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    .cfi_adjust_cfa_offset -8
    popq %r14
    .cfi_adjust_cfa_offset -8
    popq %r13
    .cfi_adjust_cfa_offset -8
    popq %r12
    .cfi_adjust_cfa_offset -8
    popq %rbx
    .cfi_adjust_cfa_offset -8
    popq %rbp
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_endproc
    .size fj_emu_switch, . - fj_emu_switch

    .globl fj_emu_begin
    .hidden fj_emu_begin
    .type fj_emu_begin, @function
    .p2align 4
fj_emu_begin:
    .cfi_startproc
    .cfi_undefined %rip
    callq *%rbx
    ud2
    .cfi_endproc
    .size fj_emu_begin, . - fj_emu_begin

#elif defined(__aarch64__) && !defined(FJ_EMU_UCONTEXT)

    .text
    .globl fj_emu_switch
    .hidden fj_emu_switch
    .type fj_emu_switch, %function
    .p2align 4
fj_emu_switch:
    .cfi_startproc
    sub sp, sp, #160
    .cfi_adjust_cfa_offset 160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    .cfi_adjust_cfa_offset -160
    ret
    .cfi_endproc
    .size fj_emu_switch, . - fj_emu_switch

    .globl fj_emu_begin
    .hidden fj_emu_begin
    .type fj_emu_begin, %function
    .p2align 4
fj_emu_begin:
    .cfi_startproc
    .cfi_undefined x30
    blr x19
    brk #1
    .cfi_endproc
    .size fj_emu_begin, . - fj_emu_begin

#endif

#ifdef __linux__
    .section .note.GNU-stack, "", %progbits
#endif
