#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Kernel objects beyond plain files and pipes, through three generations each: terminals, System V
# and POSIX IPC, process descriptors; and what the caller may decide about those that cannot come
# back.

load ../lib/common

@test "pty: pseudo-terminals with modes, sizes, unread data both ways, a controlling terminal" {
	three_generations pty
}

# on_terminal NAME ROWS COLUMNS COMMAND...: on a new terminal; SUP_PID is the command's.
on_terminal() {
	local name=$1
	door "$name" python3 "$BATS_TEST_DIRNAME/../lib/on_terminal.py" "$T/$name" "${@:2}"
	TERMINAL_PID=$DOOR_PID
	wait_line "$T/$name.pts" pts || return 1
	until_true "$CKPT_TEST_WAIT" eval 'SUP_PID=$(descendants "$TERMINAL_PID" | head -n 1);
		[ -n "$SUP_PID" ]'
}

modes() {
	stty -F "$(cat "$T/$1.pts")" -a | grep -oE -- '-?(icanon|echo)\>' | tr '\n' ' '
}

@test "a program on the caller's terminal comes back on another with its modes, and redraws" {
	on_terminal first 24 80 "$RUN" -o "$CHAIN" --stats "$STATS" -- "$VICTIMS/victim-tty" "$BASE"
	wait_victim '^ready '
	victim_poke
	[ "$(modes first)" = "-icanon -echo " ]
	printf k > "$T/first.type"
	wait_line "$BASE.out" '^key k$'
	checkpoint
	victim_kill
	wait_line "$T/first.end" '^-9'
	on_terminal second 30 100 "$RESTART" "$CHAIN"
	victim_poke
	victim_poke
	wait_line "$BASE.out" '^size 30 100$'
	[ "$(modes second)" = "-icanon -echo " ]
	printf q > "$T/second.type"
	wait_line "$BASE.out" '^key q$'
	checkpoint
	ln -sfn quit "$BASE.poke"
	wait_line "$T/second.end" .
	SUP_PID=
	# the terminal is as the caller had it
	[ "$(cat "$T/second.end")" = "0 icanon echo" ] || fail "$(cat "$T/second.end")"
}
