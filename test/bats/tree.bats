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

@test "tree_files: descriptions, descriptor tables, directories, pipes between processes" {
	three_generations tree_files
}

@test "tree_shm: shared and private memory, mutexes across processes" {
	three_generations tree_shm
}

@test "tree_stopped: stopped children stay stopped, waited for or not" {
	three_generations tree_stopped
}
