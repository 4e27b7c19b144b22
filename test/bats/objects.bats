#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Kernel objects beyond plain files and pipes, through three generations each: terminals, System V
# and POSIX IPC, process descriptors; and what the caller may decide about those that cannot come
# back.

load ../lib/common

# System V objects outlive whoever made them, and stay behind in this IPC namespace when the job was
# restarted in another: the victim says which they are.
teardown() {
	# shellcheck disable=SC2046
	ipcrm $(sed -n 's/^ipc //p' "$BASE.out" 2>/dev/null) 2>/dev/null || true
	python3 -c 'import ctypes, sys
for name in sys.argv[1:]:
    ctypes.CDLL("librt.so.1").mq_unlink(name.encode())' \
		$(sed -n 's/^queue //p' "$BASE.out" 2>/dev/null) || true
	common_teardown
}

@test "pty: pseudo-terminals with modes, sizes, unread data both ways, a controlling terminal" {
	local try
	for try in 1 2 3 4 5 6; do
		three_generations pty || return 1
		# the numbers are the machine's: somebody else may take one before the restart
		grep -q '^moved ' "$BASE.out" || return 0
		rm -rf "$CHAIN" "$STATS" "$BASE".*
	done
	fail "numbers never come back: $try tries"
}

# As on a machine so busy that the time is not enough for the kernel's worker.
@test "pty: unread input is put back whole, however late the kernel passes it on" {
	local i
	KEEP=(CKPT_WITHOUT=settling)
	victim_start --no-snapshot -- pty
	KEEP=()
	for i in 1 2 3 4 5 6; do
		checkpoint
		victim_poke || fail "checkpoint $i"
	done
	victim_quit
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

# type_at NAME TEXT: and waits until it has been typed. The file is there at once with all of it.
type_at() {
	printf "$2" > "$T/type"
	mv "$T/type" "$T/$1.type"
	until_true "$CKPT_TEST_WAIT" test ! -e "$T/$1.type"
}

modes() {
	stty -F "$(cat "$T/$1.pts")" -a | grep -oE -- '-?(icanon|echo)\>' | tr '\n' ' '
}

@test "a program on the caller's terminal comes back on another with its modes, and redraws" {
	on_terminal first 24 80 "$RUN" -o "$CHAIN" --stats "$STATS" -- "$VICTIMS/victim-tty" "$BASE"
	wait_victim '^ready '
	victim_poke
	[ "$(modes first)" = "-icanon -echo " ]
	type_at first k
	wait_line "$BASE.out" '^key k$'
	checkpoint
	victim_kill
	wait_line "$T/first.end" '^-9'
	on_terminal second 30 100 "$RESTART" "$CHAIN"
	victim_poke
	victim_poke
	wait_line "$BASE.out" '^size 30 100$'
	[ "$(modes second)" = "-icanon -echo " ]
	type_at second q
	wait_line "$BASE.out" '^key q$'
	checkpoint
	ln -sfn quit "$BASE.poke"
	wait_line "$T/second.end" .
	SUP_PID=
	# the terminal is as the caller had it
	[ "$(cat "$T/second.end")" = "0 icanon echo" ] || fail "$(cat "$T/second.end")"
}

# on_screen NAME PATTERN: within a while.
on_screen() {
	until_true "$CKPT_TEST_WAIT" grep -qaE "$2" "$T/$1.screen" ||
		fail "not on the screen: $2; but: $(tail -n 20 "$T/$1.screen")"
}

# The program of the terminal's foreground group.
in_foreground() {
	local group
	group=$(ps -o tpgid= -p "$(descendants "$TERMINAL_PID" | tail -n 1)")
	ps -o comm= -p $group
}

@test "an interactive shell with a program in the foreground comes back on another terminal" {
	is_root || touch "$BASE.userns"
	on_terminal first 24 80 env PS1='> ' "$RUN" -o "$CHAIN" --stats "$STATS" -- \
		bash --norc --noprofile -i
	on_screen first '> '
	type_at first 'sleep 1000 &\n'
	type_at first 'cat; echo cat ended by $?\n'
	type_at first 'one\n'
	on_screen first '^one.*'
	until_true "$CKPT_TEST_WAIT" eval '[ "$(in_foreground)" = cat ]'
	checkpoint
	type_at first 'two\n'
	victim_kill
	wait_line "$T/first.end" .
	on_terminal lazily 24 80 "$RESTART" --lazy "$CHAIN"
	until_true "$CKPT_TEST_WAIT" eval '[ "$(in_foreground)" = cat ]' ||
		fail "in the foreground, lazily: $(in_foreground)"
	victim_kill
	wait_line "$T/lazily.end" .
	on_terminal second 30 100 "$RESTART" "$CHAIN"
	until_true "$CKPT_TEST_WAIT" eval '[ "$(in_foreground)" = cat ]' ||
		fail "in the foreground: $(in_foreground)"
	type_at second 'three\n'
	on_screen second '^three.*three|three.?$'
	# the signals of the keys are for cat alone
	type_at second '\032'
	on_screen second 'Stopped +cat'
	type_at second 'fg\n'
	until_true "$CKPT_TEST_WAIT" eval '[ "$(in_foreground)" = cat ]'
	type_at second 'four\n'
	on_screen second 'four'
	type_at second '\003'
	until_true "$CKPT_TEST_WAIT" eval '[ "$(in_foreground)" = bash ]'
	type_at second 'echo $((6*7))-alive; jobs\n'
	on_screen second '42-alive'
	on_screen second 'Running +sleep 1000'
	checkpoint
	victim_kill
	wait_line "$T/second.end" .
	on_terminal third 24 80 "$RESTART" "$CHAIN"
	type_at third 'kill %%1; wait; echo $((7*7))-alive\n'
	on_screen third '49-alive'
	type_at third 'exit 3\n'
	wait_line "$T/third.end" '^3 icanon echo' || fail "$(cat "$T/third.end")"
	SUP_PID=
}

# What a test left in /dev/shm goes by its directory's name; what its restarts were making there, by
# ckpt-restart's id (working_name() in tmpfs.c). Others' are in the making now.
shm_left() {
	local f p
	for f in "/dev/shm/$(basename "$T")"* "/dev/shm/sem.$(basename "$T")"*; do
		[ ! -e "$f" ] || echo "$f"
	done
	for p in $DOOR_PIDS; do
		compgen -G "/dev/shm/.ckpt-$p-*" || true
	done
}

@test "shm_posix: POSIX shared memory with mutexes, condition variables and semaphores in it" {
	three_generations shm_posix
	[ -z "$(shm_left)" ] || fail "left: $(shm_left)"
}

@test "POSIX shared memory that is gone (a reboot) is made again, with its content" {
	victim_start --no-snapshot -- shm_posix
	victim_poke
	checkpoint
	victim_poke
	checkpoint
	victim_kill
	# shellcheck disable=SC2046
	rm $(shm_left)
	victim_restart
	victim_poke
	victim_quit
	[ -z "$(shm_left)" ] || fail "left: $(shm_left)"
}

@test "a copy that is restarted while the job runs gets shared memory of its own" {
	victim_start --no-snapshot -- shm_posix
	victim_poke
	checkpoint
	touch "$BASE.copied"
	mkdir -m 700 "$T/chain2"
	cp -p "$CHAIN"/*.img "$T/chain2"
	door copy "$RESTART" --pids namespace --no-checkpoint "$T/chain2"
	victim_poke
	# both answer
	until_true "$CKPT_TEST_WAIT" eval '[ "$(grep -c "^ok t$TOKENS$" "$BASE.out")" -eq 2 ]' ||
		fail "the copy does not answer"
	kill_tree "$DOOR_PID"
	victim_poke
	checkpoint
	victim_kill
	victim_restart
	victim_poke
	victim_quit
}

@test "sysv: System V shared memory, semaphores, message queues, and a waiter on each" {
	three_generations sysv
}

@test "sysv: its ids come again while somebody else makes objects all the time" {
	local i
	is_root || skip "its ids are in a namespace"
	victim_start -- sysv
	checkpoint
	# Each makes one of a kind, and removes it.
	door others perl -e 'while (1) { select(undef, undef, undef, 0.0003);
		my ($m, $s, $q) = (shmget(0, 4096, 0600), semget(0, 1, 0600), msgget(0, 0600));
		shmctl($m, 0, 0); semctl($s, 0, 0, 0); msgctl($q, 0, 0); }'
	for i in 1 2 3 4; do
		victim_kill
		# shellcheck disable=SC2046 # a list of options
		ipcrm $(sed -n 's/^ipc //p' "$BASE.out" | tail -n 1)
		victim_restart --pids keep
		victim_poke
	done
	victim_quit
}

@test "inotify: events that stay unread are the running job's; a restarted one is told" {
	local i
	victim_start -- inotify
	checkpoint
	# it was tried again before
	[ "$(grep -c '"result": "skipped".*unread events' "$STATS")" -ge 3 ]
	victim_poke
	checkpoint
	victim_kill
	for i in 1 2; do
		touch "$BASE.restarted"
		victim_restart
		grep -q "^ckpt-restart: pid .* fd .*: inotify events that were unread are lost" \
			"$T/restart$STARTS.stderr"
		rm "$BASE.restarted"
		victim_poke
		checkpoint
		victim_kill
	done
}

@test "inotify: the places of watches are looked for once, not read at each checkpoint" {
	mkdir -p watched/below
	cat > watcher.py <<'PY'
import ctypes, os, time
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(os.O_NONBLOCK)
assert libc.inotify_add_watch(fd, b"watched", 0xfff) == 1
assert libc.inotify_add_watch(fd, b"watched/below", 0xfff) == 2
print("ready", flush=True)
for turn in 1, 2:
    while not os.path.exists(f"read{turn}"):
        time.sleep(0.02)
    try:
        events = os.read(fd, 65536)
    except BlockingIOError:
        events = b""
    print(f"turn {turn}:", len(events) if turn == 2 else "", flush=True)
PY
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- /usr/bin/python3 watcher.py
	SUP_PID=$DOOR_PID
	wait_line "$T/run1.stdout" '^ready$'
	checkpoint
	touch read1
	wait_line "$T/run1.stdout" '^turn 1:'
	checkpoint
	checkpoint
	touch read2
	wait_line "$T/run1.stdout" '^turn 2: 0$'
	wait "$SUP_PID"
}

@test "mqueue: POSIX message queues with messages, without a name, full, and mq_notify" {
	three_generations mqueue
}

@test "messages in a queue that is open outside the job are left alone; then it is tried again" {
	victim_start -- mqueue
	local name
	name=$(sed -n 's/^queue \([^ ]*\) .*/\1/p' "$BASE.out")
	door outsider python3 -c 'import ctypes, sys, time
queue = ctypes.CDLL("librt.so.1").mq_open(sys.argv[1].encode(), 0)
print("open" if queue >= 0 else "failed", flush=True)
time.sleep(600)' "$name"
	wait_line "$T/outsider.stdout" '^open$'
	attempt
	[ "$(stats_last result)" = skipped ] || fail "$(tail -n 1 "$STATS")"
	[[ $(tail -n 1 "$STATS") == *"'$name' holds messages"*"process $DOOR_PID outside the"* ]] ||
		fail "$(tail -n 1 "$STATS")"
	kill "$DOOR_PID"
	wait "$DOOR_PID" || true
	checkpoint
	victim_poke
	victim_quit
}

@test "lease: file leases, read and write, of files with a name and without" {
	three_generations lease
}

being_broken() {
	grep -qs 'LEASE  BREAKING' /proc/"$VICTIM_PID"/fdinfo/*
}

@test "lease: while one is being broken the checkpoint is put off, and the job not disturbed" {
	victim_start -- lease
	victim_poke
	door reader cat "$BASE.write"
	until_true 20 being_broken
	attempt
	if [ "$(stats_last result)" != skipped ]; then
		! being_broken || fail "$(tail -n 1 "$STATS")"
		skip "the kernel has lost patience (fs.lease-break-time)"
	fi
	[[ $(stats_last error) =~ "a lease on '$BASE.write' is being broken" ]] ||
		fail "$(tail -n 1 "$STATS")"
	ln -sfn told "$BASE.poke"
	wait_victim '^ok told$'
	wait "$DOOR_PID" || fail "the reader: $?"
	checkpoint
	victim_kill
	victim_restart
	victim_quit
}

@test "lease: a write lease on a file that is mapped too is refused, and not broken by a look" {
	victim_start -- lease mapped
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")"
	local why="pid $VICTIM_PID fd [0-9]+: a write lease on '$BASE.write'"
	[[ $(stats_last error) =~ $why ]] || fail "$(tail -n 1 "$STATS")"
	victim_poke
	victim_quit
}

@test "lease: a restart that cannot have it says who must let go of what" {
	victim_start -- lease
	checkpoint
	victim_kill
	STDIN=$BASE.write door holder sleep 1000
	until_true 20 test "/proc/$DOOR_PID/fd/0" -ef "$BASE.write"
	run fg 20 "$RESTART" "$CHAIN"
	[ "$status" -eq 125 ] || fail "exit $status: $output"
	[[ $output =~ "the lease of pid $VICTIM_PID fd "[0-9]+" on '$BASE.write'".*fuser ]] ||
		fail "$output"
	kill "$DOOR_PID"
	wait "$DOOR_PID" || true
	victim_restart
	victim_quit
}

@test "semundo: what semop() is to undo when a process ends (SEM_UNDO)" {
	three_generations semundo
}

@test "semaphores that change outside the job while they are looked at: saved as they are, or not" {
	victim_start --keep 20 -- semundo # all of them, also while we read
	local id i
	id=$(sed -n 's/^ipc -s \([0-9]*\) .*/\1/p' "$BASE.out")
	# down and up by all that is there, so fast that it changes between two looks
	door outsider python3 -c 'import ctypes, signal, sys
libc = ctypes.CDLL(None)
def op(by):
    return (ctypes.c_short * 3)(4, by, 0)
up, down, number, ended = op(12), op(-12), int(sys.argv[1]), []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
print("goes on", flush=True)
while not ended:
    if libc.semop(number, down, 1) or libc.semop(number, up, 1):
        sys.exit("failed")' "$id"
	wait_line "$T/outsider.stdout" '^goes on$'
	for i in {1..12}; do
		attempt # and skipped, mostly
	done
	kill "$DOOR_PID"
	wait "$DOOR_PID" || true
	checkpoint
	for i in "$CHAIN"/*.img; do
		python3 "$BATS_TEST_DIRNAME/../image_reader.py" tree "$i" |
			python3 -c 'import json, sys
found = [(u["id"], u["num"]) for p in json.load(sys.stdin)["processes"] for u in p["sem_undos"]]
assert len(found) == 8 and all(num != 4 for _, num in found), found' || fail "$i"
	done
	victim_poke
	victim_quit
}

@test "shared: one description of each kind in three processes, and a waiter on each" {
	three_generations shared
}

@test "kin: what two processes have between them: terminal, memory, locks, queues, pidfds" {
	three_generations kin
}

# --- what the user decides ------------------------------------------------------------------------

# Where descriptor 3 of the victim leads.
third() {
	readlink "/proc/$(pgrep_victim)/fd/3" || echo closed
}

# The victim itself, wherever its supervisor has put it.
pgrep_victim() {
	local p
	for p in $(descendants "$SUP_PID"); do
		[ "$(readlink "/proc/$p/exe")" != "$VICTIMS/victim-refused" ] || echo "$p"
	done
}

# A victim with a descriptor that cannot be restored, checkpointed and killed.
with_rule() {
	victim_start "$@" -- refused nsfd
	checkpoint || return 1
	[[ $(third) = net:* ]] || fail "the running job's is $(third)" || return 1
	victim_poke
	victim_kill
}

@test "--fd N=close leaves a descriptor out of the image" {
	with_rule --fd 3=close
	victim_restart
	[ "$(third)" = closed ]
	victim_quit
}

@test "--fd N=null puts /dev/null in its place" {
	with_rule --fd 3=null
	victim_restart
	[ "$(third)" = /dev/null ]
	checkpoint
	victim_kill
	victim_restart
	[ "$(third)" = /dev/null ]
	victim_quit
}

@test "--fd N=inherit takes it from ckpt-restart, which says so when it is not there" {
	with_rule --fd 3=inherit
	run fg 20 "$RESTART" --no-checkpoint "$CHAIN"
	[ "$status" -eq 125 ]
	[[ $output =~ "descriptor 3 is taken from here" ]]
	echo given > "$T/given"
	door restart2 bash -c 'exec "$@" 3< given' bash "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	victim_poke
	[ "$(third)" = "$T/given" ]
	victim_quit
}

@test "--unsupported close leaves out whatever cannot be restored" {
	with_rule --unsupported close
	victim_restart
	[ "$(third)" = closed ]
	victim_quit
}

@test "--fd N=close for one end of a pipe: the other comes back as one whose other end is closed" {
	local n
	cat > "$T/job.py" <<'END'
import os, select, sys, time
a, b = os.pipe()
os.dup2(a, 40)
os.dup2(b, 41)
os.close(a)
os.close(b)
def hung_up(fd):
    p = select.poll()
    p.register(fd, 0)
    return bool(p.poll(0))
print("ready", flush=True)
while True:
    for fd in 40, 41:
        try:
            os.fstat(fd)
        except OSError:
            print("left", 81 - fd, "hung up" if hung_up(81 - fd) else "waiting", flush=True)
            sys.exit(0)
    time.sleep(0.01)
END
	for n in 40 41; do
		rm -rf "$CHAIN" "$STATS"
		door "pipe$n" "$RUN" -o "$CHAIN" --stats "$STATS" --fd "$n=close" -- \
			python3 "$T/job.py"
		SUP_PID=$DOOR_PID
		wait_line "$T/pipe$n.stdout" '^ready$'
		checkpoint || return 1
		victim_kill
		run fg 20 "$RESTART" --no-checkpoint "$CHAIN"
		[ "$status" -eq 0 ] || fail "$n: $output" || return 1
		grep -q "^left $((81 - n)) hung up$" "$T/pipe$n.stdout" ||
			fail "$n: $(cat "$T/pipe$n.stdout")" || return 1
	done
}

@test "--fd and --unsupported take only what they know" {
	local bad
	for bad in --fd=3 --fd= --fd==close --fd=+3=close "--fd= 3=close" --fd=close --fd=x=close \
		--fd=3=open --fd=-1=close --unsupported=ignore; do
		run fg 20 "$RUN" -o "$CHAIN" "$bad" -- true
		[ "$status" -eq 2 ] || fail "$bad: $status" || return 1
	done
}

@test "--deny-io-uring: the program, its threads and children do without, after a restart too" {
	victim_start --deny-io-uring -- denied
	victim_poke
	checkpoint
	victim_kill
	victim_restart
	victim_poke
	checkpoint
	victim_kill
	victim_restart
	victim_quit
	run fg 20 "$RUN" --deny-io-uring --once --pid 1
	[ "$status" -eq 2 ]
}

# --- ckpt-inspect --pid ---------------------------------------------------------------------------

# foretold THING REGEX: what stands in the way, by ckpt-inspect --pid and then by the checkpoint, in
# the same words; both say what to do about it.
foretold() {
	rm -rf "${BASE:?}".* "$CHAIN" run*.stderr
	victim_start -- refused "$1"
	run fg 20 "$INSPECT" --pid "$VICTIM_PID"
	[ "$status" -eq 1 ] || fail "exit $status: $output" || return 1
	[[ $output =~ "cannot be checkpointed" ]] && [[ $output =~ $2 ]] || fail "$output" ||
		return 1
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")" || return 1
	REFUSAL=$(grep -hE "pid [0-9]+( fd [0-9]+)?: .* \(.+\); the job goes on" run*.stderr)
	[[ $REFUSAL =~ $2 ]] || fail "$(cat run*.stderr)" || return 1
	victim_poke
	victim_quit
}

@test "inspect --pid: a tree that can be checkpointed, as text and as JSON, untouched" {
	victim_start -- kin
	run fg 20 "$INSPECT" --pid "$VICTIM_PID"
	[ "$status" -eq 0 ] || fail "$output"
	[[ $output =~ "pid $VICTIM_PID: 2 processes, "[0-9]+" threads: can be checkpointed" ]]
	run fg 20 "$INSPECT" --json --pid "$VICTIM_PID"
	[ "$status" -eq 0 ]
	python3 -c 'import json, sys
r = json.loads(sys.argv[1])
assert r["can_checkpoint"] is True and r["processes"] == 2 and r["obstacles"] == [], r
assert r["pid"] == int(sys.argv[2]), r' "$output" "$VICTIM_PID"
	check_untraced "$VICTIM_PID"
	victim_poke
	checkpoint
	victim_quit
}

# switches: what would be different of the processes, had anything made them run or sent a signal.
switches() {
	local pid
	for pid in $(cat job) $(cat child); do
		grep -hE '^(State|TracerPid|SigPnd|ShdPnd|(non)?voluntary_ctxt)' "/proc/$pid/status"
	done
}

in_call() {
	[ "$(cut -d ' ' -f 1 "/proc/$(cat "$1")/syscall")" = "$2" ]
}

all_stopped() {
	[ "$(switches | grep -c '^State:.*T')" = 2 ]
}

@test "inspect --pid: blocked and stopped processes do not run for it, nor get signals" {
	local before
	is_root || [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" -eq 0 ] ||
		skip "kernel.yama.ptrace_scope: in which call it is may not be looked at"
	mkfifo fifo
	door job bash -c 'sleep 1000 & echo $! > child; exec 3<> fifo; echo $$ > job; read -ru 3'
	until_true 20 test -s job
	until_true 20 in_call job 0        # read
	until_true 20 in_call child 230    # clock_nanosleep
	before=$(switches)
	run fg 20 "$INSPECT" --pid "$(cat job)"
	[ "$status" -eq 0 ] && [[ $output =~ ": 2 processes, 2 threads: can" ]] || fail "$output"
	[ "$(switches)" = "$before" ] || fail "$before; then: $(switches)"
	kill -STOP "$(cat job)" "$(cat child)"
	until_true 20 all_stopped
	until_true 20 in_call job 0        # off its processor
	until_true 20 in_call child 230
	before=$(switches)
	run fg 20 "$INSPECT" --pid "$(cat job)"
	[ "$status" -eq 0 ] || fail "$output"
	[ "$(switches)" = "$before" ] || fail "$before; then: $(switches)"
	kill -KILL "$(cat job)" "$(cat child)"
	exit_of "$DOOR_PID" 20
}

@test "inspect --pid: netlink sockets of a strange kind" {
	foretold netlink 'pid [0-9]+ fd [0-9]+: a netlink socket \(protocol [0-9]+\)'
}

@test "inspect --pid: a watch far away, which root can find" {
	local watch='an inotify watch \(number 1\) on something .*\(inode [0-9]+\)'
	if is_root; then
		victim_start -- refused watch
		run fg 20 "$INSPECT" --pid "$VICTIM_PID"
		[ "$status" -eq 0 ] || fail "$output"
		checkpoint
		victim_quit
	else
		foretold watch "pid [0-9]+ fd [0-9]+: $watch"
		[[ $REFUSAL =~ root\ can\ ask.*--fd\ [0-9]+=close ]] || fail "$REFUSAL"
	fi
}

@test "inspect --pid: files that cannot be opened again" {
	foretold procfile "'/proc/1/stat', which is about a process outside of the job"
	foretold linked "'$BASE.here'.* was deleted"
	foretold opath "O_PATH descriptor of '$BASE.opath'"
}

@test "inspect --pid: threads and timers that are not like the rest" {
	foretold thread_creds 'a thread \([0-9]+\) with credentials of its own'
	foretold thread_seccomp 'a thread with a seccomp filter'
	foretold timer_cpu 'POSIX timer \(id 0\) on the CPU time of another process'
	foretold timer_gone 'POSIX timer \(id 0\) that signals a thread which is gone'
}

@test "inspect --pid: what leads to others" {
	foretold pidfd 'a pidfd of process [0-9]+, which is not in the job'
	foretold epoll 'epoll .*watches a file \(added as descriptor [0-9]+\)'
	foretold socket 'socket'
}

@test "inspect --pid: who is to be told of a message, and could not be asked for again" {
	foretold mq_notify_thread 'pid [0-9]+ fd [0-9]+: mq_notify\(\) with SIGEV_THREAD on'
	foretold mq_notify_blocked 'fd [0-9]+: mq_notify.* with a signal \([0-9]+\) whose value'
	foretold mq_notify_shared 'mq_notify.* by process [0-9]+, which shares its descriptors with'
}

@test "inspect --pid: a descriptor of a namespace" {
	foretold nsfd 'pid [0-9]+ fd 3: a network namespace'
}

@test "inspect --pid: io_uring, with what to do about it" {
	foretold io_uring 'fd [0-9]+: io_uring is not supported .*--deny-io-uring'
}

@test "inspect --pid: a seccomp filter" {
	foretold seccomp 'a seccomp filter'
}

@test "inspect --pid: a process that is not dumpable" {
	! is_root || skip "root may look"
	foretold nondumpable 'not dumpable'
}

@test "inspect --pid: a program's own userfaultfd" {
	foretold userfaultfd 'fd [0-9]+: userfaultfd'
}

@test "inspect --pid: the obstacles as JSON; what is no process; options that do not go together" {
	victim_start -- refused nsfd
	run fg 20 "$INSPECT" --json --pid "$VICTIM_PID"
	[ "$status" -eq 1 ]
	python3 -c 'import json, sys
r = json.loads(sys.argv[1])
assert r["can_checkpoint"] is False, r
assert [(o["pid"], o["fd"]) for o in r["obstacles"]] == [(int(sys.argv[2]), 3)], r' \
		"$output" "$VICTIM_PID"
	victim_quit
	run fg 20 "$INSPECT" --pid 2000000000
	[ "$status" -eq 1 ]
	[[ $output =~ "no such process" ]]
	run fg 20 "$INSPECT" --pid $$ --verify
	[ "$status" -eq 2 ]
	run fg 20 "$INSPECT" --pid $$ "$T"
	[ "$status" -eq 2 ]
}

# --- surroundings ---------------------------------------------------------------------------------

# refuses THING REGEX: no checkpoint, for this reason; the job goes on.
refuses() {
	victim_start -- refused "$1"
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")" || return 1
	[[ $(stats_last error) =~ $2 ]] || fail "$(tail -n 1 "$STATS")" || return 1
	victim_poke
	victim_quit
}

@test "a network namespace of the job's own is refused by name" {
	refuses netns 'pid [0-9]+: .*namespace'
}

@test "a mount namespace of the job's own is refused by name" {
	refuses mntns 'pid [0-9]+: .*namespace'
}

# in_mount_namespace COMMAND...: with a tmpfs of its own at $T/mnt.
in_mount_namespace() {
	local opts=(-Urm)
	! is_root || opts=(-m)
	mkdir -p mnt
	fg 10 unshare "${opts[@]}" mount -t tmpfs none mnt 2>/dev/null || skip "no such thing here"
	NAMESPACE=(unshare "${opts[@]}" bash -c 'mount -t tmpfs none mnt && exec "$@"' -)
}

@test "a tmpfs that only the job sees: refused with pid and what to do, the job goes on" {
	local NAMESPACE job
	in_mount_namespace
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- "${NAMESPACE[@]}" bash -c '
		exec 7> mnt/file; echo $$ > job.new; mv job.new job
		until [ -e go ]; do sleep 0.05; done; echo fine >&7; cat mnt/file'
	SUP_PID=$DOOR_PID
	until_true 20 test -s job
	job=$(cat job)
	run fg 20 "$INSPECT" --pid "$job"
	[ "$status" -eq 1 ] && [[ $output =~ "pid $job".*namespace ]] || fail "$output"
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")"
	grep -q "pid $job: a mount namespace of its own is not supported (run ckpt-run inside of" \
		run1.stderr || fail "$(cat run1.stderr)"
	touch go
	exit_of "$SUP_PID" 20
	[ "$STATUS" -eq 0 ] && [ "$(cat run1.stdout)" = fine ] || fail "$STATUS: $(cat run1.stdout)"
}

@test "ckpt-run and ckpt-restart inside of a mount namespace: files on its tmpfs come back" {
	local NAMESPACE
	in_mount_namespace
	door inside "${NAMESPACE[@]}" bash -c '
		"$1" -o chain --stats stats -- "$3/victim-file_regular" "$PWD/mnt/victim" 2> run &
		run=$!
		until grep -qs "^ready" mnt/victim.out; do sleep 0.02; done
		job=$(sed -n "s/^ready //p" mnt/victim.out)
		kill -USR1 $run
		until grep -qs "\"ok\"" stats; do sleep 0.02; done
		kill -9 $run $job
		while [ -e "/proc/$job" ]; do sleep 0.02; done
		"$2" chain 2> restart &
		ln -sfn quit mnt/victim.poke
		wait $!' - "$RUN" "$RESTART" "$VICTIMS"
	exit_of "$DOOR_PID" 60
	[ "$STATUS" -eq 0 ] || fail "exit $STATUS: $(cat run restart inside.stderr)"
}

@test "a user namespace of the job's own is refused by name" {
	refuses userns 'pid [0-9]+: .*user namespace'
}

@test "a session keyring of the job's own is refused by name" {
	refuses keyring 'pid [0-9]+: a session keyring'
}

@test "the image says in which cgroup each process was" {
	victim_start -- empty
	checkpoint
	fg 20 "$INSPECT" --json "$CHAIN" > "$T/json"
	python3 -c 'import json, sys
own = [l for l in open("/proc/%s/cgroup" % sys.argv[2]) if l.startswith("0::")]
got = json.load(open(sys.argv[1]))["tree"]["processes"][0]["cgroup"]
assert got == (own[0][3:].rstrip("\n") if own else None), (got, own)' "$T/json" "$VICTIM_PID"
	victim_quit
}

# What of the victim's is there outside of processes: IPC objects, queues, shared memory, files in
# the making.
traces() {
	# shellcheck disable=SC2046
	set -- $(sed -n 's/^ipc //p' "$BASE.out")
	while [ $# -gt 0 ]; do
		case $1 in
		-m) awk -v i="$2" '$2 == i { print "shm", i }' /proc/sysvipc/shm ;;
		-s) awk -v i="$2" '$2 == i { print "sem", i }' /proc/sysvipc/sem ;;
		-q) awk -v i="$2" '$2 == i { print "msg", i }' /proc/sysvipc/msg ;;
		esac
		shift 2
	done
	shm_left
}

@test "a restart that fails at any point leaves no IPC object, and no file" {
	local name points
	victim_start --no-snapshot -- kin
	checkpoint
	victim_kill
	[ -n "$(traces)" ]
	# as after a reboot
	# shellcheck disable=SC2046
	ipcrm $(sed -n 's/^ipc //p' "$BASE.out")
	[ -z "$(traces)" ] || fail "there already: $(traces)"
	KEEP=(CKPT_FAULT=list)
	run fg 40 "$RESTART" -d --no-checkpoint "$CHAIN"
	KEEP=()
	points=$(sed -n 's/^fault point: //p' <<< "$output" | awk '!seen[$0]++')
	[ "$(wc -w <<< "$points")" -ge 5 ] || fail "only these fault points: $points"
	# shellcheck disable=SC2046
	kill -9 $(test_processes)
	until_true 20 nothing_left
	# shellcheck disable=SC2046
	ipcrm $(sed -n 's/^ipc //p' "$BASE.out") 2>/dev/null || true
	for name in $points; do
		KEEP=("CKPT_FAULT=$name")
		run fg 40 "$RESTART" --no-checkpoint "$CHAIN"
		KEEP=()
		[[ $output == *"injected fault"* ]] || fail "$name: exit $status: $output" ||
			return 1
		[ -z "$(traces)" ] || fail "$name failed and left: $(traces)" || return 1
	done
	victim_restart
	victim_quit
}
