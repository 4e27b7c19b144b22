#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# What stopping a job for a checkpoint must not do to it, and what a restart must not wait for.

load ../lib/common

# A cgroup's directory, and the file system that it was made in, are nobody's when a test ends.
teardown() {
	local pid
	if [ -n "${GROUP:-}" ]; then
		echo 0 > "$GROUP/cgroup.freeze" || true
		# shellcheck disable=SC2013 # a list of ids
		for pid in $(cat "$GROUP/cgroup.procs"); do
			kill -9 "$pid" || true
		done
		until_true 10 rmdir "$GROUP" || true
	fi 2> "$T/why"
	! mountpoint -q "$T/cg" || umount "$T/cg"
	common_teardown
}

state_of() {
	sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status"
}

in_state() {
	[ "$(state_of "$1")" = "$2" ]
}

job_of() {
	descendants "$1" | tail -n 1
}

# JOB: what the supervisor has restarted.
restarted_and_stopped() {
	JOB=$(job_of "$SUP_PID")
	[ -n "$JOB" ] && in_state "$JOB" T
}

@test "waits with a timeout end, however often they are interrupted" {
	victim_start -i 0.05 --mode precopy -- waits # which stops it oftener
	victim_poke
	victim_poke
	victim_quit
}

@test "a stopped job stays stopped, and a pending signal interrupts a call after a restart" {
	local job
	victim_start -- stopped
	job=$(job_of "$SUP_PID")
	until_true 10 in_state "$job" S
	kill -STOP "$job"
	until_true 10 in_state "$job" T
	# let go of, it is on its way back into its stop
	checkpoint
	until_true 10 in_state "$job" T
	kill -USR2 "$job"
	checkpoint
	until_true 10 in_state "$job" T
	victim_kill
	door restart2 "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	until_true 20 restarted_and_stopped
	kill -CONT "$JOB"
	victim_poke
	victim_quit
}

@test "signals that come during a restart do not hold it up" {
	local i storm
	victim_start -- threads 20
	checkpoint
	victim_kill
	for i in 1 2 3 4 5; do
		door "restart$i" "$RESTART" "$CHAIN"
		SUP_PID=$DOOR_PID
		(
			while kill -WINCH -- "-$SUP_PID" 2>/dev/null || [ -e "/proc/$SUP_PID" ]; do
				:
			done
		) &
		storm=$!
		victim_poke
		kill -9 "$storm"
		wait "$storm" 2>/dev/null || true
		kill_tree "$SUP_PID"
	done
}

@test "a child that has ended and is not waited for can be waited for after a restart" {
	cat > zombie.py <<-'END'
		import os, sys, time
		child = os.fork()
		if child == 0:
		    os._exit(3)
		os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
		open(sys.argv[1], 'w').close()
		while not os.path.exists(sys.argv[2]):
		    time.sleep(0.01)
		sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
	END
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- python3 zombie.py "$T/up" "$T/go"
	SUP_PID=$DOOR_PID
	until_true 20 test -e "$T/up"
	checkpoint
	kill_tree "$SUP_PID"
	door restart1 "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	touch "$T/go"
	exit_of "$SUP_PID" 30
	[ "$STATUS" -eq 3 ]
}

@test "a reservation of 16 TiB on a kernel without PAGEMAP_SCAN" {
	KEEP=(CKPT_WITHOUT=pagemap_scan)
	three_generations mem_reserve
	KEEP=()
}

@test "a job in a frozen cgroup is left alone, and goes on when it is thawed" {
	local job
	is_root || skip "needs to make a cgroup"
	mkdir cg
	mount -t cgroup2 none "$T/cg" 2>/dev/null || skip "no cgroup version 2"
	GROUP=$T/cg/$(basename "$T")
	mkdir "$GROUP" && [ -e "$GROUP/cgroup.freeze" ] || skip "no cgroup freezer"
	# Frozen, it can neither run what it has been given nor give it up: that stays until the
	# next checkpoint.
	touch "$BASE.remains"
	victim_start -- busy
	job=$(job_of "$SUP_PID")
	echo "$job" > "$GROUP/cgroup.procs"
	echo 1 > "$GROUP/cgroup.freeze"
	attempt
	echo 0 > "$GROUP/cgroup.freeze"
	tail -n 1 "$STATS" | cut -c 1-300
	victim_poke
	checkpoint
	victim_quit
}
