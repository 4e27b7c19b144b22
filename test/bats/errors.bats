#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Errors: one line that says what and what to do, and nothing lost. What cannot be restarted is
# refused by name.

load ../lib/common

# said PROGRAM REGEX: what `run` has in $output is one line of that program, and it fits. Beside it,
# ckpt-restart may tell which images it passed over, and that no other was left.
said() {
	[ "$(grep "^$1: " <<< "$output" | grep -vcE 'is passed over: |holds no .*image')" -le 1 ] &&
		[ "$(grep -c "^$1: " <<< "$output")" -ge 1 ] ||
			fail "not one line of $1: $output" || return 1
	[[ $output =~ $2 ]] || fail "no /$2/ in: $output" || return 1
}

# A chain with two images of the victim $1, whose processes are dead.
make_chain() {
	victim_start --no-snapshot --keep 10 -- "$@" || return 1
	checkpoint || return 1
	victim_poke || return 1
	checkpoint || return 1
	victim_kill
}

# restart_fails STATUS REGEX [OPTIONS]: it says so, leaves nothing running and the images as before.
restart_fails() {
	local want=$1 regex=$2 before
	shift 2
	before=$(sha256sum "$CHAIN"/*.img)
	run fg 60 "$RESTART" --no-checkpoint "$@" "$CHAIN"
	[ "$status" -eq "$want" ] || fail "exit $status, not $want: $output" || return 1
	said ckpt-restart "$regex" || return 1
	until_true 20 nothing_left || fail "left running: $(test_processes)" || return 1
	[ "$before" = "$(sha256sum "$CHAIN"/*.img)" ] || fail "the images were touched"
}

poke_byte() { # FILE OFFSET VALUE
	printf "\\x$(printf %02x "$3")" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

flip_bit() { # FILE OFFSET
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	poke_byte "$1" "$2" $((byte ^ 16))
}

# --- chains ---------------------------------------------------------------------------------------

@test "a chain that holds an unfinished job is not overwritten, and the message says what to do" {
	make_chain empty
	local before
	before=$(sha256sum "$CHAIN"/*.img)
	run fg 10 "$RUN" -o "$CHAIN" -- true
	[ "$status" -eq 125 ]
	said ckpt-run 'ckpt-restart.*--overwrite'
	[ "$before" = "$(sha256sum "$CHAIN"/*.img)" ]
	run fg 10 "$RUN" --overwrite -o "$CHAIN" -- true
	[ "$status" -eq 0 ]
}

@test "a finished chain may be used again; ckpt-restart of it says that the job has ended" {
	victim_start -- empty 3
	checkpoint
	victim_quit 3
	run fg 10 "$RESTART" "$CHAIN"
	[ "$status" -ne 0 ]
	said ckpt-restart 'finished|ended'
	run fg 10 "$RUN" -o "$CHAIN" -- true
	[ "$status" -eq 0 ]
}

@test "a chain in use by another ckpt-run is left alone" {
	victim_start -- empty
	checkpoint
	run fg 10 "$RUN" -o "$CHAIN" --overwrite -- true
	[ "$status" -eq 125 ]
	said ckpt-run "$SUP_PID"
	run fg 10 "$RESTART" "$CHAIN"
	[ "$status" -eq 125 ]
	said ckpt-restart "$SUP_PID"
	run fg 10 "$MERGE" "$CHAIN"
	[ "$status" -ne 0 ]
	said ckpt-merge "$SUP_PID"
	checkpoint
	victim_quit
}

@test "a chain that cannot be made or written to" {
	run fg 10 "$RUN" -o /proc/no.ckpt -- true
	[ "$status" -eq 125 ]
	said ckpt-run '/proc/no.ckpt'
	run fg 10 "$RUN" -o "$T/no/such/dir/x.ckpt" -- true
	[ "$status" -eq 125 ]
	said ckpt-run 'no/such/dir'
	: > file
	run fg 10 "$RUN" -o "$T/file" -- true
	[ "$status" -eq 125 ]
	said ckpt-run "$T/file"
	if ! is_root; then
		mkdir -m 0500 sealed
		run fg 10 "$RUN" -o "$T/sealed/x.ckpt" -- true
		[ "$status" -eq 125 ]
		said ckpt-run 'sealed.*[Pp]ermission'
	fi
	run fg 10 "$RUN" --stats "$T/no/such/stats" -o "$CHAIN" -- true
	[ "$status" -eq 125 ]
	said ckpt-run 'no/such/stats'
}

@test "ckpt-restart of nothing" {
	run fg 10 "$RESTART" "$T/nothing.ckpt"
	[ "$status" -ne 0 ]
	said ckpt-restart 'nothing.ckpt'
	mkdir -m 700 empty.ckpt
	run fg 10 "$RESTART" "$T/empty.ckpt"
	[ "$status" -ne 0 ]
	said ckpt-restart 'empty.ckpt'
	: > plain
	run fg 10 "$RESTART" "$T/plain"
	[ "$status" -eq 3 ]
	said ckpt-restart 'plain'
}

# In a mount namespace with a small file system at $T/small, and the tests' own functions at hand.
in_small_fs() { # SIZE FUNCTION
	local opts=(-m)
	is_root || opts=(-Urm)
	unshare "${opts[@]}" true 2>/dev/null || skip "no mount namespace here"
	mkdir -p small
	export T BASE STATS CKPT_TEST_ID CKPT_BUILD
	export SMALL=$1
	unshare "${opts[@]}" bash -c 'mount -t tmpfs -o size="$SMALL" none "$T/small" || exit 77
		BATS_TEST_DIRNAME=$1; . "$1/../lib/common.bash"
		CHAIN=$T/small/chain; STARTS=0; set -e; '"$(declare -f "$2")"'
		'"$2" _ "$BATS_TEST_DIRNAME"
}

disk_full() {
	victim_start --no-snapshot --compress none --no-incremental --keep 10 -- mem_anon
	checkpoint
	# All that is left of the disk goes, but for less than an image.
	dd if=/dev/zero of="$T/small/ballast" bs=1M count=150 status=none || true
	truncate -s -4M "$T/small/ballast"
	victim_poke
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")"
	tail -n 1 "$STATS" | grep -qi 'no space' || fail "$(tail -n 1 "$STATS")"
	[ "$(ls "$CHAIN"/*.img | wc -l)" -eq 1 ]
	check_chain
	victim_poke
	rm "$T/small/ballast"
	checkpoint
	check_chain
	victim_kill
	victim_restart
	victim_quit
}

@test "disk full while writing: the job goes on, the last good image stays" {
	run in_small_fs 100M disk_full
	[ "$status" -ne 77 ] || skip "no tmpfs here"
	[ "$status" -eq 0 ] || fail "$output"
	grep -qi 'no space' run1.stderr || fail "nothing was said: $(cat run1.stderr)"
}

@test "images that another user owns or could write are refused, unless trusted" {
	make_chain empty
	chmod o+w "$CHAIN/000002.img"
	restart_fails 125 '000002.img'
	chmod o-w "$CHAIN/000002.img"
	chmod g+w "$CHAIN"
	restart_fails 125 'chain'
	chmod g-w "$CHAIN"
	if is_root; then
		chown 12345 "$CHAIN/000002.img"
		restart_fails 125 '000002.img'
		chown 0 "$CHAIN/000002.img"
	fi
	victim_restart
	victim_quit
}

@test "a chain that is a symbolic link's target works, an image that is a symbolic link does not" {
	make_chain empty
	mv "$CHAIN/000002.img" elsewhere
	ln -s "$T/elsewhere" "$CHAIN/000002.img"
	run fg 20 "$RESTART" --no-checkpoint "$CHAIN/000002.img"
	[ "$status" -ne 0 ]
	until_true 20 nothing_left
}

# --- images ---------------------------------------------------------------------------------------

@test "a truncated image is recognised at any length" {
	make_chain empty
	local size cut
	rm "$CHAIN/000002.img"
	cp "$CHAIN/000001.img" whole
	size=$(stat -c %s whole)
	for cut in 0 1 7 8 63 64 100 4096 $((size / 3)) $((size / 2)) $((size - 64)) \
		$((size - 8)) $((size - 1)); do
		head -c "$cut" whole > "$CHAIN/000001.img"
		restart_fails 3 '000001.img' || fail "cut to $cut of $size"
	done
	cat whole > "$CHAIN/000001.img"
	victim_restart
	victim_quit
}

@test "a flipped bit anywhere is found" {
	make_chain empty
	local size i off seed=${CKPT_TEST_SEED:-$RANDOM} image=$CHAIN/000001.img
	echo "seed $seed"
	RANDOM=$seed
	rm "$CHAIN/000002.img"
	cp "$image" whole
	size=$(stat -c %s whole)
	for ((i = 0; i < 60; i++)); do
		case $i in
		0) off=0 ;;
		1) off=$((size - 1)) ;;
		2) off=16 ;;
		*) off=$(((RANDOM * 32768 + RANDOM) % size)) ;;
		esac
		flip_bit "$image" "$off"
		run fg 30 "$INSPECT" --verify "$image"
		[ "$status" -eq 3 ] ||
			fail "verify: exit $status with a bit flipped at $off of $size" || return 1
		# nothing is restored from between the parts of an image
		[[ $output == *": padding at offset "* ]] || restart_fails 3 '000001.img' ||
			fail "with a bit flipped at $off of $size" || return 1
		cat whole > "$image"
	done
	victim_restart
	victim_quit
}

@test "wrong magic, a newer version, another architecture" {
	make_chain empty
	rm "$CHAIN/000002.img"
	cp "$CHAIN/000001.img" whole
	poke_byte "$CHAIN/000001.img" 0 88
	restart_fails 3 'magic|not a ckpt image'
	cat whole > "$CHAIN/000001.img"
	poke_byte "$CHAIN/000001.img" 8 9
	restart_fails 3 'version 9'
	cat whole > "$CHAIN/000001.img"
	poke_byte "$CHAIN/000001.img" 10 183
	restart_fails 3 'architecture'
	run fg 20 "$RESTART" "$CHAIN/000001.img"
	[ "$status" -eq 3 ]
}

@test "a missing parent is named; what is complete before it is restarted" {
	make_chain mem_anon
	[ "$(stats_last kind)" = incremental ]
	mv "$CHAIN/000001.img" away
	run fg 20 "$RESTART" --no-checkpoint "$CHAIN"
	[ "$status" -eq 3 ]
	said ckpt-restart 'parent'
	mv away "$CHAIN/000001.img"
	victim_restart
	victim_quit
}

# --- what a restart needs -------------------------------------------------------------------------

@test "a file that is missing is named with descriptor and process, and --map finds it elsewhere" {
	BASE=$T/here/victim
	mkdir here moved
	make_chain file_regular
	mv "$BASE.data" moved/
	restart_fails 125 "pid [0-9]+ fd [0-9]+.*victim.data"
	mv "$BASE.log" moved/
	restart_fails 125 'victim\.(data|log)'
	victim_restart --map "$T/here=$T/moved"
	victim_quit
}

@test "a file open for writing that shrank or was replaced is named; one that grew is cut back" {
	make_chain file_regular
	cp -p "$BASE.log" keep
	: > "$BASE.log"
	restart_fails 125 'victim.log.*(shrank|shorter|smaller|size)'
	cat keep > "$BASE.log"
	mv "$BASE.data" other
	cp other "$BASE.data"
	restart_fails 125 'victim.data.*replaced|replaced.*victim.data'
	mv other "$BASE.data"
	echo 'much more than was there' >> "$BASE.log"
	victim_restart
	victim_quit
}

@test "a file that is only read may have grown, and is read on; no other change" {
	echo one > log
	cat > reader.py <<'PY'
import os, time
log = open('log')
print('read', log.readline().strip(), flush=True)
while not os.path.exists('go'):
    time.sleep(0.02)
print('then', log.read().strip(), flush=True)
PY
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- python3 reader.py
	SUP_PID=$DOOR_PID
	wait_line run1.stdout 'read one'
	checkpoint
	kill_tree "$SUP_PID"
	: > log
	restart_fails 125 "log' has changed since the checkpoint"
	printf 'one\ntwo\n' > log
	door restart1 "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	touch go
	exit_of "$SUP_PID" "$CKPT_TEST_WAIT"
	[ "$STATUS" -eq 0 ] || fail "$(cat restart1.stderr)"
	wait_line run1.stdout 'then two'
	grep -q "fd 3: .*log' has grown since the checkpoint" restart1.stderr
}

@test "a mapped file that is missing or has changed is named" {
	make_chain mem_file_private
	mv "$BASE.data" away
	restart_fails 125 'victim.data'
	cp away "$BASE.data"
	truncate -s 4096 "$BASE.data"
	restart_fails 125 'victim.data'
	mv away "$BASE.data"
	victim_restart
	victim_quit
}

@test "another build of the program in its place is recognised" {
	cp "$VICTIMS/victim-empty" "$T/program"
	STARTS=1
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- "$T/program" "$BASE"
	SUP_PID=$DOOR_PID
	wait_victim '^ready '
	checkpoint
	victim_kill
	mv program was
	cp "$VICTIMS/victim-mem_brk" program
	restart_fails 125 "$T/program"
	rm program
	restart_fails 125 "$T/program"
	mv was program
	victim_restart
	victim_quit
}

@test "a missing working directory is named" {
	make_chain identity
	mv "$BASE.cwd" away
	restart_fails 125 'victim.cwd'
	mv away "$BASE.cwd"
	is_root || touch "$BASE.userns"
	victim_restart
	victim_quit
}

@test "a pid that is taken is named by --pids keep; auto finds another way" {
	is_root || skip "needs the right to choose pids"
	victim_start -- empty
	checkpoint
	# Only the supervisor dies; the job lives on under its pid.
	kill -9 "$SUP_PID"
	wait "$SUP_PID" 2>/dev/null || true
	SUP_PID=''
	run fg 20 "$RESTART" --pids keep --no-checkpoint "$CHAIN"
	[ "$status" -eq 125 ]
	said ckpt-restart "$VICTIM_PID"
	kill -0 "$VICTIM_PID"
	kill -9 "$VICTIM_PID"
	until_true 20 pid_free "$VICTIM_PID"
	victim_restart --pids keep
	victim_quit
}

# Its supervisor is killed, its first process too.
only_the_child_lives() {
	local first=$1 child=$2
	kill -9 "$SUP_PID"
	wait "$SUP_PID" 2>/dev/null || true
	SUP_PID=''
	kill -9 "$first"
	until_true 20 is_gone "$first"
	kill -0 "$child"
}

note_is_new() {
	grep "^also $1 " "$CHAIN/lock" | grep -qvxF "$2"
}

@test "a job of which only the first process has ended is not restarted beside the others" {
	local first child note
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- bash -c '
		sleep 1000 & echo $! > child.new; mv child.new child; wait'
	SUP_PID=$DOOR_PID
	until_true 20 test -s child
	child=$(cat child)
	checkpoint
	first=$(ps -o ppid= -p "$child" | tr -d ' ')
	only_the_child_lives "$first" "$child"
	run fg 20 "$RESTART" "$CHAIN"
	[ "$status" -eq 125 ] || fail "$status: $output"
	said ckpt-restart "still runs .pid $child."
	kill -9 "$child"
	until_true 20 pid_free "$child"
	is_root || return 0 # in a namespace all end together
	# and it is known before it is checkpointed again
	note=$(grep "^also $child " "$CHAIN/lock")
	door restart "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	until_true 20 note_is_new "$child" "$note"
	only_the_child_lives "$first" "$child"
	run fg 20 "$RESTART" "$CHAIN"
	said ckpt-restart "still runs .pid $child."
	kill -9 "$child"
}

@test "a job that still runs is not restarted beside itself" {
	local job try
	victim_start -- empty
	checkpoint
	job=$VICTIM_PID
	for try in 1 2; do
		# Only the supervisor dies; the job lives on (in a pid namespace it ends with it).
		kill -9 "$SUP_PID"
		wait "$SUP_PID" 2>/dev/null || true
		SUP_PID=''
		if is_root || [ $try -eq 1 ]; then
			for how in '' --detach '--at 1' '--pids namespace'; do
				# shellcheck disable=SC2086
				run fg 20 "$RESTART" $how "$CHAIN"
				[ "$status" -eq 125 ] || fail "$how: $status: $output" || return 1
				said ckpt-restart "still runs .pid $job."
			done
			kill -0 "$job"
			"$MERGE" -q "$CHAIN" # takes the lock too
			run fg 20 "$RESTART" "$CHAIN"
			[ "$status" -eq 125 ]
			kill -9 "$job"
			until_true 20 pid_free "$job" # not even a zombie: it is to get its id again
		fi
		victim_restart # in a namespace it waits for what is about to end
		job=$VICTIM_PID
	done
	# Whoever means it may have two.
	if is_root; then
		kill -9 "$SUP_PID"
		wait "$SUP_PID" 2>/dev/null || true
		SUP_PID=''
		fg 20 "$RESTART" --force --detach "$CHAIN" > pid
		[ "$(cat pid)" != "$job" ]
		kill -0 "$job"
		run fg 20 "$RESTART" "$CHAIN"
		said ckpt-restart "still runs .pid $(cat pid)."
		kill -9 "$(cat pid)"
		until_true 20 pid_free "$(cat pid)"
		kill -9 "$job"
		until_true 20 pid_free "$job"
		victim_restart
	fi
	victim_quit
}

@test "no increment is built on what cannot be restarted any more" {
	victim_start -- empty
	checkpoint
	checkpoint
	[ "$(stats_last kind)" = incremental ]
	rm "$CHAIN/000001.img" # of which the newest one is only the child
	checkpoint
	[ "$(stats_last kind)" = full ]
	printf x | dd of="$CHAIN/000003.img" bs=1 seek=8 conv=notrunc status=none
	checkpoint
	[ "$(stats_last kind)" = full ]
	victim_kill
	victim_restart
	victim_quit
}

@test "closed standard streams do not confuse anything" {
	run bash -c "exec 0<&- 1>&- 2>&-
		exec '$RUN' -q -o '$CHAIN' -- sh -c 'ls /proc/self/fd > $T/fds; exit 4'"
	[ "$status" -eq 4 ]
}

# --- what is refused ------------------------------------------------------------------------------

# refused THING REGEX: the attempt fails with a message, the job goes on, the last good image stays.
refused() {
	victim_start -- refused "$1"
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "not refused: $(tail -n 1 "$STATS")" || return 1
	tail -n 1 "$STATS" | grep -qiE "$2" || fail "message: $(tail -n 1 "$STATS")" || return 1
	grep -qiE "^ckpt-run: .*($2)" run1.stderr ||
		fail "nothing on standard error: $(cat run1.stderr)" || return 1
	[ -z "$(ls "$CHAIN" | grep -v '^lock$')" ] || fail "left in the chain: $(ls "$CHAIN")" ||
		return 1
	victim_poke
	victim_quit
}

@test "a ckpt-run in the job is refused by name" {
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- "$RUN" -o "$T/inner" -- \
		"$VICTIMS/victim-empty" "$BASE"
	SUP_PID=$DOOR_PID
	wait_victim '^ready '
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")"
	grep -qE 'pid [0-9]+: ckpt-run is not supported .*one around the job' run1.stderr ||
		fail "$(cat run1.stderr)"
	run fg 20 "$INSPECT" --pid "$(descendants "$SUP_PID" | head -n 1)"
	[[ $output =~ "ckpt-run is not supported (a ckpt-run takes the whole tree" ]]
	victim_quit
}

@test "io_uring is refused by name" {
	refused io_uring 'pid [0-9]+ fd [0-9]+: .*io_uring'
}

@test "an AIO context is refused by name" {
	refused aio 'pid [0-9]+: a Linux AIO context mapped at 0x[0-9a-f]+ .*innodb_use_native_aio'
}

@test "the program's own userfaultfd is refused by name" {
	refused userfaultfd 'fd [0-9]+: userfaultfd is not supported .--fd [0-9]+=close'
}

@test "perf events are refused by name" {
	refused perf 'perf'
}

@test "bpf objects are refused by name" {
	refused bpf 'bpf'
}

@test "KVM is refused by name" {
	refused kvm 'kvm'
}

@test "sockets of strange kinds are refused by name" {
	refused socket 'pid [0-9]+ fd [0-9]+: a (vsock|crypto) socket'
}

@test "mq_notify() with a value that the program can see is refused by name" {
	refused mq_notify 'pid [0-9]+ fd [0-9]+: mq_notify.* whose value the program can see'
}

@test "mq_notify() by a process that shares another's descriptors is refused by name" {
	refused mq_notify_shared 'pid [0-9]+ fd [0-9]+: mq_notify.* by process [0-9]+, which shares'
}

@test "a process under a seccomp filter is refused" {
	refused seccomp 'seccomp'
}

@test "a process that is not dumpable is refused" {
	! is_root || skip "root may (tree_creds)"
	refused nondumpable 'dumpable'
}

@test "a process that another one traces is refused, and can be had when the tracer has gone" {
	victim_start -- empty
	local job
	job=$(descendants "$SUP_PID" | head -n 1)
	door tracer "$VICTIMS/victim-tracer" "$T/tracer" "$job"
	local tracer=$DOOR_PID
	until_true 10 grep -q . "$T/tracer.out"
	! grep -q '^skip' "$T/tracer.out" || { kill -9 "$tracer"; skip "tracing is not allowed"; }
	real_attempt
	[ "$(stats_last result)" = failed ] || fail "$(tail -n 1 "$STATS")"
	tail -n 1 "$STATS" | grep -q "traced by process $tracer"
	ln -sfn quit "$T/tracer.poke"
	wait_gone "$tracer"
	checkpoint
	victim_quit
}

@test "a 32-bit program is refused" {
	printf '%s\n' '.globl _start' '_start:' 'mov $162,%eax' 'mov $ts,%ebx' \
		'xor %ecx,%ecx' 'int $0x80' 'jmp _start' \
		'.data' 'ts: .long 1000, 0' > p32.s
	gcc -m32 -nostdlib -static -o p32 p32.s 2>/dev/null || skip "no 32-bit assembler here"
	door alone ./p32
	until_true 10 eval 'is_gone "$DOOR_PID" || [ "/proc/$DOOR_PID/exe" -ef p32 ]'
	is_gone "$DOOR_PID" && skip "the kernel runs no 32-bit programs"
	kill -9 "$DOOR_PID"
	STARTS=1
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- ./p32
	SUP_PID=$DOOR_PID
	until_true 10 eval '[ -n "$(descendants "$SUP_PID")" ]'
	real_attempt
	[ "$(stats_last result)" = failed ]
	tail -n 1 "$STATS" | grep -q '32-bit'
	victim_kill
}

@test "a set-user-id or foreign process cannot be traced, and the message says why" {
	is_root && skip "root may trace it"
	run fg 10 "$RUN" -o "$CHAIN" --once --pid 1
	[ "$status" -ne 0 ] && [ "$status" -lt 126 ]
	said ckpt-run '(permit|permission|allowed|user|owner)'
	[ ! -e "$CHAIN" ]
}

@test "where Yama forbids tracing, the message names it" {
	[ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo none)" = 1 ] && ! is_root ||
		skip "Yama does not restrict us here"
	door other "$VICTIMS/victim-empty" "$BASE"
	wait_victim '^ready '
	run fg 10 "$RUN" -o "$CHAIN" --once --pid "$DOOR_PID"
	[ "$status" -ne 0 ]
	said ckpt-run 'ptrace_scope'
	kill -9 "$DOOR_PID"
}

# --- interrupts -----------------------------------------------------------------------------------

@test "Ctrl-C at any moment of ckpt-run: the job gets it, and nothing is left" {
	local i seed=${CKPT_TEST_SEED:-$RANDOM}
	echo "seed $seed"
	RANDOM=$seed
	for ((i = 0; i < 30; i++)); do
		rm -rf "$CHAIN" "$BASE".*
		door "int" "$RUN" -q -i 0.02 -o "$CHAIN" -- "$VICTIMS/victim-busy" "$BASE"
		sleep "0.$(printf '%05d' $((RANDOM % 30000)))"
		# As a terminal would: to the whole group.
		until_true 5 kill -INT -- "-$DOOR_PID" 2>/dev/null
		exit_of "$DOOR_PID" 20
		[ "$STATUS" -eq 130 ] || fail "round $i: exit $STATUS: $(cat int.stderr)" ||
			return 1
		until_true 20 nothing_left || fail "round $i left $(test_processes)" || return 1
		! compgen -G "$CHAIN/*.img" > /dev/null || check_chain || return 1
	done
}

is_stopped() {
	grep -qs '^State:.*T' "/proc/$1/status"
}

@test "Ctrl-C just when the chain has been made leaves no empty chain and no program begun" {
	KEEP=(CKPT_FAULT=run-claimed=stop)
	door int "$RUN" -o "$CHAIN" -- touch "$T/begun"
	KEEP=()
	until_true 20 is_stopped "$DOOR_PID"
	[ -d "$CHAIN" ]
	kill -INT "$DOOR_PID"
	kill -CONT "$DOOR_PID"
	exit_of "$DOOR_PID" 20
	[ "$STATUS" -eq 130 ] || fail "exit $STATUS: $(cat int.stderr)"
	[ ! -e "$CHAIN" ] && [ ! -e "$T/begun" ]
	# One that is ignored stays so.
	KEEP=(CKPT_FAULT=run-claimed=stop)
	trap '' HUP
	(door_exec nohup "$RUN" -o "$CHAIN" -- touch "$T/begun") > nohup.stdout 2>&1 < /dev/null &
	DOOR_PID=$!
	trap - HUP
	KEEP=()
	until_true 20 is_stopped "$DOOR_PID"
	kill -HUP "$DOOR_PID"
	kill -CONT "$DOOR_PID"
	exit_of "$DOOR_PID" 20
	[ "$STATUS" -eq 0 ] && [ -e "$T/begun" ] || fail "exit $STATUS: $(cat nohup.stdout)"
}

@test "Ctrl-C at any moment of ckpt-restart: all of the job or nothing, and the chain stays" {
	local i seed=${CKPT_TEST_SEED:-$RANDOM} sum
	echo "seed $seed"
	RANDOM=$seed
	make_chain threads 32
	sum=$(sha256sum "$CHAIN"/*.img)
	for ((i = 0; i < 30; i++)); do
		door "int" "$RESTART" -q --no-checkpoint "$CHAIN"
		sleep "0.$(printf '%05d' $((RANDOM % 20000)))"
		until_true 5 kill -INT -- "-$DOOR_PID" 2>/dev/null
		exit_of "$DOOR_PID" 20
		[ "$STATUS" -ne 0 ] || fail "round $i: exit 0" || return 1
		until_true 10 nothing_left || fail "round $i left $(test_processes)" || return 1
		[ "$sum" = "$(sha256sum "$CHAIN"/*.img)" ] || fail "round $i touched the images" ||
			return 1
	done
	victim_restart
	victim_quit
}
