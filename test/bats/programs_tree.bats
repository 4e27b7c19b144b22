#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Real jobs of several processes: killed and restarted three times, the same answer. Content and
# names of files are not rolled back, so no job here does to a file what it could not do again.

load ../lib/common
load ../lib/program

@test "a bash script with pipelines, subshells, background jobs, traps and wait" {
	same_answer "bash $PROGRAMS/pipelines.sh 40 > out" out
}

@test "make -j4 building a C project" {
	need make
	mkdir in
	bash "$PROGRAMS/project.sh" in 36
	same_answer "make -s -j4 > out" program.out
	# In which order the four at a time begin is not make's to say. And what it had made between
	# the checkpoint and the kill is there, newer than its sources: it is not made, or told of,
	# again.
	[ -s job/out ]
	[ -z "$(comm -13 <(sort ref/out) <(sort job/out))" ]
	# all of its objects are whole
	cmp ref/program job/program
}

@test "a pool of python's multiprocessing" {
	same_answer "$PYTHON $PROGRAMS/pool.py 600 > out" out
}

@test "xargs -P" {
	cat > one.sh <<'SH'
seq "$1" $(($1 + 30000)) | sha256sum > "$1.sum"
SH
	same_answer "sh -c 'seq 2000 | xargs -P 4 -n 1 sh $T/one.sh && cat *.sum > out'" out
}

@test "gcc compiling a large file" {
	bash "$PROGRAMS/project.sh" . 1 900
	same_answer "gcc -O2 -pipe -c $T/part1.c -o out.o" out.o
}

@test "a pipeline of compressors" {
	need xz
	seq 1 8000000 > text
	echo 'sort -S 500M -T . text | xz -1 -T2 | tee copy.xz | xz -d | sha256sum > out' > line.sh
	mkdir in && mv text in
	same_answer "bash $T/line.sh" out copy.xz
}

@test "script with a shell in a pseudo-terminal" {
	need script
	same_answer "script -qec 'bash $PROGRAMS/numbers.sh 1800' /dev/null > out" out
}

@test "vim editing a file in a pseudo-terminal" {
	need vim
	same_answer "$PYTHON $PROGRAMS/typist.py text 150 > out" out text
}

@test "tmux with a shell in it" {
	need tmux
	cat > session.sh <<SH
unset TMUX
export SHELL=/bin/sh
t() { tmux -S \$PWD/sock -f /dev/null "\$@"; }
t new-session -d -x 100 -y 40 "bash $PROGRAMS/numbers.sh 1800 > numbers; \
	stty size > size; tmux -S \$PWD/sock wait-for -S finished; sleep 1000"
t wait-for finished
t list-panes -F '#{pane_width} #{pane_height} #{pane_current_command}' > out
cat size >> out
t kill-server
SH
	same_answer "bash $T/session.sh" out size
}

@test "PostgreSQL with a table being filled" {
	local bin key
	bin=$(find /usr/lib/postgresql/*/bin -name initdb -printf '%h\n' 2>/dev/null | tail -n 1)
	[ -n "$bin" ] || skip "postgresql is not installed (test/run --with-programs)"
	[ "$(id -u)" -ne 0 ] || skip "PostgreSQL does not run as root"
	mkdir in
	"$bin/initdb" -D in/data -U job --no-sync > /dev/null
	same_answer "bash $PROGRAMS/postgres.sh $bin 300000 > out" out
	grep -q '^server ended: 0' job/out
	read -r key _ < job/segment
	# of the server that was killed, in whose place another came
	ipcrm -M "$key" 2>/dev/null || true
}
