#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Jobs of several processes: who they are to each other, what they share, and what must not be lost.

load ../lib/common

@test "tree_shape: a chain of processes" {
	three_generations tree_shape chain 12
}

@test "tree_shape: many children of one" {
	three_generations tree_shape wide 30
}

@test "tree_shape: a tree of processes" {
	three_generations tree_shape tree 31
}

@test "tree_shape: all of them adopt orphans, should there be any" {
	three_generations tree_shape tree 7 subreaper
}

@test "tree_sessions: sessions, groups, orphans, daemons" {
	three_generations tree_sessions
}

@test "tree_zombies: children that have ended and are waited for later" {
	three_generations tree_zombies
}

@test "tree_files: descriptions, descriptor tables, directories, pipes between processes" {
	three_generations tree_files
}

@test "tree_shm: shared and private memory, mutexes across processes" {
	three_generations tree_shm
}

@test "tree_vm: processes that share their memory without being threads" {
	three_generations tree_vm
}

# All users that it becomes may look at its directory, and complain.
creds_start_ok() {
	chmod 711 "$T"
	: > "$BASE.out"
	chmod 666 "$BASE.out"
}

@test "tree_creds: ids, groups, capabilities, securebits, roots that differ within a tree" {
	creds_start_ok
	three_generations tree_creds
}

@test "inspect names the cgroup" {
	local group
	group=$(sed -n 's/^0:://p' /proc/self/cgroup)
	[ -n "$group" ] || skip "no cgroup version 2"
	victim_start -- empty
	checkpoint
	run fg 20 "$INSPECT" "$CHAIN"
	grep -qF "cgroup     $group (not restored)" <<< "$output" || fail "$output"
	victim_quit
}

@test "tree_creds: who may not have them is told so, by process, before anything is made" {
	local user=65534 pid
	is_root || skip "needs to make such a job"
	creds_start_ok
	victim_start -- tree_creds
	checkpoint
	victim_kill
	chown -R "$user" "$CHAIN"
	fg 20 setpriv --reuid="$user" --regid="$user" --clear-groups \
		env HOME="$T" "$RESTART" "$CHAIN" > restart.stdout 2>&1 && fail "it was restarted"
	grep -qE 'pid [0-9]+: cannot become uid [0-9]+ from uid 65534' restart.stdout ||
		fail "$(cat restart.stdout)"
	until_true 20 nothing_left || fail "left: $(test_processes)"
}

@test "leader_ended: the first thread has ended, others go on" {
	three_generations leader_ended
}

@test "leader_ended: by snapshot, copied ahead, compared by hash" {
	local o
	for o in "--mode snapshot" "--mode precopy" "--tracker hash"; do
		is_root || touch "$BASE.userns"
		victim_start $o --overwrite -- leader_ended
		checkpoint
		victim_poke
		checkpoint
		victim_kill
		victim_restart
		victim_quit
		rm -f "$BASE".*
	done
}

@test "leader_ended: what the job itself looks into: System V memory, a queue" {
	is_root || touch "$BASE.userns"
	victim_start -- leader_ended ipc
	checkpoint
	victim_poke
	victim_kill
	ipcrm $(sed -n 's/^ipc //p' "$BASE.out")
	victim_restart
	victim_poke
	victim_quit
}

# A session whose leader ($T/root) loops, with an orphan ($T/orphan) whose parent has ended; or
# "below": the loop is in a child of the leader.
session_with_orphan() {
	local loop='echo $$ > root.new; mv root.new root; while :; do sleep 0.05; done'
	[ "${1:-}" != below ] || loop="bash -c '$loop' & wait"
	door alone setsid bash -c "(sleep 1000 & echo \$! > orphan.new)
		mv orphan.new orphan; $loop"
	until_true "$CKPT_TEST_WAIT" test -s root
	SUP_PID=''
	orphan=$(cat orphan)
	until_true "$CKPT_TEST_WAIT" eval '[ "$(ps -o ppid= -p $orphan)" -ne "$DOOR_PID" ]'
	# the shell's copy of itself says its id before it becomes another program
	until_true "$CKPT_TEST_WAIT" eval '[ "$(ps -o comm= -p $orphan)" = sleep ]'
}

@test "--pid: orphans in a session that the tree leads belong to it" {
	local orphan root session
	session_with_orphan
	root=$(cat root)
	session=$(ps -o sid= -p "$orphan")
	[ "$session" -eq "$root" ]
	fg 20 "$INSPECT" --pid "$root" > inspect.stdout
	# the shell, the orphan, and maybe a sleep of the shell's
	grep -qE ': [23] processes' inspect.stdout || fail "$(cat inspect.stdout)"
	fg 20 "$RUN" --once --kill -o "$CHAIN" --pid "$root" > run.stdout 2>&1 ||
		fail "$(cat run.stdout)"
	[ ! -s run.stdout ] || fail "$(cat run.stdout)"
	# not even zombies: they are to get their ids again
	until_true "$CKPT_TEST_WAIT" pid_free "$orphan"
	until_true "$CKPT_TEST_WAIT" pid_free "$root"
	door again "$RESTART" "$CHAIN"
	is_root || return 0 # its ids are in a namespace
	# a process that is being made gets its session before it runs
	until_true "$CKPT_TEST_WAIT" eval '[ "$(ps -o sid= -p "$orphan")" = "$session" ]' ||
		fail "session $(ps -o sid= -p "$orphan"), not $session"
	kill "$orphan" "$root"
}

@test "--pid: orphans of which nobody can tell are left alone, and named" {
	local orphan root
	session_with_orphan below
	root=$(cat root)
	fg 20 "$INSPECT" --pid "$root" > inspect.stdout
	grep -q "process $orphan (sleep) of the same session is not in the tree" inspect.stdout ||
		fail "$(cat inspect.stdout)"
	fg 20 "$RUN" --once --kill -o "$CHAIN" --pid "$root" > run.stdout 2>&1 ||
		fail "$(cat run.stdout)"
	grep -q "process $orphan (sleep) of the same session" run.stdout || fail "$(cat run.stdout)"
	kill -0 "$orphan"
	kill "$orphan" "$DOOR_PID"
}

@test "inspect --pid, and ckpt-run --pid: a tree whose first threads have ended" {
	local job
	door alone "$VICTIMS/victim-leader_ended" "$BASE"
	job=$DOOR_PID
	SUP_PID=''
	wait_victim '^ready '
	fg 20 "$INSPECT" --pid "$job" > inspect.stdout
	grep -q '2 processes' inspect.stdout || fail "$(cat inspect.stdout)"
	fg 20 "$RUN" --once --kill -o "$CHAIN" --pid "$job"
	victim_restart
	victim_quit
}

# vm_mode OPTIONS...
vm_mode() {
	is_root || touch "$BASE.userns"
	victim_start "$@" -- tree_vm || return 1
	checkpoint || return 1
	victim_poke || return 1
	checkpoint || return 1
	victim_poke || return 1
	checkpoint || return 1
	victim_kill || return 1
	victim_restart || return 1
	victim_quit
}

@test "tree_vm: by snapshot" {
	vm_mode --mode snapshot
	[ "$(stats_last mode)" = snapshot ]
}

@test "tree_vm: copied ahead" {
	vm_mode --mode precopy
}

@test "tree_vm: compared by hash" {
	vm_mode --tracker hash
}

@test "tree_vm: --pid takes on who shares memory with the tree" {
	local job child
	door alone "$VICTIMS/victim-tree_vm" "$BASE"
	job=$DOOR_PID
	SUP_PID=''
	wait_victim '^ready '
	child=$(pgrep -P "$job" | head -n 1)
	run fg 20 "$RUN" --once -o other --pid "$child"
	grep -qE "pid [0-9]+: it shares its memory with process $job, its ancestor" \
		<<< "$output" || fail "$output"
	fg 20 "$RUN" --once --kill -o "$CHAIN" --pid "$job"
	victim_restart
	victim_quit
}

# Each has a slot of its own in the one stub, or a stub of its own.
@test "tree_vm: ckpt-run and its tracer die in the middle: who shares memory heals by itself" {
	local point job
	door alone "$VICTIMS/victim-tree_vm" "$BASE" below
	job=$DOOR_PID
	SUP_PID=''
	wait_victim '^ready '
	for point in inject-stub:1 inject-stub:3 inject-{asking,asked,thread}:{1,2} \
		inject-mapped:{1,2,5,8} \
		inject-annex:{1,9} inject-mapped:20 dump-captured inject-unmapped:{1,8,21,28}; do
		KEEP=("CKPT_FAULT=$point=killall")
		door take "$RUN" --overwrite -o "$CHAIN" -i 0.03 --pid "$job"
		KEEP=()
		until_true 30 is_gone "$DOOR_PID" || fail "$point: not killed"
		wait "$DOOR_PID" 2>/dev/null || true
		until_true 20 untraced "$job" || fail "$point: still traced"
		victim_poke || fail "killed at $point"
	done
	ln -sfn quit "$BASE.poke"
	until_true 20 is_gone "$job"
}

@test "tree_vm: where kcmp(2) is not allowed, shared memory is refused by name" {
	victim_start -- tree_vm
	KEEP=(CKPT_WITHOUT=kcmp)
	run fg 20 "$RUN" --once -o other --pid "$(sed -n 's/^ready //p' "$BASE.out")"
	KEEP=()
	[ "$status" -eq 125 ]
	[[ $output =~ 'shares its memory with process '[0-9]+', and what else' ]] || fail "$output"
	victim_quit
}

@test "tree_files: with nobody who reads /proc ahead of the tracer" {
	KEEP=(CKPT_WITHOUT=scout)
	three_generations tree_files
}

@test "tree_files: with another thread that reads who is whose child" {
	KEEP=(CKPT_WITHOUT=worth_asking)
	three_generations tree_files
}

@test "tree_death: where no process may be had that guards the tree while it is let go" {
	KEEP=(CKPT_WITHOUT=guard)
	three_generations tree_death
}

@test "tree_death: parent-death signals come when parents die, and not before" {
	three_generations tree_death
}

@test "tree_stopped: stopped children stay stopped, waited for or not" {
	three_generations tree_stopped
}

# Up to ten attempts, until one is ok; "skipped": it could not be stopped just then. Those that
# waited for a processor are a busy machine's, and do not count.
checkpoint_in_ten() {
	local i=0 end=$((SECONDS + CKPT_TEST_WAIT))
	while [ $i -lt 10 ]; do
		attempt || return 1
		[ "$(stats_last result)" != ok ] || return 0
		[ "$(stats_last result)" = skipped ] || break
		[[ $(stats_last error) == *"for a processor"* ]] && [ $SECONDS -lt $end ] ||
			i=$((i + 1))
	done
	fail "attempt $i: $(tail -n 1 "$STATS")"
}

@test "tree_bomb: processes that never stop making others" {
	local generation
	is_root || touch "$BASE.userns"
	victim_start --no-snapshot -- tree_bomb
	for generation in 1 2 3; do
		checkpoint_in_ten
		checkpoint_in_ten
		victim_poke
		victim_kill
		victim_restart || fail "generation $generation"
	done
	victim_poke
	kill_tree "$SUP_PID"
}

@test "tree_vfork: a parent that waits in vfork is waited for, and never hangs" {
	victim_start --no-snapshot -- tree_vfork 5
	checkpoint_in_ten
	victim_poke
	victim_kill
	victim_restart
	checkpoint_in_ten
	victim_quit
}

@test "tree_vfork: a child that takes long until its exec is said to be the reason" {
	victim_start --no-snapshot -- tree_vfork 100000
	until_true 10 grep -qsE '^State:.D' "/proc/$VICTIM_PID/task/"*/status
	attempt
	[ "$(stats_last result)" = skipped ]
	grep -q 'does not stop: it waits for the child of a vfork' "$STATS"
	until_true 10 untraced "$VICTIM_PID"
	kill_tree "$SUP_PID"
}

@test "tree_busy: a ring of pipes through processes, threads, an orphan and a daemon" {
	three_generations tree_busy
}

@test "ten copies of a tree from one image, while the original runs" {
	local i pids=() outs
	victim_start --no-snapshot -- tree_shape tree 15
	checkpoint
	for i in 0 1 2 3 4 5 6 7 8 9; do
		door "copy$i" "$RESTART" --pids namespace --no-checkpoint -v "$CHAIN"
		pids+=("$DOOR_PID")
	done
	for i in 0 1 2 3 4 5 6 7 8 9; do
		until_true "$CKPT_TEST_WAIT" has_line "$T/copy$i.stderr" 'restarted from' ||
			namespace_or_skip "copy$i" || return 1
	done
	# All of them, and the original, verify themselves and answer in the one file.
	ln -sfn all "$BASE.poke"
	until_true "$CKPT_TEST_WAIT" eleven_answers || fail "$(cat "$BASE.out")"
	[ -z "$(victim_failed)" ]
	for i in "${pids[@]}"; do kill_tree "$i"; done
	victim_quit
}

eleven_answers() {
	[ "$(grep -c '^ok all$' "$BASE.out")" -eq 11 ]
}

namespace_or_skip() {
	! grep -q 'no new pid namespace' "$T/$1.stderr" || skip "no pid namespace can be had here"
	fail "$1: $(cat "$T/$1.stderr")"
}

stopped_tracer() {
	TRACER=$(pgrep -P "$SUP_PID" -x ckpt-tracer) && grep -q '^State:.T' "/proc/$TRACER/status"
}

@test "a process that is killed while the job is stopped costs one attempt, not the checkpoint" {
	local point
	for point in freeze-stopped dump-threads dump-family; do
		KEEP=(CKPT_FAULT=$point=stop)
		rm -f child "$STATS"
		door "killed-$point" "$RUN" --overwrite -o "$CHAIN" --stats "$STATS" \
			--on-term checkpoint -- \
			sh -c 'sleep 1000 & echo $! > child; wait; exec sleep 1000'
		SUP_PID=$DOOR_PID
		until_true 20 test -s child
		kill -TERM "$SUP_PID"
		until_true 20 stopped_tracer || skip "what traces is no process of its own here"
		kill -9 "$(cat child)"
		kill -CONT "$TRACER"
		exit_of "$SUP_PID" 30
		[ "$STATUS" -eq 75 ] ||
			fail "$point: $STATUS: $(cat "$T/killed-$point.stderr")" || return 1
		grep -q '"result": "skipped"' "$STATS"
		[ "$(stats_last result)" = ok ]
	done
}

@test "--pid takes on a running tree: --once, then --once --kill" {
	is_root || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" -eq 0 ] ||
		skip "Yama lets only parents trace"
	door alone "$VICTIMS/victim-tree_shape" "$BASE" tree 15
	JOB=$DOOR_PID
	wait_victim '^ready '
	run fg 60 "$RUN" -o "$CHAIN" --pid "$JOB" --once
	[ "$status" -eq 0 ]
	victim_poke
	run fg 60 "$RUN" --overwrite -o "$CHAIN" --pid "$JOB" --once --kill
	[ "$status" -eq 0 ]
	wait "$JOB" 2> /dev/null || true
	until_true 20 nothing_left
	victim_restart
	victim_quit
}

@test "a failure at every point of a tree's restart leaves nothing" {
	local name points
	victim_start --no-snapshot -- tree_busy
	checkpoint
	victim_kill
	restart_points
	# The first and the last pass of each.
	points=$(awk '{ n[$0]++ } END { for (p in n)
		print p ":1" (n[p] > 1 ? " " p ":" n[p] : "") }' <<< "$POINTS")
	[ "$(wc -w <<< "$points")" -ge 12 ]
	# A process that is being made has no standard error to be listed on.
	for name in $points restore-born:1; do
		KEEP=("CKPT_FAULT=$name")
		run fg 30 "$RESTART" --no-checkpoint "$CHAIN"
		KEEP=()
		[ "$status" -ne 0 ] && [ "$status" -ne 124 ] ||
			fail "$name: exit $status: $output" || return 1
		[[ $output == *"injected fault"* ]] || fail "$name: $output" || return 1
		until_true 10 nothing_left || fail "$name left $(test_processes)" || return 1
	done
	victim_restart
	victim_quit
}

@test "ckpt-restart killed at any point of a tree's restart leaves nothing" {
	local name points
	victim_start --no-snapshot -- tree_busy
	checkpoint
	victim_kill
	restart_points
	points=$(awk '!seen[$0]++' <<< "$POINTS")
	for name in $points restore-born; do
		KEEP=("CKPT_FAULT=$name=kill")
		run fg 30 "$RESTART" --no-checkpoint "$CHAIN"
		KEEP=()
		[ "$status" -ne 124 ] || fail "$name: hangs" || return 1
		until_true 10 nothing_left || fail "$name left $(test_processes)" || return 1
	done
	victim_restart
	victim_quit
}

@test "SIGKILL for ckpt-run at every phase of a tree's checkpoint" {
	local name points
	is_root || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" -eq 0 ] ||
		skip "Yama lets only parents trace"
	KEEP=(CKPT_FAULT=list)
	victim_start --no-snapshot -- tree_busy
	KEEP=()
	checkpoint
	victim_kill
	points=$(sed -n 's/^fault point: //p' "$T/run1.stderr" | awk '!seen[$0]++')
	rm -f "$BASE".*
	door alone "$VICTIMS/victim-tree_busy" "$BASE"
	JOB=$DOOR_PID
	SUP_PID=''
	wait_victim '^ready '
	for name in $points; do
		KEEP=("CKPT_FAULT=$name=kill")
		door take "$RUN" --overwrite -o "$CHAIN" --pid "$JOB" --once
		KEEP=()
		until_true 30 is_gone "$DOOR_PID" || fail "$name: hangs" || return 1
		wait "$DOOR_PID" 2> /dev/null || true
		until_true 10 untraced "$JOB" || fail "$name: still traced" || return 1
		victim_poke || fail "killed at $name" || return 1
	done
	ln -sfn quit "$BASE.poke"
	wait_victim '^ok quit$'
}

# Without privilege and namespaces: everybody gets a new id.
with_new_ids() {
	victim_start --no-snapshot -- "$@" || return 1
	checkpoint || return 1
	victim_poke || return 1
	victim_kill || return 1
	touch "$BASE.newpids"
	KEEP=(CKPT_WITHOUT=userns,set_tid)
	victim_restart || return 1
	checkpoint || return 1
	victim_poke || return 1
	victim_kill || return 1
	victim_restart || return 1
	KEEP=()
	grep -q 'new process ids' "$T/restart2.stderr" || fail "$(cat "$T/restart2.stderr")"
}

@test "new ids: sessions and groups" {
	with_new_ids tree_sessions
}

@test "new ids: a ring of pipes" {
	with_new_ids tree_busy
}

@test "new ids: children that have ended" {
	with_new_ids tree_zombies
}

# One process of the tree cannot be captured: nothing is, the message names it, the tree goes on.
one_refused() {
	local pid
	victim_start --no-snapshot -- tree_refused || return 1
	checkpoint || return 1
	touch "$BASE.refuse"
	wait_victim '^refused 1 ' || return 1
	pid=$(sed -n 's/^refused 1 //p' "$BASE.out")
	real_attempt || return 1
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")" || return 1
	grep -qE "pid $pid $1" <(tail -n 1 "$STATS") || fail "$(tail -n 1 "$STATS")" || return 1
	[ ! -e "$CHAIN/000002.img" ]
	victim_poke || return 1
	rm "$BASE.refuse"
	wait_victim '^refused 0 ' || return 1
	checkpoint || return 1
	victim_kill || return 1
	victim_restart || return 1
	victim_quit
}

@test "a tree of which one process may not be captured is not captured at all" {
	one_refused 'fd [0-9]+: a network namespace'
}

@test "ckpt-run's memory does not grow with the tree" {
	local peak
	victim_start --no-snapshot -- tree_shape wide 300
	checkpoint
	checkpoint
	peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$SUP_PID/status")
	[ "$peak" -lt 65536 ] || fail "$peak KiB"
	victim_quit
}

# Who may have few processes only cannot have this many.
@test "tree_shape: a thousand processes" {
	local max
	is_root || skip "as root only: a limit of processes may be lower"
	max=$(cat "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/pids.max" 2>/dev/null ||
		echo max)
	[ "$max" = max ] || [ "$max" -ge 3000 ] || skip "no more than $max processes here"
	victim_start --no-snapshot -- tree_shape wide 1000
	checkpoint
	victim_kill
	victim_restart
	victim_poke
	victim_quit
}
