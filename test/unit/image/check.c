/* SPDX-License-Identifier: BSD-2-Clause */
/* The tree's invariants: a sound tree passes, and each way of breaking it is refused by name. */
#include "imgtest.h"

#include "image/check.h"
#include "util/arena.h"

#include <string.h>

static void no_process(struct tree *t)
{
	t->n_processes = 0;
}

static void space_twice(struct tree *t)
{
	t->spaces[1].id = 1;
}

static void space_kind(struct tree *t)
{
	t->spaces[1].kind = 9;
}

static void space_zero(struct tree *t)
{
	t->spaces[1].id = 0;
}

static void file_twice(struct tree *t)
{
	t->files[1].id = 10;
}

static void file_kind(struct tree *t)
{
	t->files[0].kind = 77;
}

static void file_path(struct tree *t)
{
	t->files[0].path = NULL;
}

static void file_detail(struct tree *t)
{
	t->files[1].detail = NULL;
}

static void file_space(struct tree *t)
{
	((struct file_content *)t->files[1].detail)->space = 1;
}

static void epoll_file(struct tree *t)
{
	((struct file_epoll *)t->files[2].detail)->watches[0].file = 4;
}

static void vma_empty(struct tree *t)
{
	t->processes[0].vmas[0].end = t->processes[0].vmas[0].start;
}

static void vma_odd(struct tree *t)
{
	t->processes[0].vmas[0].end++;
}

static void vma_order(struct tree *t)
{
	t->processes[0].vmas[2].start = 0x20000000;
}

static void leader_alone(struct tree *t)
{
	t->processes[0].n_threads = 1;
	t->processes[0].leader_ended = 1;
}

static void memory_shared(struct tree *t)
{
	static struct process two[2];

	two[0] = two[1] = t->processes[0];
	t->processes = two;
	t->n_processes = 2;
}

static void vma_high(struct tree *t)
{
	t->processes[0].vmas[2].end = 0xffffffffffff0000u;
}

static void vma_space(struct tree *t)
{
	t->processes[0].vmas[2].shm_space = 1;
}

static void vma_guard(struct tree *t)
{
	t->processes[0].vmas[1].guards[0].end = 0x90001000;
}

static void huge_order(struct tree *t)
{
	static struct range two[2] = { { 0x400000, 0x600000 }, { 0x200000, 0x400000 } };

	t->processes[0].huge = two;
	t->processes[0].n_huge = 2;
}

static void leader(struct tree *t)
{
	t->processes[0].pid = 99;
}

static void tid_twice(struct tree *t)
{
	t->processes[0].threads[1].tid = 100;
}

static void gregs(struct tree *t)
{
	t->processes[0].threads[1].gregs.len = 8;
}

static void siginfo(struct tree *t)
{
	t->processes[0].threads[1].pending[0].siginfo.len = 127;
}

static void fd_twice(struct tree *t)
{
	t->processes[0].fds[1].fd = 3;
}

static void fd_file(struct tree *t)
{
	t->processes[0].fds[1].file = 1;
}

static void mm_space(struct tree *t)
{
	t->processes[0].space = 2;
}

static void no_exe(struct tree *t)
{
	t->processes[0].exe = NULL;
}

static const struct {
	void (*breaks)(struct tree *t);
	const char *msg;
} cases[] = {
	{ no_process, "no process" },
	{ space_twice, "space 1 occurs twice" },
	{ space_kind, "unknown kind 9" },
	{ space_zero, "has no id" },
	{ file_twice, "file 10 occurs twice" },
	{ file_kind, "unknown kind 77" },
	{ file_path, "has no path" },
	{ file_detail, "has no detail" },
	{ file_space, "space 1 is missing" },
	{ epoll_file, "watched file 4 is missing" },
	{ vma_empty, "not a page range" },
	{ vma_odd, "not a page range" },
	{ vma_order, "out of order" },
	{ vma_high, "not a page range" },
	{ leader_alone, "its only thread has ended" },
	{ memory_shared, "mappings of its own" },
	{ vma_space, "space 1 is missing" },
	{ vma_guard, "guard range" },
	{ huge_order, "out of place" },
	{ leader, "not the leader" },
	{ tid_twice, "thread 100 occurs twice" },
	{ gregs, "registers have 8" },
	{ siginfo, "127 bytes" },
	{ fd_twice, "fd 3 occurs twice" },
	{ fd_file, "file 1 is missing" },
	{ mm_space, "space 2 is missing" },
	{ no_exe, "executable" },
};

int main(void)
{
	struct err err = { 0 };

	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct arena *a = arena_new();
		struct tree *t = test_tree(a);

		err_clear(&err);
		OK(tree_check(t, &err), &err);
		cases[i].breaks(t);
		CHECK(tree_check(t, &err) == -EBADMSG && err.exit_status == EXIT_BAD_IMAGE);
		CHECK_MSG(&err, cases[i].msg);
		arena_free(a);
	}
	return 0;
}
