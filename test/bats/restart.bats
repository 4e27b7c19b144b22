#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Everything that comes back on restart: each victim through three generations of checkpoint, kill
# and restart.

load ../lib/common

@test "mem_anon: private anonymous memory with patterns, holes made by MADV_DONTNEED" {
	three_generations mem_anon
}

@test "mem_remap: mappings that move, shrink, grow, split and go away between checkpoints" {
	three_generations mem_remap
}

@test "mem_brk: a heap that keeps its content and goes on growing, and shrinking, where it was" {
	three_generations mem_brk
}

@test "mem_stack: a main stack whose frames survive and that goes on growing by itself" {
	three_generations mem_stack
}

@test "mem_file_private: private mappings of a file: clean pages from the file" {
	three_generations mem_file_private
}

@test "mem_beyond: mappings that are larger than memory and swap" {
	three_generations mem_beyond
}

@test "mem_reserve: a 16 TiB PROT_NONE reservation with islands in it" {
	three_generations mem_reserve
}

@test "mem_advice: madvise() flags, mlock() and mseal(), as /proc/self/smaps shows them" {
	three_generations mem_advice
}

@test "mem_locked: mlockall(): what was locked is, and what comes later is as it was to be" {
	three_generations mem_locked
}

@test "mem_guard: guard regions (MADV_GUARD_INSTALL) inside a mapping with content" {
	three_generations mem_guard
}

@test "mem_shared: shared anonymous memory, mapped once and mapped twice" {
	three_generations mem_shared
}

@test "mem_memfd: memfds: sealed, mapped and open, open only, mapped only" {
	three_generations mem_memfd
}

@test "mem_file_shared: a shared mapping of a file is written through to the file" {
	three_generations mem_file_shared
}

@test "mem_deleted: mapped files that have been deleted: private and shared mappings" {
	three_generations mem_deleted
}

@test "mem_many: 20,000 mappings and 1,000 descriptors" {
	three_generations mem_many
}

@test "random: getrandom() and the allocator's secrets" {
	three_generations random
}

@test "regs_compute: threads in pure computation whose general, x87, SSE" {
	three_generations regs_compute
}

@test "threads: 64 threads (or as many as argv[2] says)" {
	three_generations threads
}

@test "thread_exit: robust mutexes, pthread_join and clear_child_tid go on working" {
	three_generations thread_exit
}

@test "blocked: threads in blocking system calls: no EINTR, no early return" {
	three_generations blocked
}

@test "rseq: glibc's rseq registration stays in force" {
	three_generations rseq
}

@test "busy: eight threads that verify everything about themselves all the time and report" {
	three_generations busy
}

@test "sig_actions: dispositions of all 64 signals, and what SA_SIGINFO, SA_RESTART" {
	three_generations sig_actions
}

@test "sig_pending: pending signals, for the process and for single threads, with order, values" {
	three_generations sig_pending
}

@test "timers: interval timers, and POSIX timers with gaps in their ids" {
	three_generations timers
}

@test "file_regular: regular files: offsets, status flags, O_APPEND, O_CLOEXEC" {
	three_generations file_regular
}

@test "file_kinds: directories with a position, O_PATH, devices, files of /proc" {
	three_generations file_kinds
}

@test "file_deleted: deleted files and O_TMPFILE ones, with content that changes, holes" {
	three_generations file_deleted
}

@test "pipe: unread content, sizes, packet mode, half-closed ones, and FIFOs, also deleted" {
	three_generations pipe
}

@test "fd_events: eventfd, timerfd, signalfd, epoll with its watches and data" {
	three_generations fd_events
}

@test "locks: flock, POSIX and OFD locks, held by the right description and range" {
	three_generations locks
}

@test "clock: the vdso works where it was, no clock jumps back" {
	three_generations clock
}

@test "empty: nothing special" {
	three_generations empty
}

@test "threads: 500 of them" {
	three_generations threads 500
}

@test "amx: leave to use AMX tiles, before their first use" {
	three_generations amx
}

@test "identity: who and where a process is" {
	three_generations identity
}

@test "identity: a process group leader" {
	three_generations identity leader
}

@test "identity: a session leader" {
	three_generations identity session
}

@test "increments hold what has changed, over many of them" {
	local i
	victim_start --no-snapshot --full-every 1000 -- mem_anon
	checkpoint
	[ "$(stats_last kind)" = full ]
	for i in 1 2 3 4 5 6 7 8; do
		victim_poke
		checkpoint
		[ "$(stats_last kind)" = incremental ]
	done
	victim_kill
	victim_restart
	victim_quit
}

@test "--no-incremental, --full-every and --keep do what they say" {
	local i
	victim_start --no-incremental --keep 1 -- mem_anon
	for i in 1 2 3; do
		victim_poke
		checkpoint
		[ "$(stats_last kind)" = full ]
	done
	[ "$(ls "$CHAIN"/*.img | wc -l)" -eq 1 ]
	check_chain
	victim_kill
	victim_restart
	victim_quit
}

@test "--full-every 3: every third image is full, and older ones go" {
	local i kinds
	victim_start --full-every 3 --keep 2 -- mem_anon
	for i in 1 2 3 4 5 6 7; do
		victim_poke
		checkpoint
	done
	kinds=$(stats_row kind | cut -c 1 | tr -d '\n')
	[ "$kinds" = fiifiif ] || fail "kinds: $kinds"
	[ ! -e "$CHAIN/000001.img" ]
	check_chain
	victim_kill
	victim_restart
	victim_quit
}

@test "each tracker that this kernel has finds what changed" {
	local tracker tried=0
	for tracker in hash uffd softdirty; do
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		victim_start --no-snapshot --tracker "$tracker" -- mem_remap || {
			# A tracker that the kernel lacks is refused, with its name.
			grep -q "$tracker" "$T/run$STARTS.stderr" || return 1
			SUP_PID=''
			continue
		}
		checkpoint || { grep -q "$tracker" "$STATS" && victim_kill && continue; }
		tried=$((tried + 1))
		for i in 1 2 3 4; do
			victim_poke
			checkpoint
		done
		victim_kill
		victim_restart
		victim_poke
		victim_quit
	done
	[ "$tried" -ge 1 ]
}

@test "raw and LZ4 images restart alike" {
	local compress
	for compress in none lz4 auto; do
		rm -rf "$CHAIN" "$BASE".* "$STATS"
		victim_start --compress "$compress" -- mem_anon
		checkpoint
		victim_poke
		checkpoint
		victim_kill
		victim_restart
		victim_quit
	done
}

@test "--at N restarts an older image" {
	victim_start --keep 10 --no-incremental -- mem_anon
	checkpoint
	victim_poke
	checkpoint
	victim_kill
	victim_restart --at 1
	victim_quit
}

@test "dump, restart, dump: the second image says what the first one said" {
	victim_start --no-incremental --keep 10 -- threads 20
	# Each poke makes a thread, whose stack the C library keeps for the next one.
	victim_poke
	checkpoint
	victim_kill
	fg 30 "$INSPECT" --json "$CHAIN/000001.img" > before.json
	victim_restart
	checkpoint
	fg 30 "$INSPECT" --json "$CHAIN/000002.img" > after.json
	victim_quit
	# Threads, mappings and descriptors by number; addresses, names and protections are compared
	# one by one.
	python3 - <<'PY'
import json
a, b = json.load(open('before.json')), json.load(open('after.json'))
def find(node, key):
    if isinstance(node, dict):
        for k, v in node.items():
            if k == key:
                yield v
            else:
                yield from find(v, key)
    elif isinstance(node, list):
        for v in node:
            yield from find(v, key)
def rows(doc, key, fields):
    out = []
    for rows in find(doc, key):
        if isinstance(rows, list):
            out += [tuple(str(r.get(f)) for f in fields) for r in rows if isinstance(r, dict)]
    return sorted(out)
for key, fields in (('threads', ('tid', 'comm', 'sigmask', 'nice', 'sched_policy', 'altstack_sp',
                                 'robust_list', 'clear_child_tid', 'rseq_ptr',
                                 'timer_slack_ns')),
                    ('fds', ('fd', 'cloexec')),
                    ('vmas', ('start', 'end', 'prot', 'flags', 'advice', 'offset', 'path'))):
    x, y = rows(a, key, fields), rows(b, key, fields)
    assert x, 'no ' + key + ' in the first image'
    if key == 'vmas':
        # The main stack may have grown.
        x, y = ([r for r in z if r[6] != '[stack]'] for z in (x, y))
    assert x == y, (key, set(x) ^ set(y))
PY
}

@test "ckpt-restart -d leaves the tree running by itself" {
	local pid
	victim_start -- empty
	checkpoint
	victim_kill
	run fg 30 "$RESTART" -d --pidfile "$T/pid" "$CHAIN"
	[ "$status" -eq 0 ]
	pid=$(tail -n 1 <<< "$output")
	[ "$pid" -gt 1 ]
	[ "$(cat "$T/pid")" = "$pid" ]
	victim_poke
	check_untraced "$pid"
	kill -9 "$pid"
	wait_gone "$pid"
}

@test "a restarted job goes on being checkpointed with the recorded settings" {
	victim_start -i 0.2 --keep 3 -- busy
	until_true 20 more_taken_than 2
	victim_kill
	local before
	victim_restart
	before=$(stats_count)
	until_true 20 more_stats_than $((before + 2))
	[ "$(ls "$CHAIN"/*.img | wc -l)" -ge 2 ]
	victim_kill
	victim_restart --no-checkpoint
	before=$(stats_count)
	victim_poke
	sleep 0.7 # three intervals in which nothing may come
	[ "$(stats_count)" -eq "$before" ]
	victim_quit
}

# Runs its arguments, and reaps nobody before the file "reap" is there.
late_reaper() {
	door reaper /usr/bin/python3 -c 'import ctypes, os, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1) # PR_SET_CHILD_SUBREAPER
subprocess.Popen(sys.argv[1:])
while not os.path.exists("reap"):
    time.sleep(0.01)
try:
    while os.wait():
        pass
except ChildProcessError:
    pass' "$@"
}

is_state() {
	grep -qs "^State:[[:space:]]$2" "/proc/$1/status"
}

in_call() {
	grep -qs "^$2 " "/proc/$1/syscall"
}

@test "the ids of a job that was killed a moment ago are waited for while it is not reaped" {
	is_root || skip "needs the right to choose pids"
	late_reaper "$RUN" -o "$CHAIN" --stats "$STATS" -- "$VICTIMS/victim-empty" "$BASE"
	local reaper=$DOOR_PID
	wait_victim '^ready '
	VICTIM_PID=$(sed -n 's/^ready //p' "$BASE.out")
	SUP_PID=$(ps -o ppid= -p "$VICTIM_PID" | tr -d ' ')
	checkpoint
	kill -STOP "$VICTIM_PID"
	kill -9 "$SUP_PID" "$VICTIM_PID"
	until_true 20 is_state "$VICTIM_PID" Z
	door restart "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	until_true 20 in_call "$SUP_PID" 230 # clock_nanosleep
	touch reap
	victim_poke
	[ "$(victim_pid empty)" -eq "$VICTIM_PID" ] || fail "it is in a namespace"
	victim_quit
	wait "$reaper"
}

@test "CLOCK_MONOTONIC goes on where it stopped, where a time namespace can be had" {
	unshare -T true 2>/dev/null || unshare -UT true 2>/dev/null || skip "no time namespace here"
	local from now gap took
	victim_start -- clock
	read -r from _ < /proc/uptime # before it looks at its clocks for the last time
	victim_poke
	checkpoint
	victim_kill
	sleep 3 # so that a clock that went on would show it
	victim_restart
	read -r now _ < /proc/uptime # hundredths; the time of day may be set meanwhile
	took=$(((10#${now/./} - 10#${from/./}) * 10))
	gap=$(sed -n 's/^gap \([0-9]*\) ms/\1/p' "$BASE.out" | tail -n 1)
	# At most all of it but for these three seconds, however slow the machine is.
	[ "$gap" -lt $((took - 2900)) ] || fail "$gap ms of $took: $(tail -n 2 "$BASE.out")"
	# The supervisor stays in its own: Linux 5.6 to 6.1 would let it make no threads otherwise.
	[ "$(readlink "/proc/$SUP_PID/ns/time_for_children")" = \
		"$(readlink "/proc/$SUP_PID/ns/time")" ]
	checkpoint
	victim_quit
}

@test "threads whose ids are lower than their leader's: the kernel's counter wraps" {
	local max
	is_root && [ -w /proc/sys/kernel/ns_last_pid ] || skip "needs the right to choose pids"
	max=$(cat /proc/sys/kernel/pid_max)
	# Others take pids too: some tries until the leader is below the end and its threads are
	# after the beginning.
	for i in 1 2 3 4 5 6 7 8 9 10; do
		echo $((max - 120)) > /proc/sys/kernel/ns_last_pid
		victim_start --no-snapshot -- threads 150
		[ "$(ls "/proc/$VICTIM_PID/task" | sort -n | head -n 1)" -ge "$VICTIM_PID" ] ||
			break
		victim_kill
		rm -rf "$CHAIN" "$BASE".* "$STATS"
	done
	[ "$i" -lt 10 ] || skip "the counter does not wrap where it should"
	checkpoint
	victim_poke
	checkpoint
	victim_kill
	victim_restart
	checkpoint
	victim_quit
}
