/* SPDX-License-Identifier: BSD-2-Clause */
/* A process that shares our memory. */
#include "inject/twin.h"

#include <errno.h>
#include <sys/syscall.h>

long twin_clone(struct clone_args *args, void (*main)(void *arg), void *arg)
{
	register void (*f)(void *) __asm__("r12") = main;
	register void *a __asm__("r13") = arg;
	long ret;

	/* the child's stack is empty: it must not return */
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %[a], %%rdi\n\t"
			 "call *%[f]\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "0"((long)SYS_clone3), "D"(args),
			   "S"(sizeof *args), [f] "r"(f), [a] "r"(a)
			 : "rcx", "r11", "memory");
	if (ret >= 0)
		return ret;
	errno = (int)-ret;
	return -1;
}
