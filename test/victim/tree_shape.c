/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trees of a given shape: `chain N`, `wide N`, `tree N` (two children each). Every member keeps its
 * ids, its parent and memory of its own; all wait on futexes in shared memory. A word behind the
 * number, `subreaper`: they adopt orphans.
 */
#include "family.h"

#include <sys/prctl.h>

static int n;
static char shape;
static bool adopts;

static void take_role(void)
{
	check_sys(!adopts || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
}

static void grow(int i)
{
	int first = shape == 'c' ? i + 1 : shape == 'w' ? 1 : 2 * i + 1;
	int last = shape == 'c' ? i + 1 : shape == 'w' ? n - 1 : 2 * i + 2;

	if (shape == 'w' && i > 0)
		return;
	for (int k = first; k <= last && k < n; k++)
		if (family_fork(k) == 0) {
			family_note(k, i);
			take_role();
			grow(k);
			family_serve(k);
		}
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	shape = argc > 2 ? argv[2][0] : 't';
	n = argc > 3 ? atoi(argv[3]) : 15;
	check(n > 0 && n <= FAMILY_MAX, "bad number");
	adopts = argc > 4 && !strcmp(argv[4], "subreaper");
	family_init();
	family_note(0, -1);
	take_role();
	grow(0);
	family_wait(n);
	victim_ready();
	while (victim_wait()) {
		family_ask(n);
		victim_ok();
	}
	for (int i = 1; i < n; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
