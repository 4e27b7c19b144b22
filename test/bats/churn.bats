#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Checkpoints of a job whose threads are born and die while it is being stopped.

load ../lib/common

# A thread in a stop of another kind than the one asked for (a newborn's parent) forgets the
# request: it then goes to sleep, and the whole job would stand still until the deadline. That a
# thread which would stop gets no processor until then is a busy machine's fault.
none_sleeps() {
	local i legal='"skipped".*(for a processor|for a device|creates (threads|processes) faster)'
	for ((i = 0; i < $1; i++)); do
		attempt || return 1
	done
	grep -v '"result": *"ok"' "$STATS" > others || return 0
	! grep -vE "$legal" others || fail "not every checkpoint was taken" || return 1
	[ "$(wc -l < others)" -lt $(($1 / 2)) ] || fail "most were skipped: $(cat others)"
}

@test "threads that come and go: 150 checkpoints are taken, and none waits for its deadline" {
	victim_start --no-snapshot -- churn
	none_sleeps 150
	victim_poke
	victim_quit
}

@test "threads that come and go, three generations" {
	three_generations churn
}
