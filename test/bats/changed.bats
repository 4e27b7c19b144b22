#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# What has changed is found: random changes of memory, an increment every few of them, every byte
# compared; merges, and restarts from random points of the chain; for each tracker and mode.

load ../lib/common

: "${CKPT_TEST_SEED:=$(date +%s%N | cut -c 6-15)}"
: "${CKPT_TEST_ROUNDS:=4}" # rounds of each test
: "${CKPT_TEST_INCREMENTS:=40}" # of each round
COMPARE=$CKPT_BUILD/test/compare/compare
PATIENCE=60

setup() {
	common_setup
	SEED=$((10#$CKPT_TEST_SEED % 1000000007))
	RANDOM=$((SEED % 32768))
	echo "CKPT_TEST_SEED=$CKPT_TEST_SEED"
}

teardown() {
	give_back
	common_teardown
}

# --- swap and KSM, which are the whole machine's --------------------------------------------------

KSM=/sys/kernel/mm/ksm

# set_ksm SETTING VALUE: what it was is put back by give_back.
set_ksm() {
	local was
	was=$(cat "$KSM/$1") && echo "$1 $was" >> "$T/ksm" && echo "$2" > "$KSM/$1"
}

give_back() {
	local name value
	[ ! -e "$T/swap" ] || swapoff "$T/swap" 2>/dev/null || true
	rm -f "$T/swap"
	[ ! -e "$T/ksm" ] || while read -r name value; do
		echo "$value" > "$KSM/$name"
	done <<< "$(tac "$T/ksm")"
}

counted() {
	sed -n "s/^$1 //p" /proc/vmstat
}

# Pages go to a swap file when the victim says so (MADV_PAGEOUT), and like ones are made one all the
# time, as fast as can be; or skip.
swap_and_merge() {
	is_root || skip "needs root: swapon(8), and ksmd's settings"
	command -v mkswap swapon swapoff > "$T/why" || skip "no mkswap, swapon, swapoff"
	[ -e "$KSM/run" ] || skip "this kernel has no KSM"
	fallocate -l 64M "$T/swap" && chmod 600 "$T/swap" && mkswap "$T/swap" > "$T/why" 2>&1 &&
		swapon "$T/swap" 2> "$T/why" || skip "no swapping here: $(tail -n 1 "$T/why")"
	{ set_ksm run "$(cat "$KSM/run")" && set_ksm pages_to_scan 4000 &&
		set_ksm sleep_millisecs 1 && set_ksm run 1; } 2> "$T/why" ||
		skip "ksmd cannot be set here: $(tail -n 1 "$T/why")"
	SWAPPED=$(counted pswpout)
	MERGED=$(counted cow_ksm)
}

# pressed COMMAND...: again until it came to that: pages swapped out, and merged ones written to;
# with other steps each time, since those of a seed may leave nothing that could be merged.
pressed() {
	local end=$((SECONDS + 2 * CKPT_TEST_WAIT))
	for (( ; SECONDS < end; SEED++)); do
		rm -rf "$CHAIN" "$BASE".[opf]* "$STATS"
		"$@" || return 1
		[ "$(counted pswpout)" -gt "$SWAPPED" ] && [ "$(counted cow_ksm)" -gt "$MERGED" ] &&
			return
	done
	fail "pages swapped out: $SWAPPED, then $(counted pswpout); merged ones copied: $MERGED," \
		"then $(counted cow_ksm)"
}

below() {
	echo $(((RANDOM * 32768 + RANDOM) % $1))
}

# job_pid [VICTIM]
job_pid() {
	victim_pid "${1:-changed}"
}

# In sigwaitinfo(), and all its own (not in the middle of being restarted).
is_resting() {
	local pid
	pid=$(job_pid) && grep -qs '^128 ' "/proc/$pid/syscall" && untraced "$pid"
}

# Victims of rounds() rest until they are told that a poke is coming.
wake_poke() {
	if [ -n "$RESTS" ]; then
		until_true "$CKPT_TEST_WAIT" is_resting || fail "the victim does not rest" ||
			return 1
		ln -sfn "t$((TOKENS + 1))" "$BASE.poke" # as victim_poke will do
		kill -USR2 "$(job_pid)" || return 1
	fi
	victim_poke || return 1
	[ -z "$RESTS" ] || until_true "$CKPT_TEST_WAIT" is_resting ||
		fail "the victim does not rest"
}

restart() {
	STARTS=$((STARTS + 1))
	door "restart$STARTS" "$RESTART" "$@" "$CHAIN"
	SUP_PID=$DOOR_PID
	wake_poke
}

quit() {
	ln -sfn quit "$BASE.poke"
	[ -z "$RESTS" ] || kill -USR2 "$(job_pid)" || return 1
	victim_quit
}

# The newest state is what the victim, which rests, has in its memory.
compare() {
	local out status=0
	out=$(fg "$PATIENCE" "$COMPARE" "$CHAIN" "$(job_pid)" 2>&1) || status=$?
	[ "$status" -eq 0 ] || fail "after image $(stats_last seq): $out"
}

# drive STEPS: that many, an increment, compared; again and again.
drive() {
	local out status=0
	out=$(fg 600 "$COMPARE" "$CHAIN" "$(job_pid)" "$SUP_PID" "$STATS" \
		"$CKPT_TEST_INCREMENTS" "$1" 2>&1) || status=$?
	[ "$status" -eq 0 ] || fail "after image $(stats_last seq): $out" || return 1
	STEPS=$((STEPS + CKPT_TEST_INCREMENTS * $1))
}

# Now and then: from any state that the chain still has, merged before or not.
restart_somewhere() {
	local images n args=()
	victim_kill || return 1
	images=("$CHAIN"/*.img) # none is merged away any more
	n=$(below ${#images[@]})
	if [ "$(below 3)" -eq 0 ]; then
		fg "$PATIENCE" "$MERGE" -q "$CHAIN" || fail "merge" || return 1
	elif [ "$(below 2)" -eq 0 ]; then
		args=(--at "$((10#$(basename "${images[$n]}" .img)))")
	fi
	restart "${args[@]}"
}

# rounds STEPS OPTIONS...: STEPS steps, then a checkpoint, compared; in each round many times.
rounds() {
	local steps=$1 i
	shift
	RESTS=yes STEPS=0
	is_root || touch "$BASE.userns"
	victim_start --keep 1000 --full-every 12 "$@" -- changed "$SEED" "$steps" ||
		return 1
	wake_poke || return 1
	for ((i = 0; i < CKPT_TEST_ROUNDS; i++)); do
		drive "$steps" || return 1
		if [ "$(below 2)" -eq 0 ]; then
			restart_somewhere || return 1
		fi
	done
	wake_poke || return 1
	victim_kill || return 1
	restart || return 1
	quit || return 1
	echo "$STEPS steps"
}

# runs OPTIONS...: the victim changes its memory all the time; what is restarted is one instant.
runs() {
	local i
	RESTS=
	is_root || touch "$BASE.userns"
	victim_start --keep 1000 --full-every 12 "$@" -- changed "$SEED" run || return 1
	for ((i = 0; i < CKPT_TEST_ROUNDS; i++)); do
		checkpoint || return 1
		if [ "$(below 3)" -eq 0 ]; then
			wake_poke || return 1
			restart_somewhere || return 1
		fi
	done
	victim_kill || return 1
	restart || return 1
	wake_poke || return 1
	quit
}

# joins: each huge page that a checkpoint has split is whole again after the next (dump/mend.c).
joins() {
	KEEP=(CKPT_WITHOUT=worth_mending,worth_walking)
}

@test "uffd, copied while stopped: every byte, after every few steps" {
	has_tracker uffd
	joins
	rounds 125 --tracker uffd --mode stop
}

@test "uffd, copied ahead: every byte" {
	has_tracker uffd
	joins
	rounds 400 --tracker uffd --mode precopy
	grep -q '"incremental".*"mode": "precopy"' "$STATS" || fail "nothing was copied ahead"
}

@test "uffd, copied ahead while the memory changes: one instant" {
	has_tracker uffd
	runs --tracker uffd --mode precopy
	# a restart may come after each checkpoint, so that all are full
	grep -q '"mode": "precopy"' "$STATS" || fail "nothing was copied ahead"
}

@test "uffd, copied while stopped, while the memory changes: one instant" {
	has_tracker uffd
	joins
	runs --tracker uffd --mode stop
}

# pins HOW: memory is written to through pins all the time; five checkpoints, restarts.
pins() {
	local i
	has_tracker uffd
	is_root || touch "$BASE.userns"
	victim_start --mode precopy -- pins "$1" || return 1
	for ((i = 0; i < 5; i++)); do
		checkpoint || return 1
	done
	victim_poke || return 1
	grep -q '"incremental".*"mode": "precopy"' "$STATS" || fail "nothing was copied ahead" ||
		return 1
	victim_kill || return 1
	victim_restart || return 1
	victim_poke || return 1
	victim_kill
}

@test "copied ahead while files are read with O_DIRECT: one instant" {
	pins direct
}

@test "copied ahead while a process writes into another's memory (process_vm_writev): one instant" {
	pins writev
}

@test "copied ahead while a process writes into another's memory (/proc/PID/mem): one instant" {
	pins mem
}

# With a context there it is refused; once that has gone, so has all that was under way.
@test "asynchronous I/O: refused by name while it is there, one instant when it has gone" {
	local i
	has_tracker uffd
	is_root || touch "$BASE.userns"
	victim_start --mode precopy -- pins aio
	for ((i = 0; i < 300; i++)); do
		attempt
		[ "$(grep -c '"result": "ok"' "$STATS")" -lt 3 ] || break
	done
	[ "$(grep -c '"result": "ok"' "$STATS")" -ge 3 ] || fail "never saved: $(cat "$STATS")"
	grep '"result": "failed"' "$STATS" | grep -v 'Linux AIO context' && fail "other failures"
	victim_poke
	victim_kill
	victim_restart
	victim_poke
	victim_kill
}

@test "what a process outside the job wrote into it is found" {
	local i area
	has_tracker uffd
	is_root || touch "$BASE.userns"
	victim_start --mode precopy -- pins idle
	area=$(sed -n 's/^area //p' "$BASE.out")
	for i in 1 2 3 4; do
		run fg 20 "$VICTIMS/victim-pins" "$T/outside" into "$(job_pid pins)" "$area" "$i"
		[ "$status" -eq 0 ] || fail "$output $(cat "$T/outside.out")"
		checkpoint
		[ "$(stats_last pages_written)" -gt 4000 ]
	done
	victim_kill
	victim_restart
	[ "$(sed -n 's/^round //p' "$BASE.out" | tail -n 1)" = 4 ]
	victim_quit
}

# What had been found, and forgotten by the kernel, before the attempt failed.
@test "uffd: an attempt that fails loses nothing of what was found" {
	local point mode
	has_tracker uffd
	is_root || touch "$BASE.userns"
	RESTS=yes
	for point in image-fsync:2 dump-found:2 dump-found:3 dump-captured:2 dump-copied-ahead:2 \
		dump-barrier:2; do
		mode=stop
		case $point in dump-copied-ahead* | dump-barrier*) mode=precopy ;; esac
		rm -rf "$CHAIN" "$BASE".[opf]* "$STATS"
		KEEP=("CKPT_FAULT=$point")
		victim_start --mode "$mode" -- changed "$SEED" 300 || return 1
		KEEP=()
		for _ in 1 2 3 4; do
			wake_poke || return 1
			real_attempt || return 1
			[ "$(stats_last result)" != ok ] || compare || return 1
		done
		[ "$(stats_last result)" = ok ] || fail "$point: $(tail -n 1 "$STATS")" || return 1
		grep -q "injected fault" "$STATS" || fail "$point: nothing failed" || return 1
		quit || return 1
	done
}

# A mapping that loses its registration, is written to, and gets it again, while its pages keep the
# marks of the first one: what is written to them after that is found all the same.
@test "half of a mapping is moved away and back, its pages written to before and after" {
	local how i
	has_tracker uffd
	is_root || touch "$BASE.userns"
	for how in stop precopy; do
		rm -rf "$CHAIN" "$BASE".[op]* "$STATS"
		victim_start --tracker uffd --mode "$how" -- mem_swing || return 1
		for i in 1 2 3 4 5; do
			checkpoint || return 1
			victim_poke || return 1
		done
		checkpoint || return 1
		victim_kill || return 1
		victim_restart || fail "$how" || return 1
		victim_kill || return 1
	done
}

@test "softdirty: every byte" {
	has_tracker softdirty
	rounds 125 --tracker softdirty --mode stop
}

@test "hash: every byte" {
	rounds 125 --tracker hash --mode stop
}

# What has been read, and what is as before, the copy gives up at once.
@test "uffd, read from a snapshot while the memory changes: one instant" {
	has_tracker uffd
	KEEP=(CKPT_WITHOUT=worth_giving_up)
	runs --tracker uffd --mode snapshot
	grep -q '"mode": "snapshot"' "$STATS" || fail "there was no snapshot"
}

@test "hash, read from a snapshot while the memory changes: one instant" {
	KEEP=(CKPT_WITHOUT=worth_giving_up)
	runs --tracker hash --mode snapshot
	grep -q '"mode": "snapshot"' "$STATS" || fail "there was no snapshot"
}

@test "full images copied ahead while the memory changes: one instant" {
	has_tracker uffd
	runs --no-incremental --mode precopy
	grep -q '"full".*"mode": "precopy"' "$STATS" || fail "nothing was copied ahead"
}

faults() {
	cut -d ' ' -f 10 "/proc/$(job_pid mem_all)/stat"
}

# What changes nearly all of its memory is not watched for the time being: no first write to a page
# faults. Some full images later it is tried again.
@test "a job that writes to all of its memory is left alone, and watched again when it is calm" {
	local how kinds before
	has_tracker uffd
	is_root || touch "$BASE.userns"
	for how in precopy snapshot stop; do
		victim_start --mode "$how" --keep 20 -- mem_all 4
		checkpoint
		victim_poke
		checkpoint
		victim_poke
		checkpoint
		before=$(faults)
		victim_poke
		[ "$how" = snapshot ] || [ $(($(faults) - before)) -lt 2000 ] ||
			fail "$how: $(($(faults) - before)) faults"
		for _ in 4 5 6 7; do
			checkpoint
			victim_poke
		done
		victim_kill
		kinds=$(stats_row kind | cut -c 1 | tr -d '\n')
		[ "$kinds" = fiffffi ] || fail "$how: $kinds: $(cat "$STATS")"
		victim_restart --no-checkpoint --at 4
		victim_kill
		victim_restart
		victim_quit
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
}

@test "swap and KSM, uffd: every byte" {
	has_tracker uffd
	swap_and_merge
	CKPT_TEST_ROUNDS=1
	KEEP=(CKPT_WITHOUT=worth_walking)
	pressed rounds 125 --tracker uffd --mode stop
}

@test "swap and KSM, softdirty: every byte" {
	has_tracker softdirty
	swap_and_merge
	CKPT_TEST_ROUNDS=1
	pressed rounds 125 --tracker softdirty --mode stop
}

@test "swap and KSM, hash: every byte" {
	swap_and_merge
	CKPT_TEST_ROUNDS=1
	pressed rounds 125 --tracker hash --mode stop
}

@test "swap and KSM, copied ahead while the memory changes: one instant" {
	has_tracker uffd
	swap_and_merge
	pressed runs --tracker uffd --mode precopy
}

@test "whatever is taken by itself: one instant" {
	runs
}

# What is predicted, and what comes of it: a large job is copied ahead, also into full images; a
# small one not. At the prices that stand before the first checkpoint: what a busy machine's would
# teach is that machine's (test/unit/dump/policy.c has them all).
@test "the mode is chosen by the job's size, and --stats says why" {
	has_tracker uffd
	KEEP=(CKPT_WITHOUT=experience)
	victim_start --no-incremental -- unseen memory 128
	checkpoint
	checkpoint
	checkpoint
	[ "$(stats_last kind) $(stats_last mode)" = "full precopy" ] || fail "$(cat "$STATS")"
	grep -q '"why": "predicted ms: stop [0-9.]*, snapshot [0-9.]*, precopy [0-9.]*"' "$STATS"
	victim_quit
	rm -rf "$CHAIN" "$STATS" "$BASE".*
	victim_start --no-incremental -- empty
	checkpoint
	checkpoint
	! grep -v '"mode": "stop"' "$STATS" || fail "$(cat "$STATS")"
	victim_quit
	rm -rf "$CHAIN" "$STATS" "$BASE".*
	victim_start --mode stop -- empty
	checkpoint
	grep -q '"why": "asked for stop"' "$STATS"
	victim_quit
}

# What the program protects and looks for is its own business: the victim finds exactly what it
# wrote.
@test "memory under a userfaultfd of the program's own, which is left out: all that is there" {
	local how
	is_root || touch "$BASE.userns"
	for how in "auto auto" "auto precopy" "auto snapshot" "hash stop"; do
		rm -rf "$CHAIN" "$BASE".[op]* "$STATS"
		victim_start --tracker "${how% *}" --mode "${how#* }" --fd 9=close -- mem_uffd
		for _ in 1 2 3; do
			victim_poke || return 1
			checkpoint || return 1
			checkpoint || return 1
		done
		grep -q '"mode": "stop"' "$STATS" || fail "$how: $(cat "$STATS")" || return 1
		! grep -qE '"mode": "(precopy|snapshot)"' "$STATS" ||
			fail "$how: $(cat "$STATS")" || return 1
		victim_poke || return 1
		victim_kill || return 1
		victim_restart || fail "$how" || return 1
		checkpoint || return 1
		victim_poke || return 1
		victim_kill || return 1
		victim_restart || fail "$how" || return 1
		victim_quit || return 1
	done
}

copies_ahead() {
	grep -q '^State:[[:space:]]*T' "/proc/$SUP_PID/status"
}

# It stands still in each round.
continued_and_taken() {
	kill -CONT "$SUP_PID"
	more_taken_than 0
}

# What had been copied ahead is taken back, and what is read instead is not.
@test "a program opens a userfaultfd while its memory is copied ahead" {
	has_tracker uffd
	is_root || touch "$BASE.userns"
	KEEP=("CKPT_FAULT=dump-copied-ahead=stop")
	victim_start --tracker uffd --mode precopy --fd 9=close -- mem_all 0 uffd
	KEEP=()
	kill -USR1 "$SUP_PID"
	until_true "$CKPT_TEST_WAIT" copies_ahead || fail "ckpt-run does not stop"
	victim_poke
	until_true "$CKPT_TEST_WAIT" continued_and_taken
	[ "$(stats_last result)" = ok ] || fail "$(cat "$STATS")"
	victim_kill
	victim_restart --no-checkpoint
	victim_poke
	victim_quit
}

@test "memory that was under a userfaultfd until the program closed it" {
	three_generations mem_uffd closed
}
