/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: nothing special; exits with the status argv[2] or dies of the signal argv[3] when told to
 * quit. */
#include "victim.h"

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	victim_ready();
	while (victim_wait())
		victim_ok();
	if (argc > 3) {
		check_sys(signal(atoi(argv[3]), SIG_DFL) != SIG_ERR);
		check_sys(raise(atoi(argv[3])) == 0);
	}
	return argc > 2 ? atoi(argv[2]) : 0;
}
