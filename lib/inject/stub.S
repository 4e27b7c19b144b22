/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stub: position-independent code that runs system calls in a process that we hold stopped.
 *
 * It uses general registers only and never the stack, so that the process's floating-point state and memory stay its own.
 * Each part ends with a *marker*, a tgkill() of the thread to itself with a signal that the process ignores by
 * default: traced, the thread stops there and we take over; not traced (we have died), the kernel drops the
 * signal and the code goes on by itself: it unmaps the arena and loads the thread's original context from the tail.
 *
 * Registers throughout:  r12 process id, r15 thread id (as the process sees them), r14 marker signal (0: none, we
 * stop at the call's exit instead), r13 arena (0 or -errno: none), rbx next call, rbp number of calls left.
 */
#include <sys/syscall.h>

	.section .rodata
	.balign 16

	.macro MARKER name
	mov %r12, %rdi
	mov %r15, %rsi
	mov %r14, %rdx
	mov $SYS_tgkill, %eax
	syscall
	.globl \name
\name:
	.endm

	.globl stub_begin
stub_begin:

/* Maps the arena: rax, rdi .. r9 hold the mmap call. Leaves its result in r13. */
	.globl stub_map
stub_map:
	syscall
	mov %rax, %r13
	MARKER stub_marker_map
	jmp leave

/* Runs rbp calls from rbx on: { nr, a0 .. a5, result }, eight quadwords each. */
	.globl stub_batch
stub_batch:
	test %rbp, %rbp
	jz 1f
	mov (%rbx), %rax
	mov 8(%rbx), %rdi
	mov 16(%rbx), %rsi
	mov 24(%rbx), %rdx
	mov 32(%rbx), %r10
	mov 40(%rbx), %r8
	mov 48(%rbx), %r9
	syscall
	mov %rax, 56(%rbx)
	add $64, %rbx
	dec %rbp
	jmp stub_batch
1:	MARKER stub_marker_batch
	/* We are gone. First what the batch said must be undone (close, munmap): calls at the arena's start. */
	mov (%r13), %rbp
	lea 64(%r13), %rbx
2:	test %rbp, %rbp
	jz leave
	mov (%rbx), %rax
	mov 8(%rbx), %rdi
	mov 16(%rbx), %rsi
	mov 24(%rbx), %rdx
	mov 32(%rbx), %r10
	mov 40(%rbx), %r8
	mov 48(%rbx), %r9
	syscall
	add $64, %rbx
	dec %rbp
	jmp 2b

/* Unmaps the arena. */
	.globl stub_unmap
stub_unmap:
	mov %r13, %rdi
	mov tail_arena_size(%rip), %rsi
	mov $SYS_munmap, %eax
	syscall
	xor %r13d, %r13d
	MARKER stub_marker_unmap
	jmp heal

/*
 * What only the thread itself can say, in one go: rax, rdi .. r9 hold an mmap call for one page of room, which is gone
 * again at the marker. Answers: r8, r9, r10 the alternate stack (sp, flags, size), rbp clear_child_tid, rbx timer
 * slack, r13 parent-death signal; rbx = -1: no room.
 */
	.globl stub_thread
stub_thread:
	syscall
	mov $-1, %rbx
	cmp $-4096, %rax
	ja 3f
	mov %rax, %r13
	xor %edi, %edi
	mov %r13, %rsi
	mov $SYS_sigaltstack, %eax
	syscall
	mov $40, %edi			/* PR_GET_TID_ADDRESS */
	lea 32(%r13), %rsi
	mov $SYS_prctl, %eax
	syscall
	mov $2, %edi			/* PR_GET_PDEATHSIG */
	lea 40(%r13), %rsi
	mov $SYS_prctl, %eax
	syscall
	mov $30, %edi			/* PR_GET_TIMERSLACK */
	mov $SYS_prctl, %eax
	syscall
	mov %rax, %rbx
	mov (%r13), %r8
	mov 8(%r13), %r9d
	mov 16(%r13), %r10
	mov 32(%r13), %rbp
	mov %r13, %rdi
	mov 40(%r13), %r13d
	mov $4096, %esi
	mov $SYS_munmap, %eax
	syscall
3:	MARKER stub_marker_thread
	jmp heal

/* Our tracer is gone: give the arena back, and go on where the thread was. */
leave:
	test %r13, %r13
	jle heal
	mov %r13, %rdi
	mov tail_arena_size(%rip), %rsi
	mov $SYS_munmap, %eax
	syscall
	.globl stub_heal
stub_heal:
heal:
	mov $2, %edi			/* SIG_SETMASK */
	lea tail_mask(%rip), %rsi
	xor %edx, %edx
	mov $8, %r10d
	mov $SYS_rt_sigprocmask, %eax
	syscall
	/* From here on a handler may run on the thread's stack, so rsp stays what it was; flags without a stack. */
	mov tail_rbx(%rip), %rbx
	mov tail_rcx(%rip), %rcx
	mov tail_rdx(%rip), %rdx
	mov tail_rsi(%rip), %rsi
	mov tail_rdi(%rip), %rdi
	mov tail_rbp(%rip), %rbp
	mov tail_r8(%rip), %r8
	mov tail_r9(%rip), %r9
	mov tail_r10(%rip), %r10
	mov tail_r11(%rip), %r11
	mov tail_r12(%rip), %r12
	mov tail_r13(%rip), %r13
	mov tail_r14(%rip), %r14
	mov tail_r15(%rip), %r15
	cld
	testb $1, tail_df(%rip)
	jz 4f
	std
4:	movb tail_of(%rip), %al
	addb $0x7f, %al			/* sets OF if it was 1 */
	movb tail_lowflags(%rip), %ah
	sahf
	mov tail_rax(%rip), %rax
	jmp *tail_rip(%rip)

/* The thread's original context; written anew for each thread that enters the stub. */
	.balign 8
	.globl stub_tail
stub_tail:
tail_mask:	.quad 0
tail_arena_size: .quad 0
tail_rax:	.quad 0
tail_rbx:	.quad 0
tail_rcx:	.quad 0
tail_rdx:	.quad 0
tail_rsi:	.quad 0
tail_rdi:	.quad 0
tail_rbp:	.quad 0
tail_r8:	.quad 0
tail_r9:	.quad 0
tail_r10:	.quad 0
tail_r11:	.quad 0
tail_r12:	.quad 0
tail_r13:	.quad 0
tail_r14:	.quad 0
tail_r15:	.quad 0
tail_rip:	.quad 0
tail_df:	.byte 0
tail_of:	.byte 0
tail_lowflags:	.byte 0
		.byte 0, 0, 0, 0, 0
	.globl stub_end
stub_end:
	.section .note.GNU-stack, "", @progbits
