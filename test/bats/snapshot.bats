#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Copy-on-write checkpoints: the job is forked inside itself, nobody in it notices, and the image is
# of one instant.

load ../lib/common

# At length as one of the two users only, when both take their turn.
if [ "$(id -u)" -eq 0 ]; then : "${CKPT_TEST_MOMENTS:=100}"; else : "${CKPT_TEST_MOMENTS:=300}"; fi

GROUP='' # a cgroup that the test has made

# The snapshots of this test that are alive.
copies() {
	local p
	for p in $(test_processes); do
		[ "$(cat "/proc/$p/comm" 2>/dev/null)" != ckpt-snapshot ] || is_gone "$p" ||
			echo "$p"
	done
}

no_copies() {
	[ -z "$(copies)" ]
}

used_snapshot() {
	[ "$(stats_last mode)" = snapshot ] || fail "mode $(stats_last mode): $(tail -n 1 "$STATS")"
}

# So many checkpoints, each read from a snapshot.
take_from_snapshots() {
	local i
	for ((i = 0; i < $1; i++)); do
		checkpoint && used_snapshot || return 1
	done
}

# The same of a victim, which looks at what it has after each.
look_between_snapshots() {
	local i
	for ((i = 0; i < $1; i++)); do
		take_from_snapshots 1 && victim_poke || return 1
	done
}

# Until ckpt-run stands at the fault point (CKPT_FAULT=POINT=stop) with the job running again.
stopped_at_point() {
	kill -USR1 "$SUP_PID"
	until_true "$CKPT_TEST_WAIT" find_stopped || fail "ckpt-run does not stop"
}

can_attach() {
	is_root || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" -eq 0 ]
}

@test "what is saved is of one instant, along a chain and in three generations" {
	local generation i
	is_root || touch "$BASE.userns"
	victim_start --mode snapshot -- instant
	for generation in 1 2 3; do
		for i in 1 2 3; do
			checkpoint
			used_snapshot
			[ "$(stats_last snapshot_us)" -gt 0 ]
		done
		victim_poke
		victim_kill
		victim_restart
		victim_poke
	done
	victim_quit
}

@test "each restartable state of many is of one instant" {
	local n
	victim_start --mode snapshot --keep 6 -i 0.02 -- instant
	until_true 60 more_taken_than 10
	victim_kill
	! grep -q '"result": *"failed"' "$STATS"
	for n in $(cd "$CHAIN" && printf '%s\n' [0-9]*.img | tail -n 4); do
		victim_restart --no-checkpoint --at "$((10#${n%.img}))" || fail "$n" || return 1
		victim_poke || fail "$n" || return 1
		victim_kill
	done
}

@test "several processes are saved at one instant" {
	local generation
	is_root || touch "$BASE.userns"
	victim_start --mode snapshot -- instant pair
	for generation in 1 2; do
		checkpoint
		used_snapshot
		checkpoint
		used_snapshot
		victim_poke
		victim_kill
		victim_restart
		victim_poke
	done
	[ -z "$(copies)" ]
	victim_quit
}

@test "a tree of processes is forked member by member" {
	is_root || touch "$BASE.userns"
	victim_start --mode snapshot -- tree_shape tree 15
	checkpoint
	used_snapshot
	victim_poke
	checkpoint
	used_snapshot
	[ "$(stats_last processes)" -eq 15 ]
	victim_kill
	victim_restart
	victim_quit
}

@test "a job that handles every signal is forked too" {
	victim_start --mode snapshot -- instant handlers
	checkpoint
	used_snapshot
	victim_poke
	checkpoint
	victim_kill
	victim_restart
	victim_quit
}

@test "while a snapshot is read the job sees no child, and what it closes is closed" {
	local copy stat
	KEEP=("CKPT_FAULT=dump-thawed=stop")
	victim_start --mode snapshot -- unseen
	KEEP=()
	stopped_at_point
	copy=$(copies)
	[ "$(wc -w <<< "$copy")" -eq 1 ] || fail "copies: $copy"
	victim_poke
	victim_poke
	[ -z "$(ls "/proc/$copy/fd")" ] || fail "open in the copy: $(ls -l "/proc/$copy/fd")"
	! grep -E '^[^ ]+ ...s' "/proc/$copy/maps" || fail "shared mappings in the copy"
	grep -qE '^Max core file size +0 +0 ' "/proc/$copy/limits"
	[ "$(readlink "/proc/$copy/cwd")" = / ]
	stat=$(cat "/proc/$copy/stat")
	read -r _ _ pgrp session _ <<< "${stat##*) }"
	[ "$pgrp" = "$copy" ] && [ "$session" = "$copy" ] || fail "group $pgrp, session $session"
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 0
	until_true "$CKPT_TEST_WAIT" pid_free "$copy"
	[ "$(stats_last result)" = ok ]
	used_snapshot
	victim_quit
}

# In KiB.
has_of_its_own() {
	sed -n 's/^RssAnon:[[:space:]]*\([0-9]*\) kB$/\1/p' "/proc/$1/status"
}

@test "what has been read of a snapshot, nobody copies any more" {
	local copy all
	KEEP=("CKPT_FAULT=copy-given-up:3=stop")
	victim_start --mode snapshot -- unseen memory 40
	KEEP=()
	all=$(has_of_its_own "$VICTIM_PID")
	[ "$all" -gt 40960 ]
	stopped_at_point
	copy=$(copies)
	[ "$(has_of_its_own "$copy")" -le $((all - 3 * 4096)) ] ||
		fail "$(has_of_its_own "$copy") of $all KiB are there still"
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 0
	[ "$(stats_last result)" = ok ]
	used_snapshot
	victim_poke
	victim_kill
	victim_restart
	victim_quit
}

@test "what is as before, a snapshot gives up before anything is read" {
	local copy
	has_tracker uffd
	KEEP=("CKPT_FAULT=copy-begun:2=stop")
	victim_start --mode snapshot -- unseen memory 40
	KEEP=()
	checkpoint
	used_snapshot
	stopped_at_point
	copy=$(copies)
	[ "$(has_of_its_own "$copy")" -lt 4096 ] || fail "$(cat "/proc/$copy/status")"
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 1
	[ "$(stats_last result) $(stats_last kind)" = "ok incremental" ]
	used_snapshot
	victim_poke
	victim_kill
	victim_restart
	victim_quit
}

@test "locks of every kind are held on beside a snapshot, and after it" {
	is_root || touch "$BASE.userns"
	KEEP=("CKPT_FAULT=dump-thawed=stop")
	victim_start --mode snapshot -- locked
	KEEP=()
	victim_poke
	stopped_at_point
	[ "$(copies | wc -w)" -eq 2 ] || fail "copies: $(copies)"
	victim_poke
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 0
	[ "$(stats_last result)" = ok ]
	used_snapshot
	victim_poke
	look_between_snapshots 3
	victim_kill
	victim_restart
	checkpoint
	used_snapshot
	victim_quit
}

# Thread by thread, with names: nice level and I/O priority.
priorities() {
	local task stat
	for task in /proc/"$1"/task/*; do
		{ stat=$(< "$task/stat"); } 2>/dev/null || continue
		read -r -a stat <<< "${stat##*) }"
		echo "$(< "$task/comm") nice ${stat[16]} $(ionice -p "${task##*/}")"
	done
}

# The writer's: what puts the image out, and one at least that compresses.
writers_behind() {
	[ "$(priorities "$SUP_PID" | grep -c ' nice 10 best-effort: prio 7$')" -ge 2 ]
}

@test "what writes beside the running job steps back, and nobody else does" {
	local before own
	[ "$(nice)" -lt 10 ] || skip "the tests themselves run at nice level $(nice)"
	KEEP=("CKPT_FAULT=dump-thawed=stop")
	victim_start --mode stop -- unseen memory 40
	KEEP=()
	before=$(priorities "$VICTIM_PID")
	own=$(priorities "$SUP_PID" | head -n 1)
	stopped_at_point
	until_true "$CKPT_TEST_WAIT" writers_behind || fail "$(priorities "$SUP_PID")"
	[ "$(priorities "$VICTIM_PID")" = "$before" ] || fail "$(priorities "$VICTIM_PID")"
	[ "$(priorities "$SUP_PID" | head -n 1)" = "$own" ] || fail "$(priorities "$SUP_PID")"
	! priorities "$STOPPED" | grep -v ' nice 10 ' | grep -vF "${own#* }" ||
		fail "the tracer: $(priorities "$STOPPED")"
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 0
	[ "$(stats_last result) $(stats_last mode)" = "ok stop" ] || fail "$(cat "$STATS")"
	[ "$(priorities "$VICTIM_PID")" = "$before" ]
	victim_poke
	victim_quit
}

@test "a snapshot that is killed fails its attempt, not the job" {
	local copy
	KEEP=("CKPT_FAULT=dump-thawed=stop")
	victim_start --mode snapshot -- unseen memory 20
	KEEP=()
	stopped_at_point
	copy=$(copies)
	kill -9 "$copy"
	wait_gone "$copy"
	kill -CONT "$STOPPED"
	wait_line "$STATS" '"result": *"skipped".*snapshot has been killed' ||
		fail "$(cat "$STATS")"
	# It is tried again by itself, without one: perhaps the memory was not enough.
	until_true "$CKPT_TEST_WAIT" more_taken_than 0
	[ "$(stats_last result) $(stats_last mode)" = "ok stop" ] || fail "$(cat "$STATS")"
	checkpoint
	used_snapshot
	check_chain
	victim_quit
}

@test "ten checkpoints leave no child, no zombie and no copy" {
	local job
	victim_start --mode snapshot -- unseen
	take_from_snapshots 10
	job=$(descendants "$SUP_PID")
	[ "$(wc -w <<< "$job")" -eq 1 ] || fail "processes below ckpt-run: $job"
	victim_poke
	victim_quit
}

@test "below a restarted job's own init the copies are reaped, too" {
	local before
	victim_start --mode snapshot -- unseen
	checkpoint
	victim_kill
	victim_restart
	before=$(descendants "$SUP_PID" | wc -w)
	take_from_snapshots 5
	[ "$(descendants "$SUP_PID" | wc -w)" -eq "$before" ] ||
		fail "processes below ckpt-restart: $(descendants "$SUP_PID")"
	victim_poke
	victim_quit
}

@test "a fork that is refused falls back to copying while stopped" {
	victim_start --mode snapshot -- unseen nproc
	checkpoint
	[ "$(stats_last mode)" = stop ] || fail "$(tail -n 1 "$STATS")"
	victim_poke
	victim_kill
	victim_restart
	victim_quit
}

@test "a fork that the overcommit policy refuses falls back to copying while stopped" {
	KEEP=(CKPT_FAULT=list)
	victim_start --mode snapshot -- unseen beyond
	KEEP=()
	checkpoint
	[ "$(stats_last mode)" = stop ] || fail "$(tail -n 1 "$STATS")"
	# it came as far as the helper, which shares the memory, and no copy was made
	has_line "$T/run1.stderr" '^fault point: snapshot-helper$'
	! has_line "$T/run1.stderr" '^fault point: snapshot-copy$' || fail "there is a copy"
	victim_poke
	checkpoint
	victim_poke
	victim_quit
}

# A cgroup with the pids controller, in GROUP: teardown removes it.
make_group() {
	local top=/sys/fs/cgroup
	is_root || skip "only root makes cgroups"
	if [ -w $top/pids/cgroup.procs ]; then
		top=$top/pids
	elif ! grep -qsw pids $top/cgroup.subtree_control; then
		skip "no pids controller in $top"
	fi
	GROUP=$top/ckpt-test-$$-${T##*-}
	mkdir "$GROUP" 2>/dev/null || { GROUP=''; skip "no cgroup can be made in $top"; }
	[ -w "$GROUP/pids.max" ] || skip "no pids.max in $GROUP"
}

teardown() {
	common_teardown
	[ -z "$GROUP" ] || until_true 20 rmdir "$GROUP" 2>/dev/null
}

@test "a fork that the pids cgroup refuses falls back to copying while stopped" {
	local have room
	make_group
	victim_start --mode snapshot -- unseen
	echo "$VICTIM_PID" > "$GROUP/cgroup.procs"
	have=$(< "$GROUP/pids.current")
	[ "$have" -eq 2 ] || fail "$have tasks"
	# neither the helper nor the copy; the helper; both
	for room in 0 1 2; do
		echo $((have + room)) > "$GROUP/pids.max"
		checkpoint
		[ "$(stats_last mode)" = "$([ $room = 2 ] && echo snapshot || echo stop)" ] ||
			fail "room for $room: $(tail -n 1 "$STATS")"
		victim_poke
		[ "$(< "$GROUP/pids.current")" -eq "$have" ]
	done
	victim_kill
	victim_restart
	victim_quit
}

@test "whichever of the two forks is refused, the checkpoint is taken" {
	local n stop=0 snapshot=0
	is_root && skip "the unprivileged run of this suite covers it"
	# Only in a user namespace of its own does nobody else count.
	fg 10 unshare -U true 2>/dev/null || skip "no user namespace can be had"
	for ((n = 2; n <= 24; n += n < 12 ? 1 : 4)); do
		door run1 unshare -U "$RUN" --mode snapshot -o "$CHAIN" --stats "$STATS" -- \
			"$VICTIMS/victim-unseen" "$BASE" nproc "$n"
		SUP_PID=$DOOR_PID
		wait_victim '^(ready |bad: .*thread)' || return 1
		checkpoint || fail "limit $n" || return 1
		case $(stats_last mode) in
		stop) stop=$((stop + 1)) ;;
		snapshot) snapshot=$((snapshot + 1)) ;;
		esac
		victim_poke || fail "limit $n" || return 1
		victim_quit || fail "limit $n" || return 1
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
	[ "$stop" -ge 1 ] && [ "$snapshot" -ge 1 ] || fail "stop $stop, snapshot $snapshot"
}

@test "where a thread traces, its snapshots end with it" {
	local name
	for name in snapshot-copy snapshot-held dump-thawed; do
		KEEP=(CKPT_WITHOUT=tracer "CKPT_FAULT=$name=kill")
		victim_start --mode snapshot -- instant
		KEEP=()
		VICTIM_PID=$(descendants "$SUP_PID" | head -n 1)
		kill -USR1 "$SUP_PID"
		wait_gone "$SUP_PID"
		until_true 20 no_copies || fail "killed at $name: left $(copies)" || return 1
		until_true 20 untraced "$VICTIM_PID" || fail "$name: still traced" || return 1
		SUP_PID=''
		victim_poke || fail "killed at $name" || return 1
		kill -9 "$VICTIM_PID"
		wait_gone "$VICTIM_PID"
		rm -rf "$CHAIN" "$BASE".*
	done
	KEEP=(CKPT_WITHOUT=tracer)
	victim_start --mode snapshot -- unseen memory 20
	KEEP=()
	take_from_snapshots 3
	[ "$(descendants "$SUP_PID" | wc -w)" -eq 1 ] || fail "left: $(descendants "$SUP_PID")"
	victim_quit
}

@test "where nobody may write to read-only memory through /proc/PID/mem" {
	KEEP=(CKPT_WITHOUT=proc_mem)
	victim_start --mode snapshot -- instant
	KEEP=()
	look_between_snapshots 3
	victim_kill
	victim_restart
	victim_quit
}

@test "a job that adopts orphans is not forked" {
	victim_start --mode snapshot -- unseen subreaper
	checkpoint
	[ "$(stats_last mode)" = stop ] || fail "$(tail -n 1 "$STATS")"
	victim_poke
	victim_quit
}

@test "--mode stop and --no-snapshot make none; auto makes one where much is to be read" {
	local mode
	for mode in "--mode stop" "--no-snapshot"; do
		# shellcheck disable=SC2086 # an option and its argument
		victim_start $mode -- unseen memory 64
		checkpoint
		[ "$(stats_last mode)" = stop ] || fail "$mode: $(tail -n 1 "$STATS")" || return 1
		victim_quit
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
	victim_start --tracker hash -- unseen memory 64
	checkpoint
	used_snapshot
	victim_quit
}

@test "a taken-on job's snapshot is nobody's child in it" {
	can_attach || skip "Yama lets only parents trace"
	door unseen "$VICTIMS/victim-unseen" "$BASE"
	local job=$DOOR_PID
	wait_victim '^ready '
	fg 40 "$RUN" --mode snapshot --stats "$STATS" -o "$CHAIN" --once --pid "$job"
	used_snapshot
	victim_poke
	until_true 10 no_copies
	check_untraced "$job"
	kill -9 "$job"
}

# The fault points that a checkpoint with a snapshot passes, between snapshot-start and the end.
snapshot_points() {
	KEEP=(CKPT_FAULT=list)
	victim_start --mode snapshot -- unseen
	KEEP=()
	checkpoint
	victim_kill
	sed -n 's/^fault point: //p' "$T/run1.stderr" |
		sed -n '/^snapshot-start$/,/^dump-finish$/p' | awk '!seen[$0]++'
	rm -rf "$CHAIN" "$BASE".* "$STATS"
}

@test "SIGKILL for ckpt-run at every point around a snapshot leaves the job, and no copy" {
	local name points job n=0
	can_attach || skip "Yama lets only parents trace"
	points=$(snapshot_points)
	[ "$(grep -c ^snapshot- <<< "$points")" -ge 5 ] || fail "only these points: $points"
	door instant "$VICTIMS/victim-instant" "$BASE"
	job=$DOOR_PID
	wait_victim '^ready '
	outline "$job" > outline
	for name in $points; do
		KEEP=("CKPT_FAULT=$name=kill")
		run fg 40 "$RUN" --overwrite --mode snapshot -o "$CHAIN" --once --pid "$job"
		KEEP=()
		[ "$status" -ne 0 ] || fail "$name was not passed: $output" || return 1
		until_true 20 no_copies || fail "killed at $name: left $(copies)" || return 1
		until_true 20 untraced "$job" || fail "$name: still traced" || return 1
		victim_poke || fail "killed at $name" || return 1
		outline "$job" > outline.now
		diff outline outline.now || fail "$name: not as it was" || return 1
	done
	kill -9 "$job"
}

@test "a failure at every point around a snapshot leaves the job, and no copy" {
	local name points
	points=$(snapshot_points)
	for name in $points; do
		KEEP=("CKPT_FAULT=$name")
		victim_start --mode snapshot -- unseen
		KEEP=()
		real_attempt
		case $name in
		inject-*) ;; # what is not needed any more
		copy-*) # others keep what they have
			[ "$(stats_last result) $(stats_last mode)" = "ok snapshot" ] ||
				fail "$name: $(tail -n 1 "$STATS")" || return 1
			;;
		snapshot-*) # it does without
			[ "$(stats_last result) $(stats_last mode)" = "ok stop" ] ||
				fail "$name: $(tail -n 1 "$STATS")" || return 1
			;;
		*)
			[ "$(stats_last result)" = failed ] ||
				fail "$name: $(tail -n 1 "$STATS")" || return 1
			;;
		esac
		until_true 20 no_copies || fail "failed at $name: left $(copies)" || return 1
		victim_poke || fail "failed at $name" || return 1
		checkpoint
		used_snapshot || fail "after $name" || return 1
		victim_quit || fail "failed at $name" || return 1
		rm -rf "$CHAIN" "$BASE".* "$STATS"
	done
}

@test "SIGKILL for ckpt-run at random moments leaves the job, and no copy" {
	local i job taker seed=${CKPT_TEST_SEED:-$RANDOM}
	can_attach || skip "Yama lets only parents trace"
	echo "seed $seed (CKPT_TEST_SEED)"
	RANDOM=$seed
	door instant "$VICTIMS/victim-instant" "$BASE"
	job=$DOOR_PID
	wait_victim '^ready '
	for ((i = 1; i <= CKPT_TEST_MOMENTS / 5 + 5; i++)); do
		door take "$RUN" --overwrite --mode snapshot -o "$CHAIN" -i 0.01 --pid "$job"
		taker=$DOOR_PID
		sleep "0.$(printf '%05d' $((RANDOM % 25000)))"
		kill -9 "$taker" 2>/dev/null || true
		wait "$taker" 2>/dev/null || true
		until_true 20 untraced "$job" || fail "moment $i of seed $seed: traced" || return 1
		until_true 20 no_copies || fail "moment $i of seed $seed: left" || return 1
		[ -z "$(victim_failed)" ] || fail "moment $i: $(victim_failed)" || return 1
	done
	victim_poke
	kill -9 "$job"
}
