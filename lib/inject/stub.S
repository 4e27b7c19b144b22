/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stub: position-independent code that runs system calls in a process that we hold stopped.
 *
 * It uses general registers only and never the stack, so that the process's floating-point state
 * and memory stay its own. Each part ends with a *marker*, a tgkill() of the thread to itself with
 * a signal that the process ignores by default: traced, the thread stops there and we take over;
 * not traced (we have died), the kernel drops the signal and the code goes on by itself: it unmaps
 * the arena and loads the thread's original context from its slot.
 *
 * Registers throughout: rbp the thread's slot, r13 arena (0 or -errno: none), rbx next call, r14
 * number of calls left.
 *
 * Threads that are only asked something have their answers put into the arena, which the first has
 * mapped. Who would unmap it would do so under the others' feet, or even (unmapped, and its address
 * given to somebody else) have them write into memory of the process's own. So the arena counts
 * them, and whoever leaves it last gives it back. Should we die before all have been sent out, the
 * count is wrong: so it counts, and they go in, when stub_open says so, which is the last thing
 * that is set before the first of them runs.
 */
#include <sys/syscall.h>

/* The slot, see struct stub_slot. */
#define TGID 16
#define TID 24
#define SIG 32
#define MASK 40
#define ARENA_SIZE 48
#define REG(n) (56 + 8 * (n))
#define FLAGS REG(16)

/* In the arena, see struct arena_head. */
#define FORKED 8
#define OTHERS 16

	.section .rodata
	.balign 16

	.macro MARKER name
	mov TGID(%rbp), %rdi
	mov TID(%rbp), %rsi
	mov SIG(%rbp), %rdx
	mov $SYS_tgkill, %eax
	syscall
	.globl \name
\name:
	.endm

	.macro CALLS
.Lagain\@:
	test %r14, %r14
	jz .Ldone\@
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
	dec %r14
	jmp .Lagain\@
.Ldone\@:
	.endm

/* Of the arena, r12. */
	.macro UNMAP
	mov %r12, %rdi
	mov ARENA_SIZE(%rbp), %rsi
	mov $SYS_munmap, %eax
	syscall
	.endm

/* Leaves the arena, r12. */
	.macro LEAVE
	cmpq $0, stub_open(%rip)
	je .Lalone\@
	lock subq $1, OTHERS(%r12)
	jns .Lothers\@
.Lalone\@:
	UNMAP
.Lothers\@:
	.endm

	.globl stub_begin
stub_begin:

/* Maps the arena: rax, rdi .. r9 hold the mmap call. Leaves its result in r13. */
	.globl stub_map
stub_map:
	syscall
	mov %rax, %r13
	MARKER stub_marker_map
	test %r13, %r13
	jle heal
	jmp undo			/* a batch elsewhere may need it (hold.c) */

/* Runs r14 calls from rbx on: { nr, a0 .. a5, result }, eight quadwords each. */
	.globl stub_batch
stub_batch:
	CALLS
	MARKER stub_marker_batch
	/*
	 * We are gone. First what the batch said must be undone (close, munmap): calls at the
	 * arena's start.
	 */
undo:
	mov (%r13), %r14
	lea 64(%r13), %rbx
	CALLS

/* Our tracer is gone: give the arena back, and go on where the thread was. */
	mov %r13, %r12
	LEAVE
heal:
	mov $2, %edi			/* SIG_SETMASK */
	lea MASK(%rbp), %rsi
	xor %edx, %edx
	mov $8, %r10d
	mov $SYS_rt_sigprocmask, %eax
	syscall
	/*
	 * From here on a handler may run on the thread's stack, so rsp stays what it was; flags
	 * without a stack.
	 */
	mov REG(1)(%rbp), %rbx
	mov REG(2)(%rbp), %rcx
	mov REG(3)(%rbp), %rdx
	mov REG(4)(%rbp), %rsi
	mov REG(5)(%rbp), %rdi
	mov REG(6)(%rbp), %r8
	mov REG(7)(%rbp), %r9
	mov REG(8)(%rbp), %r10
	mov REG(9)(%rbp), %r11
	mov REG(10)(%rbp), %r12
	mov REG(11)(%rbp), %r13
	mov REG(12)(%rbp), %r14
	mov REG(13)(%rbp), %r15
	cld
	testb $1, FLAGS(%rbp)
	jz 5f
	std
5:	movb FLAGS+1(%rbp), %al
	addb $0x7f, %al			/* sets OF if it was 1 */
	movb FLAGS+2(%rbp), %ah
	sahf
	mov REG(0)(%rbp), %rax
	jmp *%rbp			/* the slot begins with code that loads rbp and rip */

/*
 * Forks the process: rax, rdi .. r9 hold a clone call that makes a helper with the same memory. The
 * helper makes the copy (r14: clone's flags for that) and ends; it is waited for here, so that the
 * copy is nobody's child in the job. Whoever of the two is not held by a tracer just ends. Leaves
 * what the first clone returned in r12, and the second in the arena.
 */
	.globl stub_fork
stub_fork:
	syscall
	mov %rax, %r12
	test %rax, %rax
	jz 7f
	js 8f
	mov %rax, %rdi
	xor %esi, %esi
	mov $0x40000000, %edx		/* __WALL */
	xor %r10d, %r10d
	mov $SYS_wait4, %eax
	syscall
8:	MARKER stub_marker_fork
	jmp undo
7:	mov %r14, %rdi			/* CLONE_FILES among them: nothing is kept open */
	xor %esi, %esi
	mov $SYS_clone, %eax
	syscall
	test %rax, %rax
	jz stub_exit
	mov %rax, FORKED(%r13)
	.globl stub_exit
stub_exit:
	xor %edi, %edi
	mov $SYS_exit_group, %eax
	syscall

/* Unmaps the arena. */
	.globl stub_unmap
stub_unmap:
	mov %r13, %r12
	UNMAP
	xor %r13d, %r13d
	MARKER stub_marker_unmap
	jmp heal

/*
 * What only the thread itself can say, in one go, into a struct stub_answers at r13, in the arena
 * r12. It has left the arena at the marker; with r14, nobody else is in it, not until we have given
 * it something else to do.
 */
	.globl stub_thread
stub_thread:
	test %r14, %r14
	jnz 6f
	cmpq $0, stub_open(%rip)
	je heal
6:	xor %edi, %edi
	mov %r13, %rsi
	mov $SYS_sigaltstack, %eax
	syscall
	movq $0, 32(%r13)		/* a kernel that cannot tell */
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
	mov %rax, 48(%r13)
	mov $-1, %edi
	mov $SYS_personality, %eax
	syscall
	mov %rax, 56(%r13)
	test %r14, %r14
	jnz 9f
	LEAVE
9:	MARKER stub_marker_thread
	test %r14, %r14
	jz heal
	UNMAP
	jmp heal

/* Not before the semaphores of set r12 are gone (ten seconds at most), on where the thread was. */
	.globl stub_hold
stub_hold:
	mov %r12, %rdi
	lea stub_wait(%rip), %rsi
	mov $1, %edx
	lea stub_patience(%rip), %r10
	mov $SYS_semtimedop, %eax
	syscall
	jmp heal
	.balign 8
	.globl stub_patience, stub_wait
stub_patience:
	.quad 10, 0
stub_wait:				/* struct sembuf: down, of what never is up */
	.short 0, -1, 0

/*
 * A slot: the original context of a thread that is in the stub. There is room for several behind
 * this one.
 */
	.balign 8
	.globl stub_open, stub_slots
stub_open:
	.quad 0
stub_slots:
	mov stub_slots + REG(14)(%rip), %rbp
	jmp *stub_slots + REG(15)(%rip)
	.org stub_slots + FLAGS + 8, 0
	.globl stub_slot_end
stub_slot_end:
	.section .note.GNU-stack, "", @progbits
