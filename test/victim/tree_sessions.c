/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sessions, process groups and orphans:
 *   1 a child in a session of its own       2 its child, in a group of its own
 *   3 a member of group 2                   4 a member of a group whose leader has ended (reaped)
 *   5 a member of a group whose leader is a zombie
 *   6 a daemon by double fork: an orphan in a session whose leader has ended
 *   7 a child of the daemon, leading its own session
 *   8 an orphan in session 1                9 an orphan in the root's session and group
 *  10 a child that stayed in 1's old session: born before its parent started its own
 */
#include "family.h"

#include <sys/wait.h>

enum { LAST = 11 };

static void serve(int n, int parent)
{
	family_note(n, parent);
	family_serve(n);
}

static void wait_here(int n)
{
	while (!__atomic_load_n(&family[n].here, __ATOMIC_ACQUIRE))
		sleep_ms(1);
}

static void be_orphan(pid_t parent)
{
	while (getppid() == parent)
		sleep_ms(1);
}

static void in_session(void)
{
	if (family_fork(10) == 0)
		serve(10, 1);
	wait_here(10);
	check_sys(setsid() == getpid());
	family_note(1, 0);
	if (family_fork(2) == 0) {
		check_sys(setpgid(0, 0) == 0);
		serve(2, 1);
	}
	wait_here(2);
	if (family_fork(3) == 0) {
		check_sys(setpgid(0, family[2].pid) == 0);
		serve(3, 1);
	}
	if (fork() == 0) {
		pid_t between = getpid();

		if (fork() == 0) {
			be_orphan(between);
			serve(8, -1);
		}
		_exit(0);
	}
	while (waitpid(-1, NULL, WNOHANG) <= 0)
		sleep_ms(1);
	family_serve(1);
}

/* A group whose leader ends; the leader is waited for or not. */
static void dead_group(int n, bool reap)
{
	pid_t leader = fork();

	if (leader == 0) {
		(void)setpgid(0, 0);
		(void)pause();
	}
	(void)setpgid(leader, leader);
	if (family_fork(n) == 0) {
		check_sys(setpgid(0, leader) == 0);
		serve(n, 0);
	}
	wait_here(n);
	check_sys(kill(leader, SIGKILL) == 0);
	if (reap)
		check_sys(waitpid(leader, NULL, 0) == leader);
	else
		wait_state(leader, 'Z');
}

static void daemonize(void)
{
	pid_t between = fork();

	if (between == 0) {
		check_sys(setsid() == getpid());
		between = getpid();
		if (fork() == 0) {
			be_orphan(between);
			family_note(6, -1);
			if (family_fork(7) == 0) {
				check_sys(setsid() == getpid());
				serve(7, 6);
			}
			family_serve(6);
		}
		_exit(0);
	}
	check_sys(waitpid(between, NULL, 0) == between);
}

static void orphan(void)
{
	pid_t between = fork();

	if (between == 0) {
		between = getpid();
		if (fork() == 0) {
			be_orphan(between);
			serve(9, -1);
		}
		_exit(0);
	}
	check_sys(waitpid(between, NULL, 0) == between);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	family_note(0, -1);
	if (family_fork(1) == 0)
		in_session();
	dead_group(4, true);
	dead_group(5, false);
	daemonize();
	orphan();
	family_wait(LAST);
	/* these lead or have joined by now */
	victim_ready();
	while (victim_wait()) {
		family_ask(LAST);
		if (!victim_newpids()) {
			check(getpgid(family[3].pid) == family[2].pid,
			      "3 is not in the group of 2");
			check(getpgid(family[4].pid) == family[4].pgid, "4 has lost its group");
			check(getpgid(family[5].pid) == family[5].pgid, "5 has lost its group");
			check(getsid(family[6].pid) == family[6].sid, "6 has lost its session");
		}
		victim_ok();
	}
	for (int i = 1; i < LAST; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
