# SPDX-License-Identifier: BSD-2-Clause
# Helpers of all bats suites: one door through which anything is started, waiting without sleeping,
# and the rounds of checkpoint, kill and restart.

# CKPT_BUILD: the build directory under test. CKPT_TEST_TMP: where test directories are made.
: "${CKPT_BUILD:=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build}"
: "${CKPT_TEST_TMP:=${TMPDIR:-/tmp}}"
: "${CKPT_TEST_WAIT:=90}" # seconds until a wait gives up: for a machine that is very busy
RUN=$CKPT_BUILD/cmd/ckpt-run
RESTART=$CKPT_BUILD/cmd/ckpt-restart
INSPECT=$CKPT_BUILD/cmd/ckpt-inspect
MERGE=$CKPT_BUILD/cmd/ckpt-merge
VICTIMS=$CKPT_BUILD/test/victim

common_setup() {
	T=$(mktemp -d "$CKPT_TEST_TMP/ckpt-XXXXXX")
	chmod 700 "$T"
	# Whatever a test starts carries its directory in the environment, and keeps it through a
	# restart.
	export CKPT_TEST_ID=$T
	BASE=$T/victim
	CHAIN=$T/chain
	STATS=$T/stats
	SUP_PID='' # the ckpt-run or ckpt-restart that supervises now
	STARTS=0
	DOOR_PIDS='' # of all that came through the door
	cd "$T" || return 1
}

# A failed test keeps its directory. Whatever it started is ended here.
common_teardown() {
	local left
	left=$(test_processes '/proc/[0-9]*/task/[0-9]*/environ')
	if [ -n "$left" ]; then
		# shellcheck disable=SC2086
		kill -9 $left 2>/dev/null || true
	fi
	cd / || return 1
	if [ -z "$BATS_TEST_COMPLETED" ] && [ -z "$BATS_TEST_SKIPPED" ]; then
		echo "kept: $T"
		show_logs
	else
		rm -rf "$T"
	fi
}

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# For the report of a failed test: the last words of everything that ran in it.
show_logs() {
	local f
	for f in "$T"/*.command "$T"/*.stdout "$T"/*.stderr "$T"/*.out "$T"/stats; do
		[ -s "$f" ] || continue
		echo "--- ${f#"$T"/}"
		tail -n 12 "$f" | cut -c 1-400 | tr -d '\000'
	done
}

fail() {
	echo "$*"
	return 1
}

is_root() {
	[ "$(id -u)" -eq 0 ]
}

# --- starting and ending --------------------------------------------------------------------------

# Replaces this (sub)shell by a command with the standard streams it has now, no other descriptor, a
# clean environment, default signals, the usual umask, and a session of its own: bats and its
# background shells leave traces of all these. KEEP (an array, may be empty) holds more VAR=VALUE.
door_exec() {
	local fd
	trap - DEBUG
	for fd in /proc/"$BASHPID"/fd/*; do
		fd=${fd##*/}
		[ "$fd" -gt 2 ] && [ "$fd" -ne 255 ] && eval "exec $fd>&-"
	done
	exec 255>&-
	umask 022
	exec env -i --default-signal PATH="$PATH" HOME="$T" LC_ALL=C CKPT_TEST_ID="$CKPT_TEST_ID" \
		"${KEEP[@]}" setsid "$@"
}

# door NAME COMMAND...: in the background, streams in NAME.stdout and NAME.stderr (stdin from $STDIN
# or /dev/null); the pid in DOOR_PID. The streams are appended to, so that a restart can go on in
# the same files.
door() {
	local name=$1
	shift
	printf '%q ' "$@" > "$T/$name.command"
	(door_exec "$@") < "${STDIN:-/dev/null}" >> "${STDOUT:-$T/$name.stdout}" \
		2>> "$T/$name.stderr" &
	DOOR_PID=$!
	DOOR_PIDS="$DOOR_PIDS $DOOR_PID"
}

# fg SECONDS COMMAND...: in the foreground with a limit, CKPT_TEST_WAIT at least; standard output
# and error come through (for `run`).
fg() {
	local limit=$(($1 > CKPT_TEST_WAIT ? $1 : CKPT_TEST_WAIT))
	shift
	(door_exec timeout -k 2 "$limit" "$@") < "${STDIN:-/dev/null}"
}

# bats looks at the stack before every single command, which makes up most of what a suite costs.
# What polls, or goes through /proc, is called by this: not in there.
unwatched() {
	local -
	set +T
	"$@"
}

# All descendants of a process.
descendants() {
	unwatched descend "$1"
}

descend() {
	local task child list
	for task in /proc/"$1"/task/[0-9]*; do
		list=
		{ read -r list < "$task/children" || true; } 2>/dev/null
		for child in $list; do
			echo "$child"
			descend "$child"
		done
	done
}

# Processes that belong to this test, by the mark in their environment. Ours are those that came
# through the door: the shell and its helpers have BATS variables too. Who ends while we look has no
# environment any more, so the mark is looked for again at the end. Where the first thread has ended
# only the others have one, and are looked at by '/proc/[0-9]*/task/[0-9]*/environ'.
test_processes() {
	local files mark=CKPT_TEST_ID=$T
	# the status says that some could not be read
	# shellcheck disable=SC2086 # a pattern
	files=$(grep -lszxF "$mark" ${1:-/proc/[0-9]*/environ}) || true
	[ -n "$files" ] || return 0
	# shellcheck disable=SC2086 # a list of files
	files=$(grep -Lsz '^BATS_' $files) || true
	[ -n "$files" ] || return 0
	# shellcheck disable=SC2086
	grep -lszxF "$mark" $files | cut -d / -f 3 | sort -u
}

# Gone, or dead and only waiting for its parent (which need not be us).
is_gone() {
	local stat
	{ read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 0
	stat=${stat##*) }
	[ "${stat:0:1}" = Z ] || [ "${stat:0:1}" = X ]
}

nothing_left() {
	[ -z "$(test_processes)" ]
}

# until_true SECONDS COMMAND...: polls. How long is how long it should take; nobody fails for a wait
# below CKPT_TEST_WAIT.
until_true() {
	unwatched poll "$@"
}

poll() {
	local end=$((SECONDS + ($1 > CKPT_TEST_WAIT ? $1 : CKPT_TEST_WAIT)))
	shift
	until "$@"; do
		[ $SECONDS -le $end ] || return 1
		sleep 0.02
	done
}

wait_gone() {
	until_true "$CKPT_TEST_WAIT" is_gone "$1" || fail "process $1 does not go away"
}

# pid_free PID: not even a zombie holds the id.
pid_free() {
	[ ! -e "/proc/$1" ]
}

has_line() {
	grep -qE -- "$2" "$1" 2>/dev/null
}

wait_line() {
	until_true "$CKPT_TEST_WAIT" has_line "$1" "$2" || fail "no line /$2/ in $1"
}

# When a process was started, in BORN: with its id that is who it is, since ids come again.
born() {
	local stat
	{ read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 1
	# shellcheck disable=SC2086 # into words
	set -- ${stat##*) }
	BORN=${20}
}

# who_is_gone PID START
who_is_gone() {
	local BORN
	! born "$1" || [ "$BORN" != "$2" ]
}

# Stops all below a process, each before its children are looked for, and adds them to $all, and to
# $who with their times. Nothing is started for it: who forks all the time would be faster.
stop_below() {
	local task child list
	for task in /proc/"$1"/task/[0-9]*; do
		list=
		{ read -r list < "$task/children" || true; } 2>/dev/null
		for child in $list; do
			kill -STOP "$child" 2>/dev/null || true
			born "$child" || continue
			all="$all $child"
			who="$who $child:$BORN"
			stop_below "$child"
		done
	done
}

# SIGKILL for the supervisor first (it must have no chance to do anything), then for its whole tree,
# which stands still before: a process that is forked after the look at its parent would live on,
# beside the restarted job.
kill_tree() {
	unwatched kill_all_of "$1"
}

kill_all_of() {
	local all='' who p before=none BORN
	[ -n "$1" ] || return 0
	kill -STOP "$1" 2>/dev/null || true
	while [ "$all" != "$before" ]; do
		before=$all
		all=
		who=
		stop_below "$1"
	done
	kill -9 "$1" 2>/dev/null || true
	# shellcheck disable=SC2086
	[ -z "$all" ] || kill -9 $all 2>/dev/null || true
	wait "$1" 2>/dev/null || true
	for p in $who; do
		until_true "$CKPT_TEST_WAIT" who_is_gone "${p%:*}" "${p#*:}" ||
			fail "process ${p%:*} is not reaped" || return 1
	done
}

# exit_of PID SECONDS: its exit status in STATUS.
exit_of() {
	until_true "$2" is_gone "$1" || fail "process $1 does not end" || return 1
	STATUS=0
	wait "$1" || STATUS=$?
}

# --- victims --------------------------------------------------------------------------------------

# Victims do not end by themselves: whoever starts one in a test is watched for its words.
victim_failed() {
	grep -m 1 -E '^(bad|skip):' "$BASE.out" 2>/dev/null || true
}

# A line of the victim's fits; or in words: what is wrong with it.
victim_said() {
	local line
	words=
	while IFS= read -r line; do
		[[ ! $line =~ $1 ]] || return 0
		case $line in bad:* | skip:*) words=${words:-$line} ;; esac
	done 2>/dev/null < "$BASE.out"
	return 1
}

wait_victim() {
	unwatched listen "$1"
}

listen() {
	local end=$((SECONDS + CKPT_TEST_WAIT)) words
	until victim_said "$1"; do
		case $words in
		skip:*) skip "${words#skip: }" ;;
		bad:*) fail "victim: $words" || return 1 ;;
		esac
		[ $SECONDS -le $end ] || fail "victim: no line /$1/" || return 1
		if [ -n "$SUP_PID" ] && is_gone "$SUP_PID"; then
			# It may have spoken last.
			victim_said "$1" && return 0
			[ "${words#skip: }" = "$words" ] || skip "${words#skip: }"
			fail "its supervisor $SUP_PID is gone ${words:+($words)}" || return 1
		fi
		sleep 0.01
	done
}

# victim_start [CKPT-RUN OPTIONS] -- NAME [ARGS]: under ckpt-run, until it is ready. VICTIM_PID as
# it sees itself.
victim_start() {
	local opts=()
	while [ "$1" != -- ]; do
		opts+=("$1")
		shift
	done
	shift
	local name=$1
	shift
	STARTS=$((STARTS + 1))
	door "run$STARTS" "$RUN" -o "$CHAIN" --stats "$STATS" "${opts[@]}" -- \
		"$VICTIMS/victim-$name" "$BASE" "$@"
	SUP_PID=$DOOR_PID
	wait_victim '^ready ' || return 1
	VICTIM_PID=$(sed -n 's/^ready //p' "$BASE.out")
}

TOKENS=0
# The victim verifies itself and says so.
victim_poke() {
	TOKENS=$((TOKENS + 1))
	ln -sfn "t$TOKENS" "$BASE.poke"
	wait_victim "^ok t$TOKENS\$"
}

# How many whole lines, in COUNT, and how many of them were not skipped, in TAKEN.
count_stats() {
	local line
	COUNT=0
	TAKEN=0
	while IFS= read -r line; do
		COUNT=$((COUNT + 1))
		[[ $line == *'"result": "skipped"'* ]] || TAKEN=$((TAKEN + 1))
	done 2>/dev/null < "$STATS" || true
}

stats_count() {
	local COUNT TAKEN
	unwatched count_stats
	echo "$COUNT"
}

# The value of a key in the last line of --stats.
stats_last() {
	unwatched last_stats "$1"
}

last_stats() {
	local line last=
	while IFS= read -r line; do
		last=$line
	done 2>/dev/null < "$STATS" || true
	[[ ! $last =~ \"$1\":\ *\"?([^\",}]*) ]] || echo "${BASH_REMATCH[1]}"
}

more_stats_than() {
	local COUNT TAKEN
	count_stats
	[ "$COUNT" -gt "$1" ]
}

# What is skipped comes again by itself: where one is to be taken, it is waited for.
more_taken_than() {
	local COUNT TAKEN
	count_stats
	[ "$TAKEN" -gt "$1" ]
}

more_stats_or_gone() {
	more_stats_than "$1" || is_gone "$SUP_PID"
}

# One attempt at a checkpoint, however it ends.
attempt() {
	unwatched attempt_it
}

attempt_it() {
	local COUNT TAKEN before
	count_stats
	before=$COUNT
	kill -USR1 "$SUP_PID" || fail "supervisor $SUP_PID is gone" || return 1
	until_true "$CKPT_TEST_WAIT" more_stats_or_gone "$before" || true
	more_stats_than "$before" || fail "no checkpoint came" || return 1
}

# That the machine or its disk has too much to do is no answer to whether a checkpoint can be had. A
# thread that waits for a device does so as one whose child is to come from vfork.
machine_was_busy() {
	local busy='for a processor|child of a vfork|creates processes faster'
	[[ $(last_stats error) =~ $busy ]]
}

# One that is not skipped. That is legal: the job could not be stopped just then (one of its threads
# waits for a busy disk, say), and it is tried again.
real_attempt() {
	unwatched attempt_again
}

attempt_again() {
	local try=0 end=$((SECONDS + CKPT_TEST_WAIT))
	while [ $try -lt 5 ]; do
		attempt_it || return 1
		[ "$(last_stats result)" = skipped ] || break
		machine_was_busy && [ $SECONDS -lt $end ] || try=$((try + 1))
	done
}

checkpoint() {
	unwatched checkpoint_it
}

checkpoint_it() {
	attempt_again || return 1
	[ "$(last_stats result)" = ok ] || fail "checkpoint: $(tail -n 1 "$STATS")"
}

# What the attempts came to that were not skipped: the values of a key, in a row.
stats_row() {
	sed -n '/"result": "skipped"/d; s/.*"'"$1"'": "\{0,1\}\([^",}]*\).*/\1/p' "$STATS"
}

victim_kill() {
	kill_tree "$SUP_PID" || return 1
	SUP_PID=''
}

# victim_restart [CKPT-RESTART OPTIONS]: in the background, supervised; the victim answers once it
# is there.
victim_restart() {
	STARTS=$((STARTS + 1))
	door "restart$STARTS" "$RESTART" "$@" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
}

# The fault points that a restart passes, in POINTS, of a job that has been killed; and is again.
restart_points() {
	KEEP=(CKPT_FAULT=list)
	victim_restart --no-checkpoint || return 1
	KEEP=()
	victim_kill || return 1
	POINTS=$(sed -n 's/^fault point: //p' "$T/restart$STARTS.stderr")
}

# victim_pid NAME: the process that runs it, somewhere below ckpt-run or ckpt-restart.
victim_pid() {
	local pid
	for pid in $(descendants "$SUP_PID"); do
		[ "$(readlink -s "/proc/$pid/exe")" = "$VICTIMS/victim-$1" ] || continue
		echo "$pid"
		return
	done
	return 1
}

# ckpt-run, or the process of its that traces, whichever stands at a fault point
# (CKPT_FAULT=POINT=stop), in STOPPED.
find_stopped() {
	local p
	for p in "$SUP_PID" $(cat "/proc/$SUP_PID"/task/*/children); do
		grep -q '^State:[[:space:]]*T' "/proc/$p/status" 2>/dev/null || continue
		STOPPED=$p
		return 0
	done
	return 1
}

# has_tracker NAME: or skip.
has_tracker() {
	fg 20 "$RUN" -o "$T/try" --tracker "$1" true 2> "$T/why" && return
	grep -q "$1" "$T/why" || fail "$(cat "$T/why")" || return 1
	skip "$(head -n 1 "$T/why")"
}

# The victim is told to end and does so with this exit status, which ckpt-run or ckpt-restart passes
# on.
victim_quit() {
	ln -sfn quit "$BASE.poke"
	wait_victim '^ok quit$' || return 1
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT" || return 1
	SUP_PID=''
	[ "$STATUS" -eq "${1:-0}" ] || fail "exit status $STATUS, not ${1:-0}"
}

# Three generations of what ckpt-inspect --pid calls no obstacle: state after the checkpoint is
# rolled back, several checkpoints (so: increments) in each.
three_generations() {
	local generation
	is_root || touch "$BASE.userns"
	victim_start --no-snapshot -- "$@" || return 1
	victim_poke || return 1
	fg 20 "$INSPECT" --pid "$VICTIM_PID" > "$T/foretold" || fail "$(cat "$T/foretold")" ||
		return 1
	for generation in 1 2 3; do
		checkpoint || return 1
		victim_poke || return 1
		checkpoint || return 1
		checkpoint || return 1
		victim_poke || return 1
		victim_kill || return 1
		victim_restart || fail "generation $generation" || return 1
		victim_poke || return 1
	done
	victim_quit
}

# --- what a process looks like from outside -------------------------------------------------------

HELD='^(TracerPid|Seccomp):[[:space:]]*[^0[:space:]]'

# The threads' TracerPid and Seccomp must be 0.
check_untraced() {
	local bad
	bad=$(grep -sHE "$HELD" /proc/"$1"/task/*/status) || true
	[ -z "$bad" ] || fail "$bad"
}

untraced() {
	! grep -qsE "$HELD" /proc/"$1"/task/*/status
}

# Mappings and descriptors, as text to compare. The heap's end and the stack's start move by
# themselves.
outline() {
	sed -e 's/^[0-9a-f]*-\([0-9a-f]* .*\[stack\]\)/*-\1/' "/proc/$1/maps"
	find "/proc/$1/fd" -mindepth 1 -printf '%f %l\n' 2>/dev/null | grep -v '\.out$' | sort
}

# A chain whose directory, lock and images are sound, and no temporary file in it.
check_chain() {
	local f
	for f in "$CHAIN"/* "$CHAIN"/.[!.]*; do
		[ -e "$f" ] || continue
		case ${f##*/} in
		[0-9]*.img | lock | finished) ;;
		*) fail "left in the chain: $f" || return 1 ;;
		esac
	done
	fg 60 "$INSPECT" --verify "$CHAIN" > "$T/verify.stdout" 2>&1 ||
		fail "verify: $(cat "$T/verify.stdout")"
}
