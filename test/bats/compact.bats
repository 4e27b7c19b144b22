#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# --keep: old increments become one full image in the background; killed at any instant, what is
# kept restarts.

load ../lib/common

begin() { # VICTIM [CKPT-RUN OPTIONS]
	local name=$1
	shift
	is_root || touch "$BASE.userns"
	victim_start --no-snapshot --full-every 1000 "$@" -- "$name"
	checkpoint
}

first_image() {
	(cd "$CHAIN" && set -- *.img && echo "$1")
}

compacted() {
	[ "$(first_image)" != 000001.img ]
}

compacted_or_gone() {
	compacted || is_gone "$SUP_PID"
}

# Increments, until there has been a merge or, with a killing fault, ckpt-run is gone. A merge in
# the background may take longer than many increments.
go_on() {
	local i
	for i in $(seq 60); do
		! compacted || return 0
		victim_poke || is_gone "$SUP_PID" || return 1
		checkpoint > /dev/null 2>&1 || ! is_gone "$SUP_PID" || return 0
	done
	until_true "$CKPT_TEST_WAIT" compacted_or_gone || fail "60 increments, and no merge"
}

few_images() {
	[ "$(ls "$CHAIN" | grep -c 'img$')" -lt 10 ]
}

@test "old increments are merged, what is kept restarts, memory stays bounded" {
	begin mem_anon --keep 3
	go_on
	until_true "$CKPT_TEST_WAIT" compacted
	checkpoint
	for _ in $(seq 30); do # those made meanwhile are merged in their turn
		! few_images || break
		checkpoint
		for _ in $(seq 100); do few_images && break || sleep 0.02; done
	done
	few_images || fail "$(ls "$CHAIN")"
	[ "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$SUP_PID/status")" -lt 65536 ]
	victim_poke
	victim_kill
	# from here on nobody merges in the background
	first=$(first_image)
	run "$INSPECT" --verify "$CHAIN"
	echo "$output"
	[ "$status" -eq 0 ]
	[ "$("$INSPECT" --json --at "$((10#${first%.img}))" "$CHAIN" | jq -r .image.kind)" = full ]
	victim_restart --no-checkpoint --at "$((10#${first%.img}))"
	victim_kill
	victim_restart
	victim_poke
	victim_quit
}

@test "killed in the middle of it, at every step" {
	local point
	for point in compact-begin merge-written compact-tidy merge-remove; do
		echo "$point"
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		KEEP=("CKPT_FAULT=$point=kill")
		begin mem_remap
		go_on
		until_true "$CKPT_TEST_WAIT" is_gone "$SUP_PID"
		victim_kill || true
		kill -9 "$VICTIM_PID" 2> /dev/null || true
		wait_gone "$VICTIM_PID"
		KEEP=()
		victim_restart
		victim_poke
		checkpoint
		# from here on nobody merges in the background
		victim_quit
		"$INSPECT" --verify "$CHAIN"
		[ -z "$(find "$CHAIN" -name '.*.tmp')" ]
	done
}

@test "a merge that fails is said, tried again, and harms nothing" {
	KEEP=(CKPT_FAULT=merge-written)
	begin mem_remap
	go_on
	until_true "$CKPT_TEST_WAIT" compacted
	wait_line "$T/run1.stderr" "injected fault"
	victim_poke
	victim_kill
	KEEP=()
	victim_restart
	victim_quit
}

@test "SIGKILL at random moments" {
	local i j seed=${CKPT_TEST_SEED:-$RANDOM} n=${CKPT_TEST_ROUNDS:-4}
	echo "CKPT_TEST_SEED=$seed"
	RANDOM=$seed
	begin mem_remap --keep 1
	for ((i = 0; i < (n < 8 ? n : 8); i++)); do
		for ((j = 0; j < 9; j++)); do
			victim_poke
			checkpoint
		done
		sleep "0.0$((RANDOM % 10))"
		victim_kill
		victim_restart
		checkpoint
	done
	"$INSPECT" --verify "$CHAIN"
	victim_quit
}
