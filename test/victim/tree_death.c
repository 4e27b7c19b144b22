/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parent-death signals (PR_SET_PDEATHSIG): two children of children have one, which must come when
 * their parents die and not before. The first thread of one of the parents has ended already. A
 * third is to get none, since it has asked for none.
 */
#include "family.h"

#include <sys/prctl.h>
#include <sys/wait.h>

enum { PLAIN = 1, OF_PLAIN, ENDED, OF_ENDED, UNASKED, MEMBERS };

static uint32_t *told; /* shared: signals that each has got */
static int self;

static void on_death(int sig)
{
	(void)sig;
	__atomic_fetch_add(&told[self], 1, __ATOMIC_RELAXED);
}

static void check_untold(int n)
{
	check(__atomic_load_n(&told[n], __ATOMIC_RELAXED) == 0, "member %d: its parent lives", n);
}

static void have_child(int n, int parent, int sig)
{
	struct sigaction sa = { .sa_handler = on_death, .sa_flags = SA_RESTART };

	if (family_fork(n) != 0)
		return;
	self = n;
	check_sys(sigaction(SIGUSR1, &sa, NULL) == 0 && prctl(PR_SET_PDEATHSIG, sig) == 0);
	family[n].also = check_untold;
	family_note(n, parent);
	family_serve(n);
}

static void *live_on(void *arg)
{
	wait_state(getpid(), 'Z');
	have_child(OF_ENDED, ENDED, SIGUSR1);
	family_note(ENDED, 0);
	family_serve(ENDED);
	return arg;
}

static void kill_parents(void)
{
	static const int parents[] = { PLAIN, ENDED };

	for (unsigned i = 0; i < COUNT_OF(parents); i++) {
		pid_t pid = family[parents[i]].pid;

		check_sys(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
	}
	/* a signal that does not come: the test ends for want of an answer */
	while (__atomic_load_n(&told[OF_PLAIN], __ATOMIC_RELAXED) != 1 ||
	       __atomic_load_n(&told[OF_ENDED], __ATOMIC_RELAXED) != 1)
		sleep_ms(1);
	check_untold(UNASKED);
	for (int i = 1; i < MEMBERS; i++)
		(void)kill(family[i].pid, SIGKILL);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	told = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(told != MAP_FAILED);
	family_note(0, -1);
	if (family_fork(PLAIN) == 0) {
		have_child(OF_PLAIN, PLAIN, SIGUSR1);
		have_child(UNASKED, PLAIN, 0);
		family_note(PLAIN, 0);
		family_serve(PLAIN);
	}
	if (family_fork(ENDED) == 0) {
		(void)thread_start(live_on, NULL);
		for (;;)
			(void)syscall(SYS_exit, 0);
	}
	family_wait(MEMBERS);
	victim_ready();
	while (victim_wait()) {
		family_ask(MEMBERS);
		if (!strcmp(victim_token(), "quit"))
			kill_parents();
		victim_ok();
	}
	return 0;
}
