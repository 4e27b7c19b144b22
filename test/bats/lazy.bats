#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# ckpt-restart --lazy: the job runs at once, and its memory comes while it does.
#
# CKPT_WITHOUT=background: nothing comes but what is asked for, until a call needs all of it. So it
# is certain what is missing, and for how long.

load ../lib/common

ON_DEMAND=(CKPT_WITHOUT=background)
# The same for root, as if no userfaultfd heard of what the kernel touches.
UNPRIVILEGED=(CKPT_WITHOUT=background,kernel_faults)

saved() { # NAME [ARGS]: a victim that has been saved, twice, and killed
	is_root || touch "$BASE.userns"
	victim_start --no-snapshot -- "$@" || return 1
	checkpoint || return 1
	victim_poke || return 1
	checkpoint || return 1
	victim_kill
}

job_pid() { # as seen from here
	local pid
	for pid in $(descendants "$SUP_PID"); do
		if tr '\0' '\n' < "/proc/$pid/environ" 2>/dev/null | grep -q "^CKPT_TEST_ID=$T" &&
			grep -q '^victim' "/proc/$pid/comm" 2>/dev/null; then
			echo "$pid"
			return 0
		fi
	done
	return 1
}

has_job() {
	JOB=$(job_pid)
}

keeper_of() {
	sed -n 's/^TracerPid:\t//p' "/proc/$1/status"
}

restart_begin() { # ARGS: in the background, until the job is there: JOB, KEEPER
	STARTS=$((STARTS + 1))
	door "restart$STARTS" "$RESTART" --lazy "$@" "$CHAIN"
	SUP_PID=$DOOR_PID
	until_true "$CKPT_TEST_WAIT" has_job || fail "no job" || return 1
	KEEPER=$(keeper_of "$JOB")
}

restart_ends() { # the job with it, before all its memory was there
	STARTS=$((STARTS + 1))
	door "restart$STARTS" "$RESTART" --lazy "$CHAIN"
	exit_of "$DOOR_PID" "$CKPT_TEST_WAIT" || return 1
	[ "$STATUS" -ne 0 ] && until_true 20 nothing_left
}

rss_kib() {
	sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$1/status"
}

check_let_go() {
	until_true "$CKPT_TEST_WAIT" untraced "$(job_pid)" || fail "it is still traced"
}

generations() { # NAME: like three_generations, two of them, lazily
	local generation
	is_root || touch "$BASE.userns"
	victim_start --no-snapshot -- "$@" || return 1
	victim_poke || return 1
	for generation in 1 2; do
		checkpoint || return 1
		victim_poke || return 1
		checkpoint || return 1
		victim_kill || return 1
		victim_restart --lazy || fail "generation $generation" || return 1
		victim_poke || return 1
	done
	victim_quit
}

@test "on demand alone: user and kernel touch missing pages, mappings change" {
	saved mem_lazy
	KEEP=("${ON_DEMAND[@]}")
	victim_restart --lazy
	check_let_go
	victim_poke
	checkpoint
	victim_quit
}

@test "on demand alone, without hearing of the kernel's faults" {
	saved mem_lazy
	KEEP=("${UNPRIVILEGED[@]}")
	victim_restart --lazy
	check_let_go
	victim_poke
	victim_quit
}

@test "what is not touched does not come" {
	saved mem_lazy gently
	KEEP=("${UNPRIVILEGED[@]}")
	restart_begin
	[ "$KEEPER" -gt 0 ]
	victim_poke
	victim_poke
	[ "$(rss_kib "$JOB")" -lt 20000 ] # of 24 MiB
	[ "$(keeper_of "$JOB")" = "$KEEPER" ]
}

# SIGCHLD, blocked in all threads of the keeper but its first, until the job is let go of.
no_thread_hears() {
	local task mask
	for task in /proc/"$KEEPER"/task/*; do
		[ "${task##*/}" -ne "$KEEPER" ] || continue
		mask=$(sed -n 's/^SigBlk:\t//p' "$task/status" 2>/dev/null) || true
		[ -z "$mask" ] || [ $((0x$mask >> 16 & 1)) -eq 1 ] || HEARD=$mask
	done
	untraced "$JOB"
}

# A SIGCHLD that a thread of the keeper took would leave the job stopped until all is there.
@test "who brings memory in the background takes no signal that is for the server" {
	HEARD=
	saved unseen memory 192
	restart_begin
	until_true "$CKPT_TEST_WAIT" no_thread_hears || fail "it is still traced"
	[ -z "$HEARD" ] || fail "blocked are $HEARD only"
}

@test "a checkpoint waits until all memory is there" {
	saved mem_lazy
	KEEP=("${ON_DEMAND[@]}")
	restart_begin
	before=$(stats_count)
	kill -USR1 "$SUP_PID"
	sleep 0.3 # it would be taken at once
	[ "$(stats_count)" -eq "$before" ]
	victim_poke # needs it
	until_true "$CKPT_TEST_WAIT" more_stats_than "$before"
	checkpoint # that one may have come while it had a child
	victim_kill
	KEEP=()
	victim_restart
	victim_quit
}

@test "the keeper is killed: the job goes with it, the chain is as it was" {
	saved mem_lazy gently
	for KEEP in "${ON_DEMAND[0]}" "${UNPRIVILEGED[0]}"; do
		restart_begin
		kill -9 "$KEEPER"
		wait_gone "$JOB"
		exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
		[ "$STATUS" -eq 137 ]
		wait_line "$T/restart$STARTS.stderr" "was killed before all of it was there"
		[ "$(grep -c '^bad' "$BASE.out")" -eq 0 ]
	done
	KEEP=()
	victim_restart --lazy
	victim_quit
}

@test "ckpt-restart is killed: the job gets the rest of its memory" {
	saved mem_lazy
	KEEP=("${ON_DEMAND[@]}")
	restart_begin
	kill -9 "$SUP_PID"
	wait "$SUP_PID" || true
	SUP_PID=''
	victim_poke
	wait_gone "$KEEPER"
	kill -9 "$JOB"
	wait_gone "$JOB"
}

@test "the job ends, or is killed, while memory is missing" {
	saved mem_lazy gently
	KEEP=("${UNPRIVILEGED[@]}")
	restart_begin
	kill -9 "$JOB"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	[ "$STATUS" -eq 137 ]
	restart_begin
	kill -TERM "$SUP_PID"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	[ "$STATUS" -eq 143 ]
	victim_restart --lazy
	victim_quit
	[ ! -s "$T/restart$STARTS.stderr" ] || grep -v 'process ids' "$T/restart$STARTS.stderr"
}

@test "stopped and continued while memory is missing" {
	saved mem_lazy gently
	KEEP=("${UNPRIVILEGED[@]}")
	restart_begin
	kill -STOP "$JOB"
	until_true "$CKPT_TEST_WAIT" grep -q '^State:.[Tt]' "/proc/$JOB/status"
	kill -CONT "$JOB"
	victim_poke
}

# The command substitution ends, although the job goes on: nobody holds the pipe open.
@test "detached: the pid is printed, the job goes on and is let go of" {
	local how
	saved mem_lazy
	for how in -q --lazy; do
		JOB=$(fg 30 "$RESTART" "$how" -d --pidfile "$T/pid" "$CHAIN" 2> "$T/detach.stderr")
		[ "$JOB" = "$(cat "$T/pid")" ]
		[ -e "/proc/$JOB" ]
		victim_poke
		until_true "$CKPT_TEST_WAIT" untraced "$JOB"
		kill -9 "$JOB"
		wait_gone "$JOB"
	done
}

@test "a damaged block that is met late ends the job, and is named" {
	saved mem_lazy gently
	printf '\377\377\377\377' |
		dd of="$CHAIN/000001.img" bs=1 seek=9000000 conv=notrunc 2> /dev/null
	restart_ends
	has_line "$T/restart$STARTS.stderr" "block .* is damaged"
}

@test "a program that ends does not wait for its memory" {
	saved mem_lazy gently
	KEEP=("${UNPRIVILEGED[@]}" CKPT_DEBUG=restore)
	restart_begin
	victim_poke
	ln -sfn quit "$BASE.poke"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	SUP_PID=''
	[ "$STATUS" -eq 0 ]
	has_line "$T/restart$STARTS.stderr" "lazy: 0, all memory is there: 0"
}

@test "where it cannot be lazy it says so and goes on" {
	saved mem_lazy
	KEEP=(CKPT_WITHOUT=userfaultfd)
	victim_restart --lazy
	wait_line "$T/restart$STARTS.stderr" "no userfaultfd can be had here"
	victim_quit
}

@test "fault points on the way: no job is left, the chain restarts" {
	saved mem_lazy gently
	KEEP=(CKPT_FAULT=lazy-begin)
	restart_ends
	KEEP=(CKPT_FAULT=lazy-end)
	restart_ends
	KEEP=()
	victim_restart --lazy
	victim_quit
}

@test "anonymous memory with holes and protections, lazily" {
	generations mem_anon
}

@test "advice, locks and seals, lazily" {
	generations mem_advice
}

@test "mlockall(), lazily" {
	generations mem_locked
}

@test "a reservation of 16 TiB, lazily" {
	generations mem_reserve
}

@test "threads, lazily" {
	generations threads
}

# lazily NAME [ARGS]: with all that comes, and with what is asked for only.
lazily() {
	local how
	saved "$@" || return 1
	for how in _=_ "${UNPRIVILEGED[0]}"; do
		KEEP=("$how")
		victim_restart --lazy || fail "$how" || return 1
		victim_poke || fail "$how" || return 1
		victim_kill || return 1
		grep -- '--lazy' "$T/restart$STARTS.stderr" | grep -v 'memory is open as a file' &&
			fail "$how: it was not lazy" && return 1
	done
	KEEP=()
}

@test "threads that are blocked in system calls, lazily" {
	lazily blocked
}

@test "two processes and the memory that they share, lazily" {
	lazily instant pair
}

@test "processes that touch each other's missing memory" {
	lazily pins writev
	rm -rf "$CHAIN" "$BASE".*
	lazily pins mem
}

@test "processes that share their memory without being threads, lazily" {
	lazily tree_vm
}

@test "trees that are busy, with zombies, with shared memory, lazily" {
	local name
	for name in tree_busy tree_zombies tree_shm; do
		lazily $name || fail "$name" || return 1
		rm -rf "$CHAIN" "$BASE".*
	done
}

# KiB that had to be there first, of what no mapping alone leads to: the memfd that is open, and
# little memory.
shared_first() {
	sed -n 's/.*of which shared memory and nameless files \([0-9]*\) KiB.*/\1/p' \
		"$T/restart$1.stderr"
}

@test "shared memory on demand alone, seen by several processes at several places" {
	local how
	saved shm_lazy
	for how in "${ON_DEMAND[0]}" "${UNPRIVILEGED[0]}"; do
		KEEP=("$how")
		victim_restart --lazy -v || fail "$how"
		[ "$(shared_first "$STARTS")" -lt 2000 ] # of 17 MiB
		check_let_go
		victim_poke
		checkpoint
		victim_kill
	done
	KEEP=()
	victim_restart --lazy
	victim_poke
	victim_kill
	victim_restart
	victim_quit
}

@test "shared memory that is not touched does not come; the keeper is killed: all go" {
	local child
	saved shm_lazy gently
	KEEP=("${UNPRIVILEGED[@]}")
	restart_begin
	victim_poke
	victim_poke
	[ "$(keeper_of "$JOB")" = "$KEEPER" ]
	child=$(descendants "$JOB")
	kill -9 "$KEEPER"
	for JOB in $JOB $child; do
		wait_gone "$JOB"
	done
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	wait_line "$T/restart$STARTS.stderr" "was killed before all of it was there"
	[ "$(grep -c '^bad' "$BASE.out")" -eq 0 ]
}

@test "a robust mutex in shared memory that is missing: its owner's end is noticed" {
	saved shm_lazy owner
	KEEP=("${UNPRIVILEGED[@]}")
	restart_begin
	victim_quit
}

# Who stands still by SIGSTOP in ckpt-restart, itself or the keeper: STOPPED.
has_stopped() {
	for STOPPED in "$SUP_PID" $(descendants "$SUP_PID"); do
		! grep -qs '^State:.T' "/proc/$STOPPED/status" || return 0
	done
	return 1
}

# SIGUSR1 to all who have a handler for it.
signal_all() {
	local pid set
	for pid in $(descendants "$SUP_PID"); do
		grep -qs '^victim-woken' "/proc/$pid/comm" || continue
		set=$(sed -n 's/^SigCgt:\t//p' "/proc/$pid/status")
		[ $((0x$set & 0x200)) -eq 0 ] || kill -USR1 "$pid"
	done
}

have_woken() {
	[ "$(grep -c '^woken 1 ' "$BASE.out")" -eq "$1" ]
}

# Pending when the job is let go of, before its calls are issued again; and when the keeper leaves.
@test "a signal that comes before a call is issued again ends it with EINTR" {
	local how n=0
	saved woken
	for how in "restore-rebuilt" "restore-rebuilt --lazy" "lazy-end --lazy"; do
		KEEP=("CKPT_FAULT=${how%% *}=stop")
		STARTS=$((STARTS + 1))
		# shellcheck disable=SC2046
		door "restart$STARTS" "$RESTART" $([ "$how" = "${how#* }" ] || echo --lazy) "$CHAIN"
		SUP_PID=$DOOR_PID
		until_true "$CKPT_TEST_WAIT" has_stopped || fail "$how: nobody has stopped"
		signal_all
		kill -CONT "$STOPPED"
		n=$((n + 11))
		until_true "$CKPT_TEST_WAIT" have_woken $n ||
			fail "$how: $(grep ^woken "$BASE.out")"
		victim_poke
		victim_kill
	done
}

# ckpt-restart's first child, before it has others. Once the keeper has left that is the job, or
# the first process of its namespace.
has_keeper() {
	KEEPER=$(cut -d ' ' -f 1 < "/proc/$SUP_PID/task/$SUP_PID/children")
	[ -n "$KEEPER" ]
} 2> "$T/err"

kill_keeper() {
	grep -qsw "$KEEPER" "/proc/$SUP_PID/task/$SUP_PID/children" &&
		grep -qs '^ckpt-' "/proc/$KEEPER/comm" &&
		grep -Eqs '^NSpid:.[0-9]+$' "/proc/$KEEPER/status" || return 0
	kill -9 "$KEEPER" 2> "$T/err" || true
}

no_processes() {
	[ -z "$(test_processes)" ]
}

answered_or_gone() {
	has_line "$BASE.out" "^ok t$TOKENS\$" || is_gone "$SUP_PID"
}

# server_dies VICTIM...: killed at any moment. Either all memory was there, or the job goes with it.
server_dies() {
	local i
	rm -rf "$CHAIN" "$BASE".*
	saved "$@" || return 1
	for ((i = 0; i < 3; i++)); do
		STARTS=$((STARTS + 1))
		door "restart$STARTS" "$RESTART" --lazy "$CHAIN"
		SUP_PID=$DOOR_PID
		until_true "$CKPT_TEST_WAIT" has_keeper || fail "$*: no keeper" || return 1
		sleep "0.$(printf %03d $((RANDOM % 50)))"
		kill_keeper
		TOKENS=$((TOKENS + 1))
		ln -sfn "t$TOKENS" "$BASE.poke"
		until_true "$CKPT_TEST_WAIT" answered_or_gone || fail "$*: neither" || return 1
		if is_gone "$SUP_PID"; then
			exit_of "$SUP_PID" 1
			[ "$STATUS" -ne 0 ] || fail "$*: exit status 0" || return 1
			until_true "$CKPT_TEST_WAIT" no_processes ||
				fail "$*: processes are left" || return 1
			# the guard speaks last
			[ -s "$T/restart$STARTS.stderr" ] || fail "$*: no word" || return 1
		else
			victim_kill || return 1
		fi
		! grep '^bad' "$BASE.out" || return 1
	done
}

@test "the server is killed at any moment: memory is whole, or the job ends and it is said" {
	local seed=${CKPT_TEST_SEED:-$RANDOM}
	RANDOM=$((seed % 32768))
	echo "seed $seed (CKPT_TEST_SEED)"
	server_dies mem_lazy
	server_dies shm_lazy
	server_dies threads
}

# The child may have its name before the parent has, and then is the job that restart_begin finds.
has_child() {
	has_job && child=$(descendants "$JOB") && [ -n "$child" ]
}

# One of them is killed: the others get their memory.
@test "a process of several is killed while memory is missing, the keeper is: all go" {
	local child
	saved instant pair
	KEEP=("${ON_DEMAND[@]}")
	restart_begin
	until_true "$CKPT_TEST_WAIT" has_child
	kill -9 "$child"
	wait_gone "$child"
	until_true "$CKPT_TEST_WAIT" kill -0 "$JOB"
	kill -9 "$KEEPER"
	wait_gone "$JOB"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	wait_line "$T/restart$STARTS.stderr" "was killed before all of it was there"
	restart_begin
	until_true "$CKPT_TEST_WAIT" has_child
	kill -9 "$KEEPER"
	wait_gone "$JOB"
	wait_gone "$child"
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	KEEP=()
	victim_restart --lazy
}
