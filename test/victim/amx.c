/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: has asked for leave to use AMX tiles (arch_prctl(2)) and not used them yet. */
#include "victim.h"

#define GET_XCOMP_PERM 0x1022
#define REQ_XCOMP_PERM 0x1023
#define XTILEDATA      18

static uint64_t leave(void)
{
	uint64_t mask = 0;

	return syscall(SYS_arch_prctl, GET_XCOMP_PERM, &mask) == 0 ? mask : 0;
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	if (syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XTILEDATA) < 0)
		victim_skip("no AMX here");
	victim_ready();
	while (victim_wait()) {
		check(leave() & 1u << XTILEDATA, "the leave is gone: %#lx", (unsigned long)leave());
		victim_ok();
	}
	return 0;
}
