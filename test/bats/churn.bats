#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Checkpoints of a job whose threads are born and die while it is being stopped.

load ../lib/common

# A thread in a stop of another kind than the one asked for (a newborn's parent) forgets the
# request: it then goes to sleep, and the whole job would stand still until the deadline of 3 s.
quick_and_ok() {
	local i
	for ((i = 0; i < $1; i++)); do
		attempt || return 1
	done
	! grep -v '"result": *"ok"' "$STATS" || fail "not every checkpoint was taken" || return 1
	jq -s -e 'all(.freeze_us < 2000000)' "$STATS" > /dev/null ||
		fail "stopping took: $(jq -s -c 'map(.freeze_us)' "$STATS")"
}

@test "threads that come and go: 150 checkpoints are taken, and none waits for its deadline" {
	victim_start --no-snapshot -- churn
	quick_and_ok 150
	victim_poke
	victim_quit
}

@test "threads that come and go, three generations" {
	three_generations churn
}
