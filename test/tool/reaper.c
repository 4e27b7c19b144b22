/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Usage: reaper COMMAND [ARG...]   runs the command, and reaps at once whatever it leaves orphaned.
 *
 * Tests kill whole trees and wait until their process ids are free. Not every machine's process 1
 * is quick to reap what falls to it (a container's may look every second or two only).
 */
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	pid_t command, pid;
	int status;

	if (argc < 2 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) {
		fprintf(stderr, "Usage: reaper COMMAND [ARG...]\n");
		return 2;
	}
	command = fork();
	if (command == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		execvp(argv[1], argv + 1);
		perror(argv[1]);
		_exit(127);
	}
	/* the command decides what a signal for the group means */
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	do
		pid = wait(&status);
	while (pid != command && pid > 0);
	if (pid < 0)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
