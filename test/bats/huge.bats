#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Transparent huge pages of the job that a checkpoint splits come back; nobody in it notices how.

load ../lib/common

MIB=16

job_pid() {
	victim_pid mem_huge
}

# MiB in huge pages.
huge_mib() {
	awk '/^AnonHugePages:/ { kb += $2 } END { print int(kb / 1024) }' "/proc/$(job_pid)/smaps"
}

# Nearly all: on a machine that is short of memory there may be no room for one just then.
is_mended() {
	local mib
	mib=$(huge_mib)
	[ "$mib" -ge $((MIB / 4 * 3)) ] || fail "$mib of $MIB MiB are in huge pages"
}

# In all processes together, by khugepaged: eight are scanned each ten seconds, and may be ours.
kernel_joined() {
	cat /sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed
}

KERNEL_JOINED=$(kernel_joined 2>/dev/null) || true # for each test: when this file is read

is_split() {
	local mib
	mib=$(huge_mib)
	[ "$mib" -le $((MIB / 2)) ] || [ "$(kernel_joined)" != "$KERNEL_JOINED" ] ||
		fail "$mib of $MIB MiB are in huge pages: this shows nothing"
}

# Processes of ours in the job.
helpers() {
	local p
	for p in $(test_processes); do
		case $(cat "/proc/$p/comm" 2>/dev/null) in
		ckpt-mender | ckpt-snapshot) is_gone "$p" || echo "$p" ;;
		esac
	done
}

no_helpers() {
	[ -z "$(helpers)" ]
}

has_uffd() {
	has_tracker uffd
}

# huge_start OPTIONS...: a job whose next checkpoint stands still, once, with the job running again.
huge_start() {
	is_root || touch "$BASE.userns"
	KEEP=("CKPT_FAULT=${POINT:-dump-thawed}=stop")
	victim_start "$@" -- mem_huge "$MIB" || return 1
	KEEP=()
}

# While that checkpoint goes on the job writes to all its memory.
written_meanwhile() {
	kill -USR1 "$SUP_PID"
	until_true "$CKPT_TEST_WAIT" find_stopped || fail "no checkpoint stands still" || return 1
	victim_poke || return 1
	${1:-:} || return 1
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 0 || fail "no checkpoint came" || return 1
	[ "$(stats_last result)" = ok ] || fail "checkpoint: $(tail -n 1 "$STATS")"
}

# Increments and a restart after memory has been joined: every byte is there.
goes_on() {
	victim_poke || return 1
	checkpoint || return 1
	checkpoint || return 1
	victim_kill || return 1
	victim_restart || return 1
	checkpoint || return 1
	victim_poke || return 1
	victim_quit
}

@test "what a snapshot splits is whole again when the checkpoint is done" {
	huge_start --mode snapshot --tracker hash
	written_meanwhile is_split
	is_mended
	goes_on
}

@test "what a snapshot and the watch split is whole again" {
	has_uffd
	huge_start --mode snapshot --tracker uffd
	written_meanwhile is_split
	is_mended
	goes_on
}

@test "what the watch splits is whole again" {
	local mode
	has_uffd
	for mode in stop precopy; do
		is_root || touch "$BASE.userns"
		victim_start --mode "$mode" --tracker uffd -- mem_huge "$MIB"
		checkpoint
		victim_poke
		is_split
		checkpoint
		is_mended
		goes_on || fail "mode $mode" || return 1
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
}

@test "where a fork is refused, huge pages are watched from then on" {
	has_uffd
	KEEP=(CKPT_FAULT=snapshot-start)
	victim_start --mode snapshot -- mem_huge "$MIB"
	KEEP=()
	checkpoint
	[ "$(stats_last tracker) $(stats_last mode)" = "hash stop" ]
	checkpoint
	[ "$(stats_last tracker)" != hash ] || fail "$(tail -n 1 "$STATS")"
	victim_poke
	victim_quit
}

@test "what is mostly in huge pages is not watched, where the job is forked at its checkpoints" {
	local how
	has_uffd
	for how in "auto hash" "stop uffd" "precopy uffd"; do
		is_root || touch "$BASE.userns"
		victim_start --mode "${how% *}" -- mem_huge "$MIB"
		checkpoint
		[ "$(stats_last tracker)" = "${how#* }" ] || fail "$how: $(tail -n 1 "$STATS")" ||
			return 1
		victim_poke
		[ "$how" != "auto hash" ] || is_mended
		goes_on || fail "$how" || return 1
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
}

@test "another tracker takes over from one image to the next, and back" {
	has_uffd
	is_root || touch "$BASE.userns"
	victim_start --mode auto -- mem_huge "$MIB" swings
	checkpoint
	[ "$(stats_last tracker)" = uffd ]
	victim_poke # now it has the huge pages
	checkpoint
	[ "$(stats_last kind) $(stats_last tracker)" = "incremental hash" ] ||
		fail "$(tail -n 1 "$STATS")"
	victim_poke # and now small ones
	checkpoint
	checkpoint
	# uffd; or none, for a while, since all has been written to
	[ "$(stats_last tracker)" != hash ] || fail "$(tail -n 1 "$STATS")"
	victim_poke
	checkpoint
	victim_kill
	victim_restart
	victim_poke
	victim_quit
}

# A second checkpoint, which has something to join, up to where the first of it has been.
until_joining() {
	checkpoint || return 1
	victim_poke || return 1
	kill -USR1 "$SUP_PID"
}

@test "while memory is joined nobody in the job sees by whom" {
	has_uffd
	POINT=dump-mended huge_start --mode stop --tracker uffd
	until_joining
	until_true "$CKPT_TEST_WAIT" find_stopped || fail "nothing is joined"
	[ "$(helpers | wc -w)" -eq 1 ] || fail "helpers: $(helpers)"
	victim_poke
	kill -CONT "$STOPPED"
	until_true "$CKPT_TEST_WAIT" more_taken_than 1
	no_helpers || fail "left: $(helpers)"
	goes_on
}

@test "a job may end while its memory is joined" {
	has_uffd
	POINT=dump-mended huge_start --mode stop --tracker uffd
	until_joining
	until_true "$CKPT_TEST_WAIT" find_stopped || fail "nothing is joined"
	ln -sfn quit "$BASE.poke"
	wait_victim '^ok quit$'
	kill -CONT "$STOPPED"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	SUP_PID=''
	[ "$STATUS" -eq 0 ] || fail "exit status $STATUS"
	until_true "$CKPT_TEST_WAIT" nothing_left || fail "left: $(test_processes)"
}

# It would keep the binary from being written to, and System V segments attached.
@test "a job that ends while its image is written leaves its memory with nobody" {
	has_uffd
	POINT=dump-finish huge_start --mode stop --tracker uffd
	kill -USR1 "$SUP_PID"
	until_true "$CKPT_TEST_WAIT" find_stopped || fail "no checkpoint stands still"
	[ "$(helpers | wc -w)" -eq 1 ] || fail "helpers: $(helpers)"
	ln -sfn quit "$BASE.poke"
	wait_victim '^ok quit$'
	until_true "$CKPT_TEST_WAIT" no_helpers || fail "left: $(helpers)"
	kill -CONT "$STOPPED"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	SUP_PID=''
	[ "$STATUS" -eq 0 ] || fail "exit status $STATUS"
	until_true "$CKPT_TEST_WAIT" nothing_left || fail "left: $(test_processes)"
}

@test "memory that was given up does not come back" {
	has_uffd
	victim_start --mode stop --tracker uffd -- mem_huge "$MIB" holes
	checkpoint
	victim_poke
	checkpoint
	is_split
	victim_poke
	victim_quit
}

# huge_restart HOW OPTIONS...: a checkpoint of that kind of memory, SIGKILL, and a restart.
huge_restart() {
	local how=$1
	is_root || touch "$BASE.userns"
	victim_start --mode stop --tracker hash -- mem_huge "$MIB" "$how" || return 1
	victim_poke || return 1
	checkpoint || return 1
	victim_kill || return 1
	restart_from "${@:2}" || return 1
}

# restart_from OPTIONS...
restart_from() {
	door again "$RESTART" "$@" "$CHAIN"
	SUP_PID=$DOOR_PID
	until_true "$CKPT_TEST_WAIT" job_pid > /dev/null || fail "no restart: $(cat "$BASE".*err)"
}

keeper_gone() {
	local p
	for p in $(test_processes); do
		case $(cat "/proc/$p/comm" 2>/dev/null) in
		ckpt-keeper | ckpt-guard | ckpt-mender) is_gone "$p" || return 1 ;;
		esac
	done
}

# restarted_as HOW OPTIONS...: the same, up to when it is seen to have what it had.
restarted_as() {
	huge_restart "$@" || return 1
	until_true "$CKPT_TEST_WAIT" keeper_gone || return 1
	case $1 in
	whole | joined) is_mended || return 1 ;;
	esac
	victim_poke || return 1
	victim_quit
	rm -rf "$CHAIN" "$STATS" "$BASE".*
}

@test "a restart brings huge pages back" {
	local how lazy
	has_uffd # PAGEMAP_SCAN says which there were
	for how in whole joined; do
		for lazy in "" --lazy; do
			restarted_as "$how" $lazy || fail "$how $lazy" || return 1
		done
	done
}

# restarted_in_all_ways HOW: eager, --lazy, and where all memory is filled by writing to it.
restarted_in_all_ways() {
	local lazy
	for lazy in "" --lazy; do
		restarted_as "$1" $lazy || fail "$1 $lazy" || return 1
	done
	KEEP=(CKPT_WITHOUT=userfaultfd)
	restarted_as "$1" || fail "$1 without userfaultfd" || return 1
	KEEP=()
}

@test "a restart brings nothing back that was given up" {
	restarted_as alone || fail "alone"
	restarted_in_all_ways holes
}

@test "a restart brings nothing back that was given up of a stack, nor huge pages not wanted" {
	restarted_in_all_ways grows
	restarted_in_all_ways small
}

# join_for PID: the kernel makes huge pages of what is there of its largest mapping.
join_for() {
	python3 - "$1" <<'EOF'
import ctypes, os, sys
pid = int(sys.argv[1])
with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
    spans = [[int(x, 16) for x in line.split()[0].split("-")] for line in maps if "rw-p" in line]
start, end = max(spans, key=lambda s: s[1] - s[0])
at = (start + (2 << 20) - 1) & -(2 << 20)
libc = ctypes.CDLL(None, use_errno=True)
iov = (ctypes.c_uint64 * 2)(at, 2 << 20)
got = libc.syscall(440, os.pidfd_open(pid), ctypes.byref(iov), ctypes.c_size_t(1), 25, 0)
sys.exit(0 if got == 2 << 20 else f"process_madvise: {os.strerror(ctypes.get_errno())}")
EOF
}

half_made() {
	local p
	for p in $(descendants "$SUP_PID"); do
		[ "$p" != "$STOPPED" ] && grep -q "rw-p" "/proc/$p/maps" 2>/dev/null || continue
		MADE=$p
		return 0
	done
	return 1
}

# As khugepaged does, or the fault itself where huge pages are given to everybody: a page is touched
# so early that nobody watches yet.
@test "--lazy: what the kernel joins before the memory is watched gets its content" {
	is_root || skip "process_madvise asks for CAP_SYS_NICE"
	victim_start --mode stop -- mem_huge "$MIB"
	victim_poke
	checkpoint
	victim_kill
	KEEP=(CKPT_FAULT=restore-mapped=stop)
	door again "$RESTART" --lazy "$CHAIN"
	KEEP=()
	SUP_PID=$DOOR_PID
	until_true "$CKPT_TEST_WAIT" find_stopped || fail "nothing stands still"
	until_true "$CKPT_TEST_WAIT" half_made || fail "no job"
	join_for "$MADE"
	kill -CONT "$STOPPED"
	victim_poke
	victim_quit
}

@test "--lazy: a job may end, or ckpt-restart be killed, while its memory is joined" {
	local how
	has_uffd
	for how in stop kill; do
		KEEP=("CKPT_FAULT=lazy-joined=$how")
		huge_restart whole --lazy || fail "$how" || return 1
		KEEP=()
		if [ "$how" = kill ]; then
			until_true "$CKPT_TEST_WAIT" keeper_gone || return 1
			victim_poke || return 1
		else
			until_true "$CKPT_TEST_WAIT" find_stopped || fail "nothing is joined" ||
				return 1
			[ "$(helpers | wc -w)" -eq 1 ] || fail "helpers: $(helpers)" || return 1
			victim_poke || return 1
			ln -sfn quit "$BASE.poke"
			wait_victim '^ok quit$' || return 1
			kill -CONT "$STOPPED"
			exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
			SUP_PID=''
			[ "$STATUS" -eq 0 ] || fail "exit status $STATUS" || return 1
		fi
		[ -z "$SUP_PID" ] || victim_quit || return 1
		until_true "$CKPT_TEST_WAIT" nothing_left || fail "left: $(test_processes)" ||
			return 1
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
}

@test "--lazy: where memory cannot be joined it stays in small pages" {
	local name
	has_uffd
	for name in companion-start companion-born companion-held companion-settled lazy-joined; do
		KEEP=("CKPT_FAULT=$name")
		huge_restart whole --lazy || fail "$name" || return 1
		KEEP=()
		until_true "$CKPT_TEST_WAIT" keeper_gone || fail "$name" || return 1
		is_split || fail "$name" || return 1
		victim_poke || fail "$name" || return 1
		victim_quit || fail "$name" || return 1
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
}

POINTS="companion-start companion-born companion-held companion-settled dump-mended"

@test "SIGKILL for ckpt-run or all of it where memory is joined leaves the job, and nobody else" {
	local name how
	has_uffd
	for how in kill killall; do
		for name in $POINTS; do
			KEEP=("CKPT_FAULT=$name=$how")
			victim_start --mode stop --tracker uffd -- mem_huge "$MIB"
			KEEP=()
			VICTIM_PID=$(job_pid)
			if [ "$name" = dump-mended ]; then
				until_joining
			else
				kill -USR1 "$SUP_PID"
			fi
			wait_gone "$SUP_PID"
			until_true 20 no_helpers || fail "$name=$how: left $(helpers)" || return 1
			until_true 20 untraced "$VICTIM_PID" || fail "$name=$how: traced" ||
				return 1
			SUP_PID=''
			victim_poke || fail "$name=$how" || return 1
			kill -9 "$VICTIM_PID"
			wait_gone "$VICTIM_PID"
			rm -rf "$CHAIN" "$STATS" "$BASE".*
		done
	done
}

@test "where it cannot be joined a checkpoint does without" {
	local name
	has_uffd
	for name in $POINTS; do
		KEEP=("CKPT_FAULT=$name")
		victim_start --mode stop --tracker uffd -- mem_huge "$MIB"
		KEEP=()
		checkpoint || fail "$name" || return 1
		victim_poke || fail "$name" || return 1
		checkpoint || fail "$name" || return 1
		no_helpers || fail "$name: left $(helpers)" || return 1
		victim_poke || fail "$name" || return 1
		victim_quit || fail "$name" || return 1
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
}
