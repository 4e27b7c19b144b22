/* SPDX-License-Identifier: BSD-2-Clause */
/* The loops of regs.h. Built with -mgeneral-regs-only: the compiler itself never touches a vector
 * register. */
#include "regs.h"

#include <cpuid.h>
#include <errno.h>
#include <stddef.h>

/*
 * The vector registers are loaded once; from then on they are only ever stored and compared, with
 * general registers, so that a change at any instant stays and is seen. Nothing from libc may be
 * called meanwhile.
 */

struct fxsave {
	uint16_t fcw, fsw;
	uint8_t ftw, pad;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16];
	uint8_t xmm[16][16];
	uint8_t rest[96];
} __attribute__((aligned(16)));

struct vectors {
	struct fxsave fx;
	uint64_t zmm[32][8] __attribute__((aligned(64))); /* or the 16 ymm, in the lower halves */
	uint64_t k[8];
};

enum { LEVEL_SSE, LEVEL_AVX, LEVEL_AVX512 };

static uint64_t mixed(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static int level(void)
{
	unsigned a, b, c, d, lo, hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return LEVEL_SSE;
	__asm__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	if ((lo & 6) != 6)
		return LEVEL_SSE;
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX512F) || !(b & bit_AVX512BW) ||
	    (lo & 0xe6) != 0xe6)
		return LEVEL_AVX;
	return LEVEL_AVX512;
}

#define EACH16(OP)                                                                                 \
	OP(0)                                                                                      \
	OP(1)                                                                                      \
	OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11) OP(12) OP(13) OP(14) OP(15)
#define EACH32(OP)                                                                                 \
	EACH16(OP)                                                                                 \
	OP(16)                                                                                     \
	OP(17)                                                                                     \
	OP(18) OP(19) OP(20) OP(21) OP(22) OP(23) OP(24) OP(25) OP(26) OP(27) OP(28) OP(29) OP(30) \
		OP(31)
#define LOAD_ZMM(n) __asm__ volatile("vmovdqu64 %0, %%zmm" #n : : "m"(v->zmm[n]));
#define SAVE_ZMM(n) __asm__ volatile("vmovdqu64 %%zmm" #n ", %0" : "=m"(v->zmm[n]));
#define LOAD_YMM(n) __asm__ volatile("vmovdqu %0, %%ymm" #n : : "m"(v->zmm[n]));
#define SAVE_YMM(n) __asm__ volatile("vmovdqu %%ymm" #n ", %0" : "=m"(v->zmm[n]));
#define LOAD_XMM(n) __asm__ volatile("movdqu %0, %%xmm" #n : : "m"(v->zmm[n]));
#define LOAD_K(n)   __asm__ volatile("kmovq %0, %%k" #n : : "m"(v->k[n]));
#define SAVE_K(n)   __asm__ volatile("kmovq %%k" #n ", %0" : "=m"(v->k[n]));

static void load(const struct vectors *v, int lev)
{
	static const uint16_t fcw = 0x0f7f; /* round to zero, 64-bit precision, all masked */
	uint32_t mxcsr = 0xff80;            /* flush to zero, round to zero, all masked */

	__asm__ volatile("fninit\n\tfldcw %0" : : "m"(fcw));
	__asm__ volatile("fldpi\n\tfldl2e\n\tfldlg2\n\tfldln2\n\tfldl2t\n\tfld1");
	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	if (lev == LEVEL_AVX512) {
		EACH32(LOAD_ZMM)
		LOAD_K(0) LOAD_K(1) LOAD_K(2) LOAD_K(3) LOAD_K(4) LOAD_K(5) LOAD_K(6) LOAD_K(7)
	} else if (lev == LEVEL_AVX) {
		EACH16(LOAD_YMM)
	} else {
		EACH16(LOAD_XMM)
	}
}

static void save(struct vectors *v, int lev)
{
	__asm__ volatile("fxsave64 %0" : "=m"(v->fx));
	if (lev == LEVEL_AVX512) {
		EACH32(SAVE_ZMM)
		SAVE_K(0) SAVE_K(1) SAVE_K(2) SAVE_K(3) SAVE_K(4) SAVE_K(5) SAVE_K(6) SAVE_K(7)
	} else if (lev == LEVEL_AVX) {
		EACH16(SAVE_YMM)
	}
}

static int differs(struct regs_job *job, const char *what, int i, uint64_t got, uint64_t want)
{
	if (got == want)
		return 0;
	job->bad = what;
	job->bad_index = i;
	job->bad_got = got;
	job->bad_want = want;
	return 1;
}

static int compare_fx(struct regs_job *job, const struct fxsave *a, const struct fxsave *b)
{
	if (differs(job, "x87 control word", 0, a->fcw, b->fcw) ||
	    differs(job, "x87 status word", 0, a->fsw, b->fsw) ||
	    differs(job, "x87 tag word", 0, a->ftw, b->ftw) ||
	    differs(job, "MXCSR", 0, a->mxcsr, b->mxcsr))
		return 1;
	for (int i = 0; i < 8; i++)
		for (int j = 0; j < 10; j++)
			if (differs(job, "x87 register", i, a->st[i][j], b->st[i][j]))
				return 1;
	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 16; j++)
			if (differs(job, "SSE register", i, a->xmm[i][j], b->xmm[i][j]))
				return 1;
	return 0;
}

static int compare(struct regs_job *job, const struct vectors *a, const struct vectors *b, int lev)
{
	int n = lev == LEVEL_AVX512 ? 32 : lev == LEVEL_AVX ? 16 : 0;

	if (compare_fx(job, &a->fx, &b->fx))
		return 1;
	for (int i = 0; i < n; i++)
		for (int j = 0; j < (lev == LEVEL_AVX512 ? 8 : 4); j++)
			if (differs(job, lev == LEVEL_AVX512 ? "AVX-512 register" : "AVX register",
				    i, a->zmm[i][j], b->zmm[i][j]))
				return 1;
	for (int i = 0; lev == LEVEL_AVX512 && i < 8; i++)
		if (differs(job, "AVX-512 mask register", i, a->k[i], b->k[i]))
			return 1;
	return 0;
}

/* The kernel changes rax, rcx and r11 and nothing else. */
static int call(struct regs_job *job, unsigned n)
{
	const struct regs_call *c = &job->calls[n];
	register uint64_t r10 __asm__("r10") = c->arg[3];
	register uint64_t r8 __asm__("r8") = c->arg[4];
	register uint64_t r9 __asm__("r9") = c->arg[5];
	uint64_t rdi = c->arg[0], rsi = c->arg[1], rdx = c->arg[2];
	long rax = c->nr;

	__asm__ volatile("syscall"
			 : "+a"(rax), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r10), "+r"(r8), "+r"(r9)
			 :
			 : "rcx", "r11", "memory");
	if (rax == -EINTR && c->may_eintr && job->eintr_ok && *job->eintr_ok)
		job->eintrs++;
	else if (rax < c->min || rax > c->max)
		return differs(job, "result of system call", (int)c->nr, (uint64_t)rax,
			       (uint64_t)c->max);
	return differs(job, "rdi after system call", (int)c->nr, rdi, c->arg[0]) ||
	       differs(job, "rsi after system call", (int)c->nr, rsi, c->arg[1]) ||
	       differs(job, "rdx after system call", (int)c->nr, rdx, c->arg[2]) ||
	       differs(job, "r10 after system call", (int)c->nr, r10, c->arg[3]) ||
	       differs(job, "r8 after system call", (int)c->nr, r8, c->arg[4]) ||
	       differs(job, "r9 after system call", (int)c->nr, r9, c->arg[5]);
}

void regs_vector_loop(struct regs_job *job)
{
	struct vectors want, got;
	int lev = level();

	for (unsigned i = 0; i < 32; i++)
		for (unsigned j = 0; j < 8; j++)
			want.zmm[i][j] = mixed(job->seed * 1000 + i * 8 + j);
	for (unsigned i = 0; i < 8; i++)
		want.k[i] = mixed(job->seed * 1000 + 900 + i);
	load(&want, lev);
	save(&want, lev);
	/* The compiler must not think that it knows what lies there. */
	__asm__ volatile("" : "+m"(want), "=m"(got));
	while (!*job->stop && !job->bad) {
		for (unsigned i = 0; i < job->n_calls; i++)
			if (call(job, i))
				break;
		save(&got, lev);
		if (!job->bad)
			(void)compare(job, &got, &want, lev);
		job->rounds++;
	}
	/* As the ABI wants them for whoever runs next on this thread. */
	static const uint32_t mxcsr = 0x1f80;
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
	if (lev != LEVEL_SSE)
		__asm__ volatile("vzeroupper");
}

/*
 * regs_general_asm(stop, rounds, out): every general register holds a value of its own, the
 * direction flag is set, the red zone is full; all are compared in turn until *stop. rdi, rsi, rdx
 * hold the arguments (rdx and rsi point near, so they are compared with copies on the stack).
 * Returns the number of the register (in the order of the table below), 0 if none.
 */
int regs_general_asm(const volatile int *stop, volatile uint64_t *rounds);

__asm__(".text\n"
	".globl regs_general_asm\n"
	".hidden regs_general_asm\n"
	".type regs_general_asm, @function\n"
	"regs_general_asm:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	"
	"push %r15\n"
	"	push %rdi\n	push %rsi\n"
	"	mov regs_want+8(%rip), %rbx\n"
	"	mov regs_want+16(%rip), %rcx\n"
	"	mov regs_want+24(%rip), %rdx\n"
	"	mov regs_want+32(%rip), %rbp\n"
	"	mov regs_want+40(%rip), %r8\n"
	"	mov regs_want+48(%rip), %r9\n"
	"	mov regs_want+56(%rip), %r10\n"
	"	mov regs_want+64(%rip), %r11\n"
	"	mov regs_want+72(%rip), %r12\n"
	"	mov regs_want+80(%rip), %r13\n"
	"	mov regs_want+88(%rip), %r14\n"
	"	mov regs_want+96(%rip), %r15\n"
	/* the red zone, but for the word that pushfq uses */
	"	mov %rbx, -128(%rsp)\n	mov %rcx, -120(%rsp)\n	mov %rdx, -96(%rsp)\n"
	"	mov %rbp, -64(%rsp)\n	mov %r8, -32(%rsp)\n	mov %r9, -16(%rsp)\n"
	"	std\n"
	"1:	mov $1, %eax\n	cmp regs_want+8(%rip), %rbx\n	jne 9f\n"
	"	mov $2, %eax\n	cmp regs_want+16(%rip), %rcx\n	jne 9f\n"
	"	mov $3, %eax\n	cmp regs_want+24(%rip), %rdx\n	jne 9f\n"
	"	mov $4, %eax\n	cmp regs_want+32(%rip), %rbp\n	jne 9f\n"
	"	mov $5, %eax\n	cmp regs_want+40(%rip), %r8\n	jne 9f\n"
	"	mov $6, %eax\n	cmp regs_want+48(%rip), %r9\n	jne 9f\n"
	"	mov $7, %eax\n	cmp regs_want+56(%rip), %r10\n	jne 9f\n"
	"	mov $8, %eax\n	cmp regs_want+64(%rip), %r11\n	jne 9f\n"
	"	mov $9, %eax\n	cmp regs_want+72(%rip), %r12\n	jne 9f\n"
	"	mov $10, %eax\n	cmp regs_want+80(%rip), %r13\n	jne 9f\n"
	"	mov $11, %eax\n	cmp regs_want+88(%rip), %r14\n	jne 9f\n"
	"	mov $12, %eax\n	cmp regs_want+96(%rip), %r15\n	jne 9f\n"
	"	mov $13, %eax\n	cmp 8(%rsp), %rdi\n	jne 9f\n"
	"	mov $14, %eax\n	cmp (%rsp), %rsi\n	jne 9f\n"
	"	mov $15, %eax\n	cmp %rbx, -128(%rsp)\n	jne 9f\n	cmp %rcx, -120(%rsp)\n	"
	"jne 9f\n"
	"	cmp %rdx, -96(%rsp)\n	jne 9f\n	cmp %rbp, -64(%rsp)\n	jne 9f\n"
	"	cmp %r8, -32(%rsp)\n	jne 9f\n	cmp %r9, -16(%rsp)\n	jne 9f\n"
	"	mov $16, %eax\n	pushfq\n	btq $10, (%rsp)\n	lea 8(%rsp), %rsp\n	"
	"jnc 9f\n"
	/* a flag set by one instruction and used some later: carry and rax live across a loop */
	"	mov $17, %eax\n	mov $200, %ecx\n	stc\n"
	"2:	jnc 9f\n	dec %ecx\n	jnz 2b\n	jnc 9f\n	cmp $17, %rax\n	"
	"jne 9f\n"
	"	mov regs_want+16(%rip), %rcx\n"
	"	incq (%rsi)\n"
	"	cmpl $0, (%rdi)\n	je 1b\n"
	"	xor %eax, %eax\n"
	"9:	cld\n"
	"	pop %rsi\n	pop %rdi\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	"
	"pop %rbx\n"
	"	ret\n"
	".size regs_general_asm, .-regs_general_asm\n"
	".section .note.GNU-stack,\"\",@progbits\n"
	".text\n");

extern const uint64_t regs_want[13] __attribute__((visibility("hidden")));
const uint64_t regs_want[13] = {
	0,
	0x1b1b1b1b00000001,
	0x2c2c2c2c80000002,
	0x3d3d3d3d00000003,
	0x4e4e4e4e80000004,
	0x8888888800000005,
	0x9999999980000006,
	0xaaaaaaaa00000007,
	0xbbbbbbbb80000008,
	0xcccccccc00000009,
	0xdddddddd8000000a,
	0xeeeeeeee0000000b,
	0xffffffff8000000c,
};

void regs_general_loop(struct regs_job *job)
{
	static const char *const names[] = {
		"",
		"rbx",
		"rcx",
		"rdx",
		"rbp",
		"r8",
		"r9",
		"r10",
		"r11",
		"r12",
		"r13",
		"r14",
		"r15",
		"rdi",
		"rsi",
		"the red zone",
		"the direction flag",
		"the carry flag, rcx or rax",
	};
	int which = regs_general_asm(job->stop, &job->rounds);

	if (which) {
		job->bad_index = which;
		job->bad = names[which];
	}
}
