#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# ckpt-run and ckpt-restart as commands: options, exit statuses, standard streams, signals,
# terminals.

bats_require_minimum_version 1.5.0
load ../lib/common

run_sh() {
	fg 30 "$RUN" -o "$CHAIN" -- sh -c "$@"
}

@test "--help and --version go to standard output and exit 0" {
	local c
	for c in "$RUN" "$RESTART" "$INSPECT" "$MERGE"; do
		run --separate-stderr fg 10 "$c" --help
		[ "$status" -eq 0 ]
		[[ $output == *"${c##*/}"* && $output == *--help* && $output == *--version* ]]
		[ -z "$stderr" ]
		run --separate-stderr fg 10 "$c" --version
		[ "$status" -eq 0 ]
		[[ $output =~ [0-9]+\.[0-9]+ ]]
		[ -z "$stderr" ]
	done
}

@test "output that cannot be written is an error" {
	local c
	for c in "$RUN" "$RESTART" "$INSPECT" "$MERGE"; do
		STDOUT=/dev/full door full "$c" --help
		exit_of "$DOOR_PID" 10
		[ "$STATUS" -ne 0 ]
	done
}

# misuse WORD COMMAND...: exit 2, one line that names the bad thing, and where to read on.
misuse() {
	local word=$1
	shift
	run --separate-stderr fg 10 "$@"
	[ "$status" -eq 2 ] || fail "exit $status, not 2: $* ($stderr)" || return 1
	[ -z "$output" ] || fail "something on standard output: $output" || return 1
	[[ $stderr == *"$word"* && $stderr == *--help* ]] || fail "message: $stderr" || return 1
}

@test "wrong usage exits 2 and names what is wrong" {
	misuse PROGRAM "$RUN"
	misuse --nonsense "$RUN" --nonsense true
	misuse soon "$RUN" -i soon true
	misuse -5 "$RUN" --interval=-5 true
	misuse 12x "$RUN" -i 12x true
	misuse magic "$RUN" --tracker magic true
	misuse bzip2 "$RUN" --compress bzip2 true
	misuse 0 "$RUN" --keep 0 true
	misuse 3.5 "$RUN" --full-every 3.5 true
	misuse --once "$RUN" --once true
	misuse --kill "$RUN" --kill --pid 1
	misuse abc "$RUN" --pid abc
	misuse true "$RUN" --pid 1 true
	misuse sometimes "$RUN" --on-term sometimes true
	misuse --mtbf "$RUN" --mtbf 1h true
	misuse --mtbf "$RUN" -i auto --mtbf 0 true
	misuse auto "$RUN" -i 60 --max-overhead 1 true
	misuse 0% "$RUN" -i auto --max-overhead 0% true
	misuse 100 "$RUN" -i auto --max-overhead 100 true
	misuse always "$RESTART" -i always x
	misuse "" "$RESTART"
	misuse --nonsense "$RESTART" --nonsense x
	misuse here "$RESTART" --pids here x
	misuse two "$RESTART" --at two x
	misuse nonsense "$RESTART" --map nonsense x
	[ -z "$(ls -A "$T" | grep -v '\.command$')" ] || fail "something was created: $(ls -A "$T")"
}

@test "program not found 127, not executable 126, and no chain is left" {
	run -127 fg 10 "$RUN" -o "$CHAIN" -- no-such-program-anywhere
	[[ $output == ckpt-run:*no-such-program-anywhere* ]]
	run -127 fg 10 "$RUN" -o "$CHAIN" -- "$T/no/such/path"
	echo text > plain
	run fg 10 "$RUN" -o "$CHAIN" -- ./plain
	[ "$status" -eq 126 ]
	[[ $output == ckpt-run:*plain* ]]
	run fg 10 "$RUN" -o "$CHAIN" -- "$T"
	[ "$status" -eq 126 ]
	printf '#!/no/such/interpreter\n' > script
	chmod +x script
	run fg 10 "$RUN" -o "$CHAIN" -- ./script
	[ "$status" -eq 126 ] || [ "$status" -eq 127 ]
	[ ! -e "$CHAIN" ]
}

@test "the exit status is the program's, 128+N for death by signal N" {
	local code sig
	for code in 0 1 7 255; do
		run run_sh "exit $code"
		[ "$status" -eq "$code" ]
	done
	for sig in TERM KILL SEGV USR2; do
		run run_sh "kill -$sig \$\$"
		[ "$status" -eq $((128 + $(kill -l "$sig"))) ] || fail "$sig: exit $status"
	done
}

@test "the exit status passes through a restart, and the chain is marked finished" {
	victim_start -- empty 42
	checkpoint
	victim_kill
	victim_restart
	victim_quit 42
	[ "$(cat "$CHAIN/finished")" = "exit 42" ]
}

@test "death by a signal passes through a restart" {
	victim_start -- empty 0 15
	checkpoint
	victim_kill
	victim_restart
	victim_quit $((128 + 15))
}

@test "standard streams pass through untouched" {
	head -c 3000000 /dev/urandom > in
	STDIN=$T/in STDOUT=$T/out door cat "$RUN" -q -o "$CHAIN" -- cat
	exit_of "$DOOR_PID" 20
	[ "$STATUS" -eq 0 ]
	cmp in out
	[ ! -s cat.stderr ]
	STDOUT=$T/out2 door err "$RUN" -q -o "$CHAIN" -- sh -c 'echo to-out; echo to-err >&2'
	exit_of "$DOOR_PID" 20
	[ "$(cat out2)" = to-out ]
	[ "$(cat err.stderr)" = to-err ]
}

@test "a pipeline with ckpt-run in the middle works" {
	run fg 20 bash -c "seq 100000 | '$RUN' -q -o '$CHAIN' -- sort -rn | tail -n 1"
	[ "$output" = 1 ]
	run fg 20 bash -c \
		"'$RUN' -q -o '$T/yes.ckpt' -- yes 2>'$T/err' | head -n 1; echo \${PIPESTATUS[0]}"
	[ "${lines[0]}" = y ]
	[ "${lines[1]}" -eq $((128 + 13)) ]
}

@test "the job gets the environment, the working directory and the descriptors that it would have" {
	KEEP=(HELLO=world)
	run fg 20 "$RUN" -q -o "$CHAIN" -- sh -c 'echo "$HELLO $PWD"; ls /proc/self/fd | wc -l'
	KEEP=()
	[ "${lines[0]}" = "world $T" ]
	[ "${lines[1]}" -eq 4 ] # 0 1 2, and ls's own
	local direct
	local look=(grep -E '^(SigBlk|SigIgn|Seccomp|NoNewPrivs|TracerPid)' /proc/self/status)
	run fg 20 "$RUN" -q -o "$T/chain2" -- "${look[@]}"
	direct=$(fg 20 "${look[@]}")
	[ "$output" = "$direct" ] || fail "$output, directly: $direct"
}

@test "soft limits of memory are the job's, and stop neither a checkpoint nor a restart" {
	local low='ulimit -Sv 30000; ulimit -Sd 12000; exec "$@"' job
	door run1 bash -c "$low" _ "$RUN" -o "$CHAIN" --stats "$STATS" -- \
		"$VICTIMS/victim-empty" "$BASE"
	SUP_PID=$DOOR_PID
	wait_victim '^ready '
	checkpoint
	victim_kill
	door restart2 bash -c "$low" _ "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
	job=$(descendants "$SUP_PID" | tail -n 1)
	grep -qE "^Max address space +$((30000 * 1024)) " "/proc/$job/limits"
	checkpoint
	victim_quit
}

@test "the default chain is NAME.ckpt in the working directory" {
	STARTS=1
	door run1 "$RUN" -i 0.1 -- "$VICTIMS/victim-empty" "$BASE"
	SUP_PID=$DOOR_PID
	wait_victim '^ready '
	until_true 10 test -e "$T/victim-empty.ckpt/000001.img"
	[ "$(stat -c %a "$T/victim-empty.ckpt")" = 700 ]
	[ "$(stat -c %a "$T/victim-empty.ckpt/000001.img")" = 600 ]
	victim_quit
}

@test "SIGTERM, SIGINT, SIGHUP and others go to the job" {
	local sig
	for sig in TERM INT HUP USR2 WINCH; do
		rm -rf "$CHAIN" sig.stdout
		door sig "$RUN" -q -o "$CHAIN" -- bash -c \
			"trap 'echo got $sig; exit 33' $sig; echo up; while :; do sleep 0.02; done"
		wait_line sig.stdout '^up'
		kill -"$sig" "$DOOR_PID"
		exit_of "$DOOR_PID" 10
		[ "$STATUS" -eq 33 ] || fail "$sig: exit $STATUS"
		grep -q "got $sig" sig.stdout
	done
}

@test "a signal without handler ends the job, and ckpt-run says so by its status" {
	door sleep "$RUN" -q -o "$CHAIN" -- sleep 1000
	until_true 10 has_child "$DOOR_PID" sleep
	kill -TERM "$DOOR_PID"
	exit_of "$DOOR_PID" 10
	[ "$STATUS" -eq 143 ]
}

has_child() {
	local p
	for p in $(descendants "$1"); do
		[ "$(cat "/proc/$p/comm")" = "$2" ] && return 0
	done
	return 1
}

@test "signals go to the job through ckpt-restart too" {
	victim_start -- empty
	checkpoint
	victim_kill
	victim_restart
	kill -TERM "$SUP_PID"
	exit_of "$SUP_PID" 10
	[ "$STATUS" -eq 143 ]
}

# The costs (ms) and intervals (s) that ckpt-run or ckpt-restart has told, one pair a line. What
# could not be stopped has cost nothing.
told_intervals() {
	awk '/: a checkpoint costs / { print $5, $10 }' "$1"
}

# told FILE N: so many of them at least.
told() {
	[ "$(told_intervals "$1" | wc -l)" -ge "$2" ]
}

@test "--interval auto follows what checkpoints cost, --mtbf and --max-overhead" {
	# Failures every 10 ms: a checkpoint costs more than it could save, so as often as may be.
	victim_start -v -i auto --mtbf 0.01 -- mem_anon
	until_true "$CKPT_TEST_WAIT" told run1.stderr 3
	told_intervals run1.stderr | awk '{ n++; if ($2 > 0.11 && $2 > $1 / 1000) bad = 1 }
		END { exit bad || n < 3 }' || fail "$(told_intervals run1.stderr)"
	fg 10 "$INSPECT" "$CHAIN" > inspect.out
	grep -q 'checkpoints as often as pays' inspect.out
	victim_kill
	# It is recorded; a bound on the overhead makes it 999 times the cost.
	rm -f "$STATS"
	victim_restart -v --max-overhead 0.1%
	checkpoint # the first one is due in ten seconds
	told_intervals restart2.stderr | awk '{ n++; d = $2 - $1 * 0.999 }
		d < -0.2 || d > 0.2 { bad = 1 }
		END { exit bad || n < 1 }' || fail "$(told_intervals restart2.stderr)"
	victim_kill
	# A time that is given ends it.
	victim_restart -i 1h
	checkpoint
	fg 10 "$INSPECT" "$CHAIN" > inspect.out
	grep -q 'checkpoints every 3600 s' inspect.out
	victim_kill
	run fg 10 "$RESTART" --mtbf 1h "$CHAIN"
	[ "$status" -eq 2 ] && [[ $output == *"--interval auto"* ]] || fail "$output"
	victim_restart
	victim_quit
}

@test "SIGUSR1 is a checkpoint, for the job it does not exist" {
	victim_start -- empty
	local i
	for i in 1 2 3; do
		checkpoint
	done
	[ "$(stats_row seq | tr '\n' ' ')" = "1 2 3 " ]
	victim_quit
}

@test "each line of --stats is a JSON object with all that is promised" {
	victim_start -- mem_anon
	checkpoint
	victim_poke
	checkpoint
	victim_quit
	python3 - "$STATS" <<'PY'
import json, sys
keys = '''seq kind state tracker result pause_us freeze_us scan_us snapshot_us thaw_us write_us
    pages_present pages_written pages_zero bytes_raw bytes_stored processes threads mode
    why error'''.split()
rows = [json.loads(line) for line in open(sys.argv[1])]
for r in rows:
    missing = [k for k in keys if k not in r]
    assert not missing, missing
rows = [r for r in rows if r['result'] != 'skipped']
assert len(rows) == 2
for r in rows:
    assert r['result'] == 'ok' and r['processes'] == 1 and r['threads'] == 1
    assert r['error'] in (None, '')
assert rows[0]['kind'] == 'full' and rows[1]['kind'] == 'incremental'
assert [r['seq'] for r in rows] == [1, 2]
assert rows[0]['pages_written'] > 4000 > 2500 > rows[1]['pages_written'] > 500, rows
PY
}

@test "--pid takes on a running process, --once lets it go, --once --kill ends it" {
	door victim "$VICTIMS/victim-empty" "$BASE" 5
	local job=$DOOR_PID
	wait_victim '^ready '
	if ! is_root &&
		[ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" -ne 0 ]; then
		kill -9 "$job"
		skip "Yama lets only parents trace"
	fi
	run fg 30 "$RUN" -o "$CHAIN" --pid "$job" --once
	[ "$status" -eq 0 ] || fail "$output"
	check_chain
	check_untraced "$job"
	victim_poke
	run fg 30 "$RUN" -o "$CHAIN" --overwrite --pid "$job" --once --kill
	[ "$status" -eq 0 ] || fail "$output"
	wait_gone "$job"
	wait "$job" || true
	victim_restart
	victim_quit 5
}

@test "--pid of a process that is not there, or not ours, says so" {
	run fg 10 "$RUN" -o "$CHAIN" --pid 4194303 --once
	[ "$status" -ne 0 ] && [ "$status" -lt 126 ]
	[[ $output == ckpt-run:*4194303* ]]
	[ ! -e "$CHAIN" ]
	if ! is_root; then
		run fg 10 "$RUN" -o "$CHAIN" --pid 1 --once
		[ "$status" -ne 0 ] && [ "$status" -lt 126 ]
		[[ $output == ckpt-run:* ]]
		[ ! -e "$CHAIN" ]
	fi
}

# --- terminals ------------------------------------------------------------------------------------

# on_terminal SCRIPT COMMAND...: runs the command as a shell would in the foreground of a terminal.
# SCRIPT is lines of `wait REGEX`, `send TEXT` (^C as \x03), `exit`, `status N`. Prints the
# terminal's output; fails by its own words.
on_terminal() {
	cat > "$T/terminal.py" <<'PY'
import os, pty, re, select, signal, sys, time
script, argv = sys.argv[1], sys.argv[2:]
pid, master = pty.fork()
if pid == 0:
    for s in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(s, signal.SIG_DFL)
    os.execv(argv[0], argv)
seen, at, gone = '', 0, False
def pump(seconds):
    global seen, gone
    if gone:
        return
    if select.select([master], [], [], seconds)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:
            data = b''
        if data:
            seen += data.decode('utf-8', 'replace')
        else:
            gone = True
def die(why):
    print(seen)
    print('terminal:', why)
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
    sys.exit(1)
status = None
def reap():
    global status
    if status is None:
        p, s = os.waitpid(pid, os.WNOHANG)
        if p:
            status = os.waitstatus_to_exitcode(s)
            if status < 0:
                status = 128 - status
    return status
for line in script.splitlines():
    word, _, arg = line.strip().partition(' ')
    end = time.monotonic() + 90
    if word == 'wait':
        while True:
            m = re.search(arg, seen[at:])
            if m:
                at += m.end()
                break
            if time.monotonic() > end or (gone and reap() is not None):
                die('never saw ' + arg)
            pump(0.05)
    elif word == 'send':
        os.write(master, arg.encode().decode('unicode_escape').encode('latin-1'))
    elif word == 'status':
        while reap() is None:
            if time.monotonic() > end:
                die('does not end')
            pump(0.05)
        if status != int(arg):
            die('exit status %d, not %s' % (status, arg))
    elif word:
        die('what is ' + word)
print(seen)
PY
	(KEEP=(TERM=dumb) && door_exec python3 "$T/terminal.py" "$@")
}

@test "Ctrl-C on a terminal reaches the job once, and its status comes out" {
	run on_terminal 'wait up
		send \x03
		wait got 1
		send \x03
		wait got 2
		status 9' "$RUN" -q -o "$CHAIN" -i 0.1 -- python3 -uc '
import signal, sys, time
n = 0
def hit(s, f):
    global n
    n += 1
    print("got", n)
    if n == 2: sys.exit(9)
signal.signal(signal.SIGINT, hit)
print("up")
while True: time.sleep(0.05)'
	[ "$status" -eq 0 ] || fail "$output"
	[[ $output != *"got 3"* ]]
}

@test "Ctrl-C on a terminal ends a job that does not catch it" {
	run on_terminal 'wait up
		send \x03
		status 130' "$RUN" -q -o "$CHAIN" -i 0.05 -- sh -c 'echo up; exec sleep 1000'
	[ "$status" -eq 0 ] || fail "$output"
}

@test "the job has the terminal: it reads lines, knows the size, and isatty says yes" {
	run on_terminal 'wait name\?
		send bob\n
		wait hello bob
		status 0' "$RUN" -q -o "$CHAIN" -i 0.1 -- bash -c \
		'test -t 0 -a -t 1 || echo no tty; read -p "name?" x; echo "hello $x"'
	[ "$status" -eq 0 ] || fail "$output"
	[[ $output != *"no tty"* ]]
}

# The supervisor of a chain, as its lock says.
holder() {
	sed -n '1s/^\([0-9]*\).*/\1/p' "$CHAIN/lock" 2>/dev/null
}

@test "a restarted job has the terminal of ckpt-restart" {
	cat > ask.py <<'PY'
import sys, os
print("up", flush=True)
for line in sys.stdin:
    print("<%s>" % line.strip(), os.isatty(0), flush=True)
    open("answered", "w").close()
    if line.strip() == "end":
        sys.exit(11)
PY
	(on_terminal 'wait up
		send one\n
		wait <one> True
		status 137' "$RUN" -q -o "$CHAIN" --stats "$STATS" -- python3 ask.py \
		> "$T/first" 2>&1) &
	local first=$!
	until_true 20 test -e answered
	SUP_PID=$(holder)
	checkpoint
	kill_tree "$SUP_PID"
	wait "$first" || fail "$(cat "$T/first")"
	run on_terminal 'send two\n
		wait <two> True
		send end\n
		wait <end> True
		status 11' "$RESTART" -q "$CHAIN"
	[ "$status" -eq 0 ] || fail "$output"
}

@test "Ctrl-Z stops the job and ckpt-run, and fg goes on with them" {
	# 148 is SIGTSTP, as of the program itself. A shell with job control: the group of a
	# session's leader is orphaned, and ignores Ctrl-Z.
	cat > job.py <<'PY'
import signal, time
on = False
def again(s, f):
    global on
    on = True
signal.signal(signal.SIGCONT, again)
print("up", flush=True)
while not on: time.sleep(0.02)
print("still here", flush=True)
PY
	run on_terminal 'wait up
		send \x1a
		wait stopped 148
		wait still here
		wait ended 0
		status 0' "$BASH" -mc "'$RUN' -q -o '$CHAIN' -i 0.1 -- python3 job.py
		echo stopped \$?; fg > /dev/null; echo ended \$?"
	[ "$status" -eq 0 ] || fail "$output"
}
