#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Jobs of several processes: who they are to each other, what they share, and what must not be lost.

load ../lib/common

@test "tree_shape: a chain of processes" {
	three_generations tree_shape chain 12
}

@test "tree_shape: many children of one" {
	three_generations tree_shape wide 30
}

@test "tree_shape: a tree of processes" {
	three_generations tree_shape tree 31
}

@test "tree_sessions: sessions, groups, orphans, daemons" {
	three_generations tree_sessions
}

@test "tree_zombies: children that have ended and are waited for later" {
	three_generations tree_zombies
}
