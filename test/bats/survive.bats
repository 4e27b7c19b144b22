#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# The job survives its checkpointer: killed at every phase of a checkpoint, and at random moments,
# it never notices.

load ../lib/common

# How many random moments; test/run --quick lowers it.
# At length as one of the two users only, when both take their turn (test/run: 300 by both
# together).
if [ "$(id -u)" -eq 0 ]; then : "${CKPT_TEST_MOMENTS:=100}"; else : "${CKPT_TEST_MOMENTS:=300}"; fi

# A ckpt-run takes the running victim on again. Where Yama allows tracing of children only, a new
# one is started.
can_attach() {
	is_root || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" -eq 0 ]
}

# The names of all points that two checkpoints of the busy victim pass, in order.
fault_points() {
	KEEP=(CKPT_FAULT=list)
	victim_start --mode precopy -- busy
	KEEP=()
	checkpoint
	victim_poke
	checkpoint
	victim_kill
	sed -n 's/^fault point: //p' "$T/run1.stderr" | awk '!seen[$0]++'
}

# busy_alone: the victim runs by itself, JOB is its pid, OUTLINE what it looks like.
busy_alone() {
	rm -f "$BASE".*
	[ -z "${remains_allowed:-}" ] || touch "$BASE.remains"
	door busy "$VICTIMS/victim-busy" "$BASE"
	JOB=$DOOR_PID
	SUP_PID=''
	wait_victim '^ready '
	outline "$JOB" > "$T/outline"
}

same_outline() {
	outline "$JOB" > "$T/outline.now"
	diff "$T/outline" "$T/outline.now" > "$T/outline.diff"
}

# Nothing of ours is attached to the job or left in it.
check_clean() {
	is_gone "$JOB" && fail "the job is gone ($1): $(victim_failed)" && return 1
	check_untraced "$JOB" || fail "$1" || return 1
	until_true 5 same_outline ||
		fail "$1: not as it was: $(head -n 5 "$T/outline.diff")" || return 1
	[ -z "$(victim_failed)" ] || fail "$1: $(victim_failed)" || return 1
}

# take_on ENV OPTIONS...: ckpt-run --pid on the victim, in the chain that the one before left
# behind. Copying ahead takes stops of three kinds.
take_on() {
	KEEP=("$1")
	shift
	rm -f "$STATS"
	door take "$RUN" --overwrite --mode precopy -o "$CHAIN" --stats "$STATS" "$@" --pid "$JOB"
	KEEP=()
	TAKER=$DOOR_PID
}

# healed_without TAKER: it has been killed at the fault point $name, and the job is as it was.
healed_without() {
	until_true 30 is_gone "$1" || fail "$name: not killed" || return 1
	wait "$1" 2>/dev/null || true
	until_true 20 untraced "$JOB" || fail "$name: still traced" || return 1
	victim_poke || fail "killed at $name" || return 1
	check_clean "killed at $name"
}

@test "between checkpoints nothing is attached, and nothing of ours is in the job" {
	victim_start -- busy
	JOB=$(descendants "$SUP_PID" | head -n 1)
	outline "$JOB" > outline
	local i
	for i in 1 2 3 4 5; do
		checkpoint
		until_true 10 untraced "$JOB"
		check_clean "checkpoint $i"
		victim_poke
	done
	victim_quit
}

@test "the busy victim never notices checkpoints at a quick pace" {
	victim_start -i 0.02 -- busy
	local before
	before=$(stats_count)
	until_true 60 more_stats_than $((before + 100))
	victim_poke
	! grep -q '"result": *"failed"' "$STATS"
	victim_quit
}

@test "SIGKILL for ckpt-run at every phase of the first and of a later checkpoint" {
	local name k points n=0
	can_attach || skip "Yama lets only parents trace"
	points=$(fault_points)
	[ "$(wc -w <<< "$points")" -ge 8 ] || fail "only these fault points: $points"
	busy_alone
	for name in $points; do
		for k in 1 2; do
			take_on "CKPT_FAULT=$name:$k=kill" -i 0.03
			# A point that comes once in a ckpt-run's life is not passed a second time:
			# enough checkpoints say so.
			until_true 30 gone_or_past "$TAKER" 4 ||
				fail "$name:$k: neither killed nor done" || return 1
			! is_gone "$TAKER" || n=$((n + 1))
			kill -TERM "$TAKER" 2>/dev/null || true
			wait "$TAKER" 2>/dev/null || true
			until_true 20 untraced "$JOB" || fail "$name:$k: still traced" || return 1
			victim_poke || fail "killed at $name:$k" || return 1
			check_clean "killed at $name:$k" || return 1
		done
	done
	[ "$n" -ge "$(wc -w <<< "$points")" ] || fail "only $n of the kills happened"
	# It can be checkpointed and restarted after all that.
	take_on _=_ -i 0.1
	until_true 20 more_stats_than 0
	SUP_PID=$TAKER
	checkpoint
	kill -9 "$TAKER" "$JOB"
	wait_gone "$TAKER"
	wait "$JOB" 2>/dev/null || true
	victim_restart
	victim_quit
}

@test "SIGKILL for ckpt-run while threads are on their way to a stop: no call returns EINTR" {
	local k
	can_attach || skip "Yama lets only parents trace"
	busy_alone
	for k in 1 2 3 4 5 6 7 8 9 10 12 14 16 18 20; do
		take_on "CKPT_FAULT=freeze-asked:$k=kill" -i 0.03
		until_true 30 is_gone "$TAKER" || fail "freeze-asked:$k: not killed" || return 1
		wait "$TAKER" 2>/dev/null || true
		until_true 20 untraced "$JOB" || fail "freeze-asked:$k: still traced" || return 1
		victim_poke || fail "killed at freeze-asked:$k" || return 1
		check_clean "killed at freeze-asked:$k" || return 1
	done
	kill -9 "$JOB"
}

# The process that traces for ckpt-run has its memory, a name and a process group of its own.
tracer_of() {
	local p
	for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
		[ "$(cat "/proc/$p/comm" 2>/dev/null)" != ckpt-tracer ] || echo "$p"
	done
}

@test "SIGKILL for ckpt-run and its tracing process at once, at every phase: the job heals itself" {
	local name points
	can_attach || skip "Yama lets only parents trace"
	points=$(fault_points)
	remains_allowed=yes
	busy_alone
	# In the very moment of a stop nobody is left to undo an EINTR (see busy.c).
	for name in ${points/freeze-asked/}; do
		take_on "CKPT_FAULT=$name=killall" -i 0.03
		healed_without "$TAKER" || return 1
	done
	kill -9 "$JOB"
}

@test "where the tracer cannot be a process it is a thread, and the job heals itself too" {
	local name points
	can_attach || skip "Yama lets only parents trace"
	points=$(fault_points)
	remains_allowed=yes
	busy_alone
	for name in ${points/freeze-asked/}; do
		KEEP=(CKPT_WITHOUT=tracer "CKPT_FAULT=$name=kill")
		rm -f "$STATS"
		door take "$RUN" --overwrite --mode precopy -o "$CHAIN" -i 0.03 --pid "$JOB"
		KEEP=()
		healed_without "$DOOR_PID" || return 1
	done
	kill -9 "$JOB"
}

@test "a tracing process that is killed costs one attempt; signals for ckpt-run are not for it" {
	local tracer
	can_attach || skip "Yama lets only parents trace"
	remains_allowed=yes
	busy_alone
	take_on CKPT_FAULT=dump-captured=stop -i 0.03
	until_true 30 tracer_stopped || fail "no tracing process stops" || return 1
	[ "$(cut -d ' ' -f 5 "/proc/$tracer/stat")" = "$tracer" ] || fail "its process group"
	kill -9 "$tracer"
	wait_line "$STATS" 'the tracing process was ended by signal 9'
	until_true 30 tail_ok
	kill -TERM "$TAKER"
	wait "$TAKER" 2>/dev/null || true
	until_true 20 untraced "$JOB"
	kill -9 "$JOB"
}

@test "a tracing process that is killed leaves ckpt-run no end of the job's pipes" {
	local tracer
	can_attach || skip "Yama lets only parents trace"
	STDOUT=/dev/null door pipe bash -c 'sleep 1000 | cat; echo over > over; exec sleep 1000'
	JOB=$DOOR_PID
	until_true 20 pgrep -P "$JOB" -x sleep
	take_on CKPT_FAULT=dump-captured=stop -i 0.03
	until_true 30 tracer_stopped || fail "no tracing process stops" || return 1
	kill -9 "$tracer"
	wait_line "$STATS" 'the tracing process was ended by signal 9'
	pkill -KILL -P "$JOB" -x sleep
	until_true 20 test -s over || fail "cat sees no end of its input" || return 1
	kill -TERM "$TAKER"
	wait "$TAKER" 2>/dev/null || true
	kill -9 "$JOB" $(pgrep -P "$JOB" -x sleep)
}

tracer_stopped() {
	tracer=$(tracer_of "$TAKER")
	[ -n "$tracer" ] && grep -q '^State:.*T' "/proc/$tracer/status"
}

tail_ok() {
	tail -n 1 "$STATS" | grep -q '"result": *"ok"'
}

gone_or_past() {
	is_gone "$1" || [ "$(stats_count)" -ge "$2" ]
}

# What could not be stopped just then ("skipped") is tried again.
gone_or_well() {
	is_gone "$1" || { [ "$(stats_count)" -ge "$2" ] && tail_ok; }
}

@test "a failure at every point of a checkpoint leaves the job alone" {
	local name points
	can_attach || skip "Yama lets only parents trace"
	points=$(fault_points)
	busy_alone
	for name in $points; do
		take_on "CKPT_FAULT=$name" -i 0.03
		until_true 30 gone_or_well "$TAKER" 3 ||
			fail "$name: no good attempt after it: $(tail -n 1 "$STATS")" || return 1
		if is_gone "$TAKER"; then
			# A failure before there is any job to look after may end ckpt-run, with
			# words.
			grep -q "injected fault" "$T/take.stderr" || fail "$name ended ckpt-run" ||
				return 1
		else
			kill -TERM "$TAKER"
			wait "$TAKER" 2>/dev/null || true
		fi
		: > "$T/take.stderr"
		until_true 20 untraced "$JOB" || fail "$name: still traced" || return 1
		victim_poke || fail "failed at $name" || return 1
		check_clean "failed at $name" || return 1
	done
	kill -9 "$JOB"
}

@test "SIGKILL for ckpt-run at random moments, $CKPT_TEST_MOMENTS of them" {
	local i seed=${CKPT_TEST_SEED:-$RANDOM}
	can_attach || skip "Yama lets only parents trace"
	echo "seed $seed (CKPT_TEST_SEED)"
	RANDOM=$seed
	busy_alone
	for ((i = 1; i <= CKPT_TEST_MOMENTS; i++)); do
		take_on _=_ -i 0.05
		# Up to some checkpoints after its start: 0 to 250 ms, in steps of well under the
		# time a phase takes.
		sleep "0.$(printf '%05d' $((RANDOM % 25000)))"
		kill -9 "$TAKER" 2>/dev/null || true
		wait "$TAKER" 2>/dev/null || true
		until_true 20 untraced "$JOB" || fail "moment $i of seed $seed: still traced" ||
			return 1
		[ -z "$(victim_failed)" ] || fail "moment $i of seed $seed: $(victim_failed)" ||
			return 1
		if ((i % 10 == 0)); then
			victim_poke || fail "moment $i of seed $seed" || return 1
			check_clean "moment $i of seed $seed" || return 1
		fi
	done
	take_on _=_ -i 0.05
	until_true 20 more_stats_than 1
	kill -TERM "$TAKER"
	wait "$TAKER" 2>/dev/null || true
	check_chain
	victim_poke
	kill -9 "$JOB"
}

@test "SIGSTOP for ckpt-run at random moments does not hold the job up" {
	local i seed=${CKPT_TEST_SEED:-$RANDOM}
	can_attach || skip "Yama lets only parents trace"
	echo "seed $seed (CKPT_TEST_SEED)"
	RANDOM=$seed
	busy_alone
	for ((i = 1; i <= (CKPT_TEST_MOMENTS + 9) / 10; i++)); do
		take_on _=_ -i 0.03
		sleep "0.$(printf '%05d' $((RANDOM % 15000)))"
		kill -STOP "$TAKER" 2>/dev/null || true
		until_true 20 untraced "$JOB" || fail "moment $i of seed $seed: still traced" ||
			return 1
		victim_poke || fail "moment $i of seed $seed" || return 1
		kill -9 "$TAKER" 2>/dev/null || true
		wait "$TAKER" 2>/dev/null || true
		until_true 20 untraced "$JOB" || fail "moment $i of seed $seed: traced at last" ||
			return 1
	done
	kill -9 "$JOB"
}

is_stopped() {
	grep -qs '^State:.T (stopped)' "/proc/$1/status"
}

find_stopped_of_shell() {
	TAKER=$(pgrep -P "$(cat "$T/take.stdout")" -x ckpt-run) && tracer_stopped
}

# Whoever inherits the tracing process is of the same session, as in many containers: else the
# kernel itself continues it (setpgid(2), an orphaned process group).
@test "SIGKILL for ckpt-run whose tracing process is stopped: that puts the job back all the same" {
	local tracer
	can_attach || skip "Yama lets only parents trace"
	busy_alone
	KEEP=(CKPT_FAULT=dump-captured=stop)
	# shellcheck disable=SC2016
	door take "$CKPT_BUILD/test/tool/reaper" bash -c 'echo $$; "$@" & wait; exec sleep 1000' _ \
		"$RUN" -o "$CHAIN" -i 0.03 --pid "$JOB"
	KEEP=()
	until_true 30 find_stopped_of_shell || fail "no tracing process stops" || return 1
	kill -9 "$TAKER"
	until_true 20 is_gone "$tracer" || fail "the tracing process stays" || return 1
	check_untraced "$JOB"
	victim_poke
	check_clean "tracing process stopped"
	kill -9 "$DOOR_PID" "$JOB"
}

# More memory than the writer has blocks for, so that whoever copies it must wait for ckpt-run's
# threads: one of them stops with the writer's lock in its hands, or before it writes.
@test "a ckpt-run that is stopped while its writing is waited for does not hold the job up" {
	local at
	can_attach || skip "Yama lets only parents trace"
	rm -f "$BASE".*
	door busy "$VICTIMS/victim-unseen" "$BASE" memory 64
	JOB=$DOOR_PID
	wait_victim '^ready '
	for at in image-worker:1 image-worker:40 image-write:1; do
		rm -f "$STATS"
		KEEP=("CKPT_FAULT=$at=stop")
		door take "$RUN" --overwrite --mode stop -o "$CHAIN" --stats "$STATS" -i 0.1 \
			--pid "$JOB"
		KEEP=()
		TAKER=$DOOR_PID
		until_true 20 is_stopped "$TAKER" || fail "$at: not stopped" || return 1
		until_true 20 untraced "$JOB" || fail "$at: still traced" || return 1
		victim_poke || fail "stopped at $at" || return 1
		kill -CONT "$TAKER"
		until_true 30 gone_or_well "$TAKER" 2 || fail "$at: no good attempt after it" ||
			return 1
		grep -q '"result": *"skipped".*was stopped' "$STATS" ||
			fail "$at: $(cat "$STATS")" || return 1
		kill -TERM "$TAKER"
		wait "$TAKER" 2>/dev/null || true
	done
	check_chain
	kill -9 "$JOB"
}

# Are the messages of queue number $1 out, as a call for that purpose says (CKPT_WITHOUT=haste)?
queue_is_out() {
	local fd
	fd=$(find "/proc/$JOB/fd" -lname "/ckpt-$JOB-$1-*" -printf '%f\n' | sort -n | head -n 1)
	# ppoll, whose sixth argument means nothing
	grep -qsE "^271( 0x[0-9a-f]+){5} 0x$(printf '%x' "$fd") " "/proc/$JOB/syscall"
}

# Not where we are too slow: then it is over, or another queue's turn.
take_and_see() {
	KEEP=(CKPT_WITHOUT=haste)
	door take "$RUN" --overwrite -o "$CHAIN" --once --pid "$JOB"
	until_true 20 out_or_over "$1" && queue_is_out "$1" && return
	exit_of "$DOOR_PID" 20
	return 1
}

out_or_over() {
	queue_is_out "$1" || is_gone "$DOOR_PID"
}

# None of those that the others wait for, which nobody may read.
no_semaphores() {
	! grep -qE '^ *0 +[0-9]+ +222 ' /proc/sysvipc/sem
}

@test "SIGKILL for ckpt-run and its tracer while messages are out: nobody finds room in the queue" {
	local where i tries
	can_attach || skip "Yama lets only parents trace"
	for where in here apart; do
		rm -f "$BASE".*
		door mqueue "$VICTIMS/victim-mqueue" "$BASE" "$where"
		JOB=$DOOR_PID
		SUP_PID=''
		wait_victim '^ready '
		for i in 0 2; do
			tries=0
			until take_and_see "$i"; do
				[ $((tries += 1)) -lt 20 ] ||
					fail "queue $i is never empty" || return 1
			done
			# where we are too slow all is over by now
			# shellcheck disable=SC2046
			kill -9 "$DOOR_PID" $(descendants "$DOOR_PID") 2>/dev/null || true
			wait "$DOOR_PID" 2>/dev/null || true
			until_true 20 untraced "$JOB" || fail "$where: traced"
			victim_poke || fail "$where: $(victim_failed)" || return 1
		done
		for i in 2 2=kill 3=kill 3=killall; do
			KEEP=("CKPT_FAULT=inject-held:$i")
			door take "$RUN" --overwrite -o "$CHAIN" --once --pid "$JOB"
			exit_of "$DOOR_PID" 20 || return 1
			[ "$STATUS" -ne 0 ] || fail "$where, $i: no fault" || return 1
			until_true 20 untraced "$JOB" || fail "$where, $i: traced"
			victim_poke || fail "$where, $i: $(victim_failed)" || return 1
		done
		until_true 20 no_semaphores || fail "$where: a semaphore is left"
		ln -sfn quit "$BASE.poke"
		wait_victim '^ok quit'
	done
}

@test "SIGKILL for ckpt-run and its tracer while the job looks into its queues and semaphores" {
	local i victim moments=$(((CKPT_TEST_MOMENTS + 9) / 10))
	local seed=${CKPT_TEST_SEED:-$RANDOM}
	can_attach || skip "Yama lets only parents trace"
	echo "seed $seed (CKPT_TEST_SEED)"
	RANDOM=$seed
	for victim in mqueue semundo; do
		rm -rf "$CHAIN" "$BASE".*
		door "$victim" "$VICTIMS/victim-$victim" "$BASE"
		JOB=$DOOR_PID
		SUP_PID=''
		wait_victim '^ready '
		for ((i = 0; i < moments; i++)); do
			door take "$RUN" --overwrite -o "$CHAIN" -i 0.01 --pid "$JOB"
			sleep "0.$(printf '%05d' $((RANDOM % 10000)))"
			# shellcheck disable=SC2046
			kill -9 "$DOOR_PID" $(descendants "$DOOR_PID") 2>/dev/null || true
			wait "$DOOR_PID" 2>/dev/null || true
			until_true 20 untraced "$JOB" || fail "moment $i of seed $seed: traced"
			victim_poke ||
				fail "moment $i of seed $seed: $(victim_failed)" || return 1
		done
		ln -sfn quit "$BASE.poke"
		wait_victim '^ok quit'
	done
}

@test "SIGKILL for ckpt-run and its tracer while they look into sockets" {
	local nth
	can_attach || skip "Yama lets only parents trace"
	door sock_flight "$VICTIMS/victim-sock_flight" "$BASE"
	JOB=$DOOR_PID
	SUP_PID=''
	wait_victim '^ready '
	for nth in 1 2 3; do
		KEEP=("CKPT_FAULT=capture-peeked:$nth=killall")
		door take "$RUN" --overwrite -o "$CHAIN" --once --pid "$JOB"
		exit_of "$DOOR_PID" 20 || return 1
		[ "$STATUS" -eq 137 ] || fail "$nth: not killed: $STATUS" || return 1
		until_true 20 untraced "$JOB"
		victim_poke || fail "killed at the $nth: $(victim_failed)" || return 1
	done
	kill -9 "$JOB"
}

@test "ckpt-run can be killed in a run that it started, and the chain goes on from the last image" {
	local round
	# Where only ancestors may trace, no process but ckpt-run can, and see busy.c.
	can_attach || touch "$BASE.eintr" "$BASE.remains"
	victim_start -i 0.05 -- busy
	for round in 1 2 3; do
		until_true 20 more_taken_than 3
		kill -9 "$SUP_PID"
		wait "$SUP_PID" 2>/dev/null || true
		SUP_PID=''
		# The job goes on alone (in a pid namespace of its own it may go with its init);
		# then it dies too.
		local left
		left=$(test_processes)
		[ -z "$left" ] || kill -9 $left 2>/dev/null || true
		for p in $left; do
			until_true 20 pid_free "$p"
		done
		# A temporary file may be there of the image in work; the next writer removes it.
		fg 60 "$INSPECT" --verify "$CHAIN" > verify.stdout
		rm -f "$STATS"
		victim_restart
	done
	victim_quit
}

@test "what the job wrote and closed is on disk before the image; it wrote nothing: nothing waits" {
	local n
	on_disk() { grep -c 'the file system of .* is on disk' "$T/run1.stderr"; }
	KEEP=(CKPT_DEBUG=dump)
	victim_start -- empty
	KEEP=()
	checkpoint
	n=$(on_disk)
	[ "$n" -ge 1 ]
	checkpoint
	[ "$(on_disk)" -eq "$n" ] || fail "synced though nothing was written"
	# The victim's words go to a file that it opens and closes again.
	victim_poke
	checkpoint
	[ "$(on_disk)" -gt "$n" ] || fail "not synced: $(cat "$T/run1.stderr")"
	victim_quit
}

@test "a restart that fails or is killed at any point leaves no process and the chain as it was" {
	local name points sum
	victim_start --no-snapshot -- threads 8
	checkpoint
	victim_kill
	restart_points
	points=$(awk '!seen[$0]++' <<< "$POINTS")
	[ "$(wc -w <<< "$points")" -ge 5 ] || fail "only these fault points: $points"
	sum=$(sha256sum "$CHAIN"/*.img)
	for name in $points; do
		KEEP=("CKPT_FAULT=$name")
		run fg 40 "$RESTART" --no-checkpoint "$CHAIN"
		KEEP=()
		[[ $output == *"injected fault"* ]] || fail "$name: exit $status: $output" ||
			return 1
		[ "$status" -ne 0 ] && [ "$status" -lt 128 ] || fail "$name: exit $status" ||
			return 1
		until_true 10 nothing_left || fail "$name failed and left: $(left_names)" ||
			return 1
		KEEP=("CKPT_FAULT=$name=kill")
		run fg 40 "$RESTART" --no-checkpoint "$CHAIN"
		KEEP=()
		until_true 10 nothing_left || fail "$name killed and left: $(left_names)" ||
			return 1
		[ "$(sha256sum "$CHAIN"/*.img)" = "$sum" ] || fail "$name touched the images" ||
			return 1
	done
	victim_restart
	victim_quit
}

left_names() {
	local p
	for p in $(test_processes); do
		echo "$p $(tr '\0' ' ' < "/proc/$p/cmdline" 2>/dev/null)"
	done
}
