#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Real programs, to the end, with three rounds of SIGKILL and restart at random moments; the output
# must be as without.

load ../lib/common
load ../lib/program

# Big inputs are made once for all tests of the file. Each program takes some three seconds by
# itself: three rounds of up to a sixth of that, and a checkpoint before each, must fit into it.
setup_file() {
	export INPUTS=$BATS_FILE_TMPDIR
	awk 'BEGIN { x = 1; for (i = 0; i < 4600000; i++) { x = (x * 16807) % 2147483647
		printf "%d %x some more text on it %d\n", x, (x * 7919) % 1000003, i } }' \
		> "$INPUTS/text"
	head -c 120000000 "$INPUTS/text" > "$INPUTS/half"
	truncate -s 800M "$INPUTS/sparse"
	echo 'something' >> "$INPUTS/sparse"
}

teardown_file() {
	rm -f "$BATS_FILE_TMPDIR/text" "$BATS_FILE_TMPDIR/half" "$BATS_FILE_TMPDIR/sparse"
}

@test "bc -l computing pi" {
	need bc
	printf 'scale=2800\n4*a(1)\n' > pi.bc
	same_answer "bc -lq < $T/pi.bc > out" out
}

@test "sort of a 200 MB file with temporary files" {
	# One merge at the end: a temporary file that is removed between a checkpoint and a crash is
	# not there for the restart, which says so.
	same_answer "sort -S 20M -T . --batch-size=400 --parallel=2 -o out $INPUTS/text" out
}

@test "xz -T2" {
	need xz
	head -c 35000000 "$INPUTS/text" > head
	same_answer "xz -T2 -1 -c $T/head > out" out
}

@test "gzip < in > out" {
	same_answer "gzip -6 < $INPUTS/half > out" out
}

@test "zstd -T2" {
	need zstd
	same_answer "zstd -q -T2 -8 $INPUTS/half -o out" out
}

@test "sha512sum of a big file" {
	same_answer "sha512sum $INPUTS/sparse > out" out
}

@test "awk" {
	cat > program.awk <<'AWK'
BEGIN {
	x = 1
	for (i = 0; i < 12000000; i++) {
		x = (x * 16807) % 2147483647
		c[x % 1000]++
		if (i % 100000 == 0)
			print i, x
	}
	for (k = 0; k < 1000; k++)
		s += k * c[k]
	print s
}
AWK
	same_answer "awk -f $T/program.awk > out" out
}

@test "perl" {
	need perl
	cat > program.pl <<'PERL'
my (%h, $x) = ();
$x = 1;
$| = 1;
for my $i (0 .. 30_000_000) {
	$x = ($x * 16807) % 2147483647;
	$h{$x % 5000} .= "a" if $i % 50 == 0;
	print "$i $x\n" if $i % 200_000 == 0;
}
print join(",", map { length $h{$_} } sort keys %h), "\n";
PERL
	same_answer "perl $T/program.pl > out" out
}

@test "python3 that writes a result file line by line" {
	same_answer "$PYTHON $PROGRAMS/lines.py 1300000" result
}

@test "python3 with numpy and a threaded BLAS" {
	"$PYTHON" -c 'import numpy' 2>/dev/null ||
		skip "numpy is not installed (test/run --with-programs)"
	KEEP=(OPENBLAS_NUM_THREADS=4)
	same_answer "$PYTHON $PROGRAMS/matrices.py 80 > out" out
}

@test "sqlite3 doing long inserts with a journal" {
	need sqlite3
	mkdir in
	sqlite3 in/db 'pragma journal_mode=delete;
		create table t(a integer primary key, b text, c integer);
		insert into t values (0, "x", 0)'
	cat > inserts.sql <<'SQL'
pragma cache_size=-400000;
begin immediate;
update t set b = 'y';
with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000000)
	insert into t select i, hex(i * 7919 % 1000003), i * i % 7919 from n;
commit;
select count(*), sum(c), max(b) from t;
pragma integrity_check;
SQL
	same_answer "sqlite3 -batch db < $T/inserts.sql > out" out
	sqlite3 ref/db .dump | sha256sum > ref/dump
	sqlite3 job/db .dump | sha256sum > job/dump
	cmp ref/dump job/dump
	[ ! -e job/db-journal ]
}

@test "a static binary: busybox" {
	need busybox
	truncate -s 600M sparse
	same_answer "busybox sha256sum $T/sparse > out" out
}

@test "a static program against musl" {
	need musl-gcc
	musl-gcc -O2 -static -o program "$PROGRAMS/threads.c"
	same_answer "$T/program 12000 > out" out
}

@test "a dynamic program against musl" {
	need musl-gcc
	musl-gcc -O2 -o program "$PROGRAMS/threads.c"
	"$T/program" 1 > /dev/null 2>&1 || skip "no dynamic loader of musl's here"
	same_answer "$T/program 12000 > out" out
}

@test "64 threads with mutexes, condition variables and thread creation in a loop" {
	gcc -O2 -pthread -o program "$PROGRAMS/threads.c"
	same_answer "$T/program 12000 > out" out
}

@test "an OpenMP program" {
	gcc -O2 -fopenmp -o program "$PROGRAMS/openmp.c" || skip "no OpenMP here"
	KEEP=(OMP_NUM_THREADS=4)
	same_answer "$T/program 300 > out" out
}

@test "a C++ program with exceptions and std::thread" {
	need g++
	g++ -O1 -std=c++17 -pthread -o program "$PROGRAMS/exceptions.cc"
	same_answer "$T/program 100 > out" out
}
