#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Programs that are started in odd ways: low limits, no streams, no working directory, a huge
# environment, ignored signals. They run, are checkpointed and come back as any other.

load ../lib/common

# through SCRIPT-LINES...: ckpt-run is started by this shell script; "$@" is its command line.
through() {
	printf '#!/bin/bash\n' > "$T/through"
	printf '%s\n' "$@" >> "$T/through"
	chmod +x "$T/through"
	sed -i "s|@RUN@|$CKPT_BUILD/cmd/ckpt-run|" "$T/through"
	RUN=$T/through
}

# round VICTIM ARGS...: two checkpoints, SIGKILL, restart, the end.
round() {
	is_root || touch "$BASE.userns"
	victim_start --no-snapshot -- "$@" || return 1
	checkpoint || return 1
	victim_poke || return 1
	checkpoint || return 1
	victim_kill || return 1
	victim_restart || return 1
	victim_quit || return 1
	rm -rf "$CHAIN" "$BASE".* "$STATS"
}

@test "low limits: address space, stack, locked memory, descriptors, core, CPU time" {
	local limit
	for limit in '-v 300000' '-s 256' '-l 0' '-S -n 24' '-S -f 1' '-c 0' '-t 1000'; do
		through "ulimit $limit || exit 99" 'exec @RUN@ "$@"'
		round empty || fail "ulimit $limit" || return 1
	done
}

# Root does not feel RLIMIT_MEMLOCK: here it does.
feel_limits() {
	LESS=()
	! is_root || LESS=(setpriv --bounding-set=-ipc_lock)
	through "exec ${LESS[*]} @RUN@ \"\$@\""
}

@test "a restart where memory may not be locked is refused, with the limit's name" {
	feel_limits
	victim_start -- mem_locked low
	checkpoint
	victim_kill
	run fg 20 bash -c 'ulimit -l 0; exec "$@"' _ "${LESS[@]}" "$RESTART" \
		"$CHAIN"
	[ "$status" -eq 125 ] || fail "$status $output"
	[[ $output =~ pid\ [0-9]+:\ it\ has\ 16\ KiB\ of\ locked.*RLIMIT_MEMLOCK.*\(raise ]] ||
		fail "$output"
	STARTS=$((STARTS + 1))
	door restart2 "${LESS[@]}" "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
	victim_quit
}

@test "a job that locks all it maps, up to its limit, goes on and is told which limit" {
	local hard
	feel_limits
	hard=$(ulimit -Hl)
	[ "$hard" = unlimited ] || [ "$hard" -ge 8192 ] ||
		skip "RLIMIT_MEMLOCK may be $hard KiB at most"
	victim_start -- mem_locked full
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")"
	grep -qE 'cannot map [0-9]+ KiB: it locks all .*RLIMIT_MEMLOCK.*prlimit' run1.stderr ||
		fail "$(cat run1.stderr)"
	victim_poke
	prlimit --pid "$(victim_pid mem_locked)" --memlock=8388608:
	checkpoint
	victim_quit
}

@test "a limit of no bytes for a file does not end ckpt-run, and is the job's own" {
	cat > size.sh <<'SH'
ulimit -f 0
exec "$@"
SH
	# Its output is no regular file: the limit is for those.
	run fg 20 bash size.sh "$RUN" -q -o "$CHAIN" -- bash -c 'ulimit -f; echo x > file'
	[[ $output == *0* ]] || fail "$status $output"
	[ "$status" -eq 153 ] || [ "$status" -eq 1 ] || fail "$status $output"
}

@test "no standard streams" {
	through 'exec @RUN@ "$@" <&- >&- 2>&-'
	round empty
}

@test "a working directory that has been removed" {
	through "mkdir '$T/gone' && cd '$T/gone' && rmdir '$T/gone'" 'exec @RUN@ "$@"'
	round empty
}

@test "a working directory that has been removed: what is above it is there" {
	local i
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- bash -c '
		mkdir gone && cd gone && rmdir ../gone && touch ../ready
		until [ -e ../go ]; do sleep 0.02; done
		cat ../go > ../done'
	SUP_PID=$DOOR_PID
	until_true 20 test -e ready
	for i in 1 2; do
		checkpoint
		victim_kill
		door "restart$i" "$RESTART" -v "$CHAIN"
		SUP_PID=$DOOR_PID
		wait_line "restart$i.stderr" 'restarted from'
	done
	checkpoint
	echo well > go.new && mv go.new go
	exit_of "$SUP_PID" 20
	[ "$STATUS" -eq 0 ] && [ "$(cat done)" = well ] ||
		fail "exit $STATUS: $(cat restart2.stderr)"
	[ -z "$(ls -d .ckpt-* 2>/dev/null)" ]
}

@test "an environment of 1.5 MB" {
	through 'for i in {1..15}; do export "X$i=$(head -c 100000 /dev/zero | tr "\0" y)"; done' \
		'exec @RUN@ "$@"'
	round empty
}

@test "ignored signals, SIGCHLD among them, and a mask with blocked ones" {
	through "trap '' CHLD HUP INT QUIT TERM USR1 USR2 PIPE TSTP TTIN TTOU URG WINCH" \
		'exec @RUN@ "$@"'
	round empty
	through 'exec env --block-signal=CHLD,HUP,INT,USR1,USR2,ALRM,CONT @RUN@ "$@"'
	round empty
}

@test "personalities, CPU affinity, scheduling and I/O classes, a preloaded library" {
	local how cpu
	cpu=$(sed -n 's/^Cpus_allowed_list:[^0-9]*\([0-9]*\).*/\1/p' /proc/self/status)
	for how in 'setarch -R' 'setarch -X' 'setarch --uname-2.6' 'setarch -3' "taskset -c $cpu" \
		'chrt -b 0' 'chrt -i 0' 'ionice -c 3' 'nice -n 5' 'stdbuf -oL' \
		'env MALLOC_ARENA_MAX=1 LD_BIND_NOW=1'; do
		through "exec $how @RUN@ \"\$@\""
		round empty || fail "$how" || return 1
	done
}

@test "a program that may be run but not read is refused, with the reason; it runs on" {
	is_root && skip "root may read everything"
	cp "$(command -v sleep)" hidden
	chmod 0111 hidden
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- ./hidden 1000
	SUP_PID=$DOOR_PID
	until_true 10 pgrep -P "$SUP_PID" -x hidden
	real_attempt
	[ "$(stats_last result)" = failed ]
	tail -n 1 "$STATS" | grep -q 'not dumpable: its executable may be run but not read'
	pgrep -P "$SUP_PID" -x hidden
	kill -TERM "$SUP_PID"
	exit_of "$SUP_PID" 20
	[ "$STATUS" -eq 143 ]
}
