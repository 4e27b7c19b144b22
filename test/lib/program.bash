# SPDX-License-Identifier: BSD-2-Clause
# Real programs: run to the end, with three rounds of SIGKILL and restart at random moments, and the
# output compared with that of a run without ckpt. Loaded after common.bash.

setup() {
	common_setup
	CKPT_TEST_WAIT=120
	PROGRAMS=$BATS_TEST_DIRNAME/../program
	PYTHON=$(command -v /usr/bin/python3 || command -v python3)
}

has_ok_since() {
	[ "$(tail -n +"$(($1 + 1))" "$STATS" 2>/dev/null | grep -c '"result": *"ok"')" -ge 1 ]
}

or_ended() {
	has_ok_since "$1" || is_gone "$SUP_PID"
}

# same_answer COMMAND FILE...: runs the shell command (which must be one program) in a directory of
# its own, without ckpt, and then with it; the FILEs that it leaves must be the same.
one_run() {
	local command=$1 round before files file seed=${CKPT_TEST_SEED:-$RANDOM} took m
	shift
	files=("$@")
	echo "seed $seed (CKPT_TEST_SEED); $command"
	RANDOM=$seed
	mkdir ref job
	cp -r in/. ref 2>/dev/null && cp -r in/. job
	took=$EPOCHREALTIME
	(cd ref && fg 300 sh -c "exec $command") || fail "it fails without ckpt too" || return 1
	took=$(((${EPOCHREALTIME/./} - ${took/./}) / 1000))
	cd job || return 1
	door run1 "$RUN" -q -i 0.2 -o "$CHAIN" --stats "$STATS" -- sh -c "exec $command"
	SUP_PID=$DOOR_PID
	before=0
	for round in 1 2 3; do
		until_true 100 or_ended "$before" || fail "round $round: no checkpoint" || return 1
		# At most a sixth of what the whole takes, so that it does not end before the third
		# round; less in a run that is made anew, since the first one, without ckpt, may
		# have been the slower one.
		m=$((RANDOM % (took / 6 / ${TRY:-1} + 1)))
		sleep "$((m / 1000)).$(printf '%03d' $((m % 1000)))"
		if is_gone "$SUP_PID"; then
			echo "round $round: it had ended already ($took ms alone)"
			cat "$T"/*.stderr
			return 75
		fi
		kill_tree "$SUP_PID" || return 1
		before=$(stats_count)
		door "restart$round" "$RESTART" -q "$CHAIN"
		SUP_PID=$DOOR_PID
	done
	exit_of "$SUP_PID" 300 || return 1
	# Content and names of files are not rolled back: what the program itself has deleted since
	# the checkpoint is an error that names it (README, "What does not").
	if [ "$STATUS" -eq 125 ] &&
		grep -q "cannot find .*'$T/job/.*No such file" "$T"/*.stderr; then
		grep -h "cannot find" "$T"/*.stderr
		return 75
	fi
	# Over just before the third kill.
	if [ "$STATUS" -eq 125 ] && grep -h "has finished (exit 0)" "$T"/*.stderr; then
		return 75
	fi
	# A port that the system had chosen may be another's by now.
	if [ "$STATUS" -eq 125 ] && grep -h "port .* is in use by another" "$T"/*.stderr; then
		return 75
	fi
	[ "$STATUS" -eq 0 ] || fail "exit status $STATUS: $(cat "$T"/*.stderr)" || return 1
	cd "$T" || return 1
	for file in "${files[@]}"; do
		[ -s "ref/$file" ] || fail "$file is empty" || return 1
		cmp "ref/$file" "job/$file" || return 1
	done
	! grep -q '"result": *"failed"' "$STATS" || fail "$(grep '"failed"' "$STATS" | head -n 3)"
}

# The moments are random: a run that was over before its third one, or whose last checkpoint was
# just before the program deleted a file, is made anew.
same_answer() {
	local TRY rc
	for TRY in 1 2 3 4 5 6; do
		rc=0
		one_run "$@" || rc=$?
		[ "$rc" -eq 75 ] || return "$rc"
		cd "$T" || return 1
		kill_tree "$SUP_PID" 2>/dev/null || true
		# shellcheck disable=SC2046 # what outlived the job's first process
		kill -9 $(test_processes) 2>/dev/null || true
		rm -rf ref job "$CHAIN" "$STATS" ./*.stderr ./*.stdout
	done
	fail "no run of $TRY could be killed three times"
}

need() {
	command -v "$1" > /dev/null || skip "$1 is not installed"
}
