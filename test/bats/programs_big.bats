#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Language runtimes that bring machinery of their own (collectors, compilers, thread pools, event
# loops, handlers for every signal): killed and restarted three times, the same answer. Their
# packages come with test/run --with-programs.

load ../lib/common
load ../lib/program

@test "node.js with timers, streams and worker threads" {
	need node
	same_answer "node $PROGRAMS/timers.js 500 > out" out
}

@test "Java with its garbage collector running" {
	need javac
	javac -d . "$PROGRAMS/Garbage.java" || skip "javac does not work here"
	same_answer "java -Xmx96m -cp $T Garbage 1500 > out" out
}

@test "a Go program with goroutines" {
	need go
	GOCACHE=$T/cache GOFLAGS=-mod=mod go build -o program "$PROGRAMS/goroutines.go" ||
		skip "go does not work here"
	same_answer "$T/program 130 > out" out
}

@test "R computing" {
	need R
	same_answer "R --vanilla --no-echo -f $PROGRAMS/matrices.R --args 120 > out" out
}
