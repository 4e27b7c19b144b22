/* SPDX-License-Identifier: BSD-2-Clause */
/* A process that shares our memory. By clone3(2), or where a container's filter says that there is
 * none, and its id does not matter, by clone(2). */
#include "inject/twin.h"

#include <errno.h>
#include <sys/syscall.h>

/* Of clone(2) rdi has the flags and rsi the end of the stack; of clone3(2), the arguments and their
 * size. */
static long call(long nr, unsigned long rdi, unsigned long rsi, void (*main)(void *arg), void *arg)
{
	register void (*f)(void *) __asm__("r12") = main;
	register void *a __asm__("r13") = arg;
	register long parent_tid __asm__("r10") = 0;
	register long tls __asm__("r8") = 0;
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
			 : "0"(nr), "D"(rdi), "S"(rsi), "d"(0L), "r"(parent_tid),
			   "r"(tls), [f] "r"(f), [a] "r"(a)
			 : "rcx", "r11", "memory");
	return ret;
}

long twin_clone(struct clone_args *args, void (*main)(void *arg), void *arg)
{
	long ret = call(SYS_clone3, (unsigned long)args, sizeof *args, main, arg);

	if (ret == -ENOSYS && !args->set_tid)
		ret = call(SYS_clone, args->flags | args->exit_signal,
			   args->stack + args->stack_size, main, arg);
	if (ret >= 0)
		return ret;
	errno = (int)-ret;
	return -1;
}
