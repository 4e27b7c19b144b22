#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Restart with and without the right to choose pids, to make namespaces, or either: features are
# taken away to try.

load ../lib/common

# Has what follows run where no user namespace can be made: in one that allows none, without any
# capability.
no_namespaces() {
	is_root && skip "the unprivileged run of this suite covers it"
	cat > "$T/no-namespaces" <<'SH'
#!/bin/bash
# A user namespace in which no further one may be made; the capabilities that it gave go with the
# exec.
exec unshare -U --map-current-user --keep-caps bash -c '
	echo 0 > /proc/sys/user/max_user_namespaces || exit 99
	exec setpriv --ambient-caps=-all --inh-caps=-all "$@"' _ "$@"
SH
	chmod +x "$T/no-namespaces"
	fg 10 "$T/no-namespaces" true || skip "no user namespace to take them away in"
	! fg 10 "$T/no-namespaces" unshare -U true 2>/dev/null ||
		skip "namespaces cannot be forbidden here"
}

restart_without_namespaces() {
	STARTS=$((STARTS + 1))
	touch "$BASE.newpids" "$BASE.userns"
	door "restart$STARTS" "$T/no-namespaces" "$RESTART" "$@" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
}

@test "without user namespaces a restart gets new pids and says what may notice" {
	no_namespaces
	victim_start -- threads 16
	checkpoint
	victim_kill
	restart_without_namespaces
	grep -qE '^ckpt-restart: .*pid' "$T/restart2.stderr" ||
		fail "no warning: $(cat "$T/restart2.stderr")"
	victim_poke
	victim_quit
}

@test "new pids: pthread_join and the C library's own locks still work" {
	no_namespaces
	local v
	for v in thread_exit blocked sig_actions busy mem_anon; do
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		victim_start -- "$v"
		checkpoint
		victim_poke
		victim_kill
		restart_without_namespaces || fail "$v" || return 1
		victim_poke || fail "$v" || return 1
		victim_quit || fail "$v" || return 1
	done
}

@test "new pids: further generations" {
	no_namespaces
	victim_start -- threads 8
	local i
	for i in 1 2 3; do
		checkpoint
		victim_poke
		victim_kill
		restart_without_namespaces || fail "generation $i" || return 1
	done
	victim_quit
}

@test "--pids keep and --pids namespace, where they cannot be had, say so and leave nothing" {
	no_namespaces
	victim_start -- empty
	checkpoint
	victim_kill
	local mode
	for mode in keep namespace; do
		run fg 20 "$T/no-namespaces" "$RESTART" --pids $mode --no-checkpoint "$CHAIN"
		[ "$status" -eq 125 ] || fail "$mode: exit $status: $output"
		[[ $output == *ckpt-restart:* ]]
		until_true 20 nothing_left
	done
	victim_restart
	victim_quit
}

@test "--pids new: whose files are whose is seen as before" {
	cat > owner.py <<'PY'
import os, time
print('ready', flush=True)
while not os.path.exists('go'):
    time.sleep(0.02)
print('owner', os.stat('/').st_uid, flush=True)
PY
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- python3 owner.py
	SUP_PID=$DOOR_PID
	wait_line run1.stdout ready
	checkpoint
	kill_tree "$SUP_PID"
	door restart1 "$RESTART" --pids new "$CHAIN"
	SUP_PID=$DOOR_PID
	touch go
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	[ "$STATUS" -eq 0 ] || fail "$(cat restart1.stderr)"
	[ "$(tail -n 1 run1.stdout)" = "owner $(stat -c %u /)" ] || fail "$(cat run1.stdout)"
	[ ! -s restart1.stderr ] || fail "$(cat restart1.stderr)"
}

@test "--pids keep: the same pids in this namespace, several generations" {
	is_root || skip "needs the right to choose pids"
	victim_start -- identity leader
	local i pid=$VICTIM_PID
	for i in 1 2 3; do
		checkpoint
		victim_kill
		victim_restart --pids keep || fail "generation $i" || return 1
		[ "$(descendants "$SUP_PID" | head -n 1)" = "$pid" ]
	done
	victim_quit
}

@test "--pids namespace: the same pids in a namespace of their own, several generations" {
	unshare -Urpf true 2>/dev/null || is_root || skip "no user and pid namespace here"
	victim_start -- threads 8
	touch "$BASE.userns"
	local i
	for i in 1 2 3; do
		checkpoint
		victim_kill
		victim_restart --pids namespace || fail "generation $i" || return 1
		victim_poke
	done
	[ ! -e "$BASE.newpids" ]
	victim_quit
}

@test "a chain goes from one way to the other: kept pids, a namespace, new pids, a namespace" {
	no_namespaces
	victim_start -- threads 8
	checkpoint
	victim_kill
	victim_restart
	checkpoint
	victim_kill
	restart_without_namespaces
	checkpoint
	victim_kill
	# The newest image holds the new pids now; in a namespace of its own it can keep those.
	victim_restart --pids namespace
	victim_quit
}

@test "as root, an unprivileged user's job can be restarted by that user" {
	is_root || skip "needs two users"
	chmod 755 "$T"
	mkdir -m 700 u
	chown 65534:65534 u
	BASE=$T/u/victim
	CHAIN=$T/u/chain
	STATS=$T/u/stats
	# The build must be readable for that user.
	setpriv --reuid=65534 --regid=65534 --clear-groups test -x "$RUN" ||
		skip "the build cannot be read by others"
	touch "$BASE.userns" && chown 65534 "$BASE.userns"
	door run1 setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$RUN" -o "$CHAIN" --stats "$STATS" -- "$VICTIMS/victim-threads" "$BASE" 8
	SUP_PID=$DOOR_PID
	wait_victim '^ready '
	checkpoint
	victim_kill
	door restart2 setpriv --reuid=65534 --regid=65534 --clear-groups "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
	checkpoint
	victim_kill
	# Root does not restart what another user could have written, unless told to; it is that
	# user's job then.
	run fg 20 "$RESTART" --no-checkpoint "$CHAIN"
	[ "$status" -eq 125 ]
}

@test "a program with capabilities, started by root, is not restarted with fewer by somebody else" {
	is_root || skip "needs two users"
	chmod 755 "$T"
	victim_start -- empty
	checkpoint
	victim_kill
	chown -R 65534 "$CHAIN"
	run fg 20 setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$RESTART" --no-checkpoint "$CHAIN"
	[ "$status" -ne 0 ] && [ "$status" -lt 128 ] || fail "exit $status: $output"
	[[ $output == *ckpt-restart:* ]]
	until_true 20 nothing_left
}

@test "where nobody may write to read-only memory through /proc/PID/mem" {
	local v
	is_root || touch "$BASE.userns"
	for v in mem_anon mem_file_private mem_guard threads; do
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		is_root || touch "$BASE.userns"
		KEEP=(CKPT_WITHOUT=proc_mem)
		victim_start --no-snapshot -- "$v" || fail "$v" || return 1
		checkpoint
		victim_poke
		checkpoint
		victim_poke
		victim_kill
		victim_restart || fail "$v" || return 1
		checkpoint
		victim_poke
		KEEP=()
		victim_quit || fail "$v" || return 1
	done
}

# As Docker starts it, no right added.
@test "in a container: under its filter jobs are checkpointed and restarted" {
	local v container=$CKPT_BUILD/test/tool/container
	fg 10 "$container" true || skip "no seccomp filter can be had"
	for v in 'threads 16' 'file_kinds' 'sock_unix' 'tree_shape wide 5'; do
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		touch "$BASE.newpids" "$BASE.userns"
		STARTS=$((STARTS + 1))
		# shellcheck disable=SC2086
		door "run$STARTS" "$container" "$RUN" -o "$CHAIN" --stats "$STATS" -- \
			"$VICTIMS"/victim-${v%% *} "$BASE" ${v#"${v%% *}"}
		SUP_PID=$DOOR_PID
		wait_victim '^ready '
		checkpoint || fail "$v" || return 1
		victim_poke || fail "$v" || return 1
		checkpoint || fail "$v" || return 1
		victim_kill
		STARTS=$((STARTS + 1))
		door "restart$STARTS" "$container" "$RESTART" "$CHAIN"
		SUP_PID=$DOOR_PID
		victim_poke || fail "$v" || return 1
		checkpoint || fail "$v" || return 1
		victim_quit || fail "$v" || return 1
	done
}

# A pid namespace whose ids end at 400: since Linux 6.14 each has a pid_max of its own.
needs_own_pid_max() {
	is_root || skip "needs the right to choose pids"
	printf '%s\n' 6.14 "$(uname -r)" | sort -VC ||
		skip "before Linux 6.14 pid_max is the machine's"
}

ENDS_AT_400=(unshare --pid --fork --mount-proc "$CKPT_BUILD/test/tool/reaper" bash -c
	'echo 400 > /proc/sys/kernel/pid_max; exec "$@"' bash)

@test "ids just below pid_max: processes that are needed on the way get low ones" {
	local highest last=320 tries
	needs_own_pid_max
	if [ -z "${CKPT_TEST_NESTED:-}" ]; then
		CKPT_TEST_NESTED=1 "${ENDS_AT_400[@]}" \
			bats -f "just below pid_max" "$BATS_TEST_FILENAME"
		return
	fi
	for tries in 1 2 3 4 5 6; do
		echo "$last" > /proc/sys/kernel/ns_last_pid
		victim_start -- tree_sessions
		checkpoint
		highest=$("$INSPECT" --json "$CHAIN" |
			jq '[.. | objects | select(has("tid")).tid] | max')
		[ "$highest" -lt 399 ] || break
		victim_kill
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		last=$((last + 399 - highest))
	done
	[ "$highest" -eq 399 ]
	victim_kill
	victim_restart
	checkpoint
	victim_quit
}

@test "a job whose ids are above this machine's gets new ones, or is refused by name" {
	needs_own_pid_max
	touch "$BASE.newpids"
	victim_start -- tree_sessions
	checkpoint
	victim_kill
	[ "$VICTIM_PID" -ge 400 ] || skip "the job got a low id"
	run "${ENDS_AT_400[@]}" "$RESTART" -d --pids keep "$CHAIN"
	[ "$status" -eq 125 ]
	[[ $output == *"process id "*" is above what this machine has"* ]]
	[[ $output == *"--pids new"* ]]
	door restart2 "${ENDS_AT_400[@]}" "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
	grep -q "gets new process ids (.* is above what this machine has" "$T/restart2.stderr"
	victim_quit
}
