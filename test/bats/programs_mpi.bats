#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Open MPI on one machine: mpirun and its ranks, killed and restarted three times, the same answer.

load ../lib/common
load ../lib/program

# ranks OPTIONS...: two of them, for some seconds.
ranks() {
	local rounds=$1 root=
	shift
	need mpicc
	need mpirun
	mpicc -O2 -o ring "$PROGRAMS/ring.c"
	! is_root || root=--allow-run-as-root
	# their files in memory and sockets lie in a directory of the test's own
	same_answer "mpirun $root --oversubscribe --mca orte_tmpdir_base \$PWD $* \
		-np 2 $T/ring $rounds > out" out
}

@test "Open MPI over shared memory" {
	ranks 120000
}

@test "Open MPI over TCP" {
	ranks 18000 --mca btl self,tcp --mca btl_tcp_if_include lo \
		--mca btl_tcp_port_min_v4 $((20000 + RANDOM % 10000))
}
