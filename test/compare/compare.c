/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every byte of the memory of a process that rests against the newest state of a chain, resolved
 * along its parents. Says which page differs.
 */
#include "compare.h"

#include "image/chain.h"
#include "image/reader.h"
#include "util/cleanup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct state {
	struct resolved *r;
	const struct tree *tree;
	int mem_fd;
	/* the block that was read last */
	unsigned image;
	uint32_t block;
	bool have_block;
	uint8_t *pages, *scratch;
	unsigned long compared, bad;
};

_Noreturn static void die(const struct err *err)
{
	fprintf(stderr, "compare: %s\n", err->msg);
	exit(2);
}

static const uint8_t *stored_page(struct state *s, const struct resolved_run *rr, uint64_t page)
{
	const struct image_reader *reader = resolved_image(s->r, rr->image);
	struct err err = { 0 };
	uint32_t block, at;

	image_reader_seek(reader, &rr->run, page - rr->run.page, &block, &at);
	if (!s->have_block || s->image != rr->image || s->block != block) {
		if (image_reader_block(reader, block, s->pages, s->scratch, &err) < 0)
			die(&err);
		s->have_block = true;
		s->image = rr->image;
		s->block = block;
	}
	return s->pages + (size_t)at * CKPT_PAGE_SIZE;
}

/* What a page that no run names reads as. */
static void absent_page(const struct vma *v, int file, uint64_t address, uint8_t *ret)
{
	memset(ret, 0, CKPT_PAGE_SIZE);
	if (file >= 0)
		(void)!pread(file, ret, CKPT_PAGE_SIZE, (off_t)(v->offset + (address - v->start)));
}

static void report(struct state *s, const struct vma *v, uint64_t address, const char *what)
{
	if (s->bad++ < 10)
		printf("%#llx in %#llx-%#llx (%s, prot %u): %s\n", (unsigned long long)address,
		       (unsigned long long)v->start, (unsigned long long)v->end,
		       v->path ? v->path : "", v->prot, what);
}

static bool is_guard(const struct vma *v, uint64_t address)
{
	for (unsigned i = 0; i < v->n_guards; i++)
		if (address >= v->guards[i].start && address < v->guards[i].end)
			return true;
	return false;
}

/* The kernel writes to a thread's rseq area whenever it has run: the processor's number. */
static void forget_rseq(const struct process *p, uint64_t address, uint8_t *a, uint8_t *b)
{
	for (unsigned i = 0; i < p->n_threads; i++) {
		const struct thread *t = &p->threads[i];
		uint64_t at = t->rseq_ptr - address;

		if (!t->rseq_ptr || at >= CKPT_PAGE_SIZE)
			continue;
		memset(a + at, 0, MIN(32u, CKPT_PAGE_SIZE - at));
		memset(b + at, 0, MIN(32u, CKPT_PAGE_SIZE - at));
	}
}

static void compare_vma(struct state *s, uint32_t space, const struct vma *v, uint64_t first_page)
{
	static uint8_t live[CKPT_PAGE_SIZE], held[CKPT_PAGE_SIZE], blank[CKPT_PAGE_SIZE];
	int file = v->kind == VMA_FILE ? open(v->path, O_RDONLY | O_CLOEXEC) : -1;
	unsigned n, at = 0;
	const struct resolved_run *runs = resolved_runs(s->r, space, &n);

	for (uint64_t a = v->start; a < v->end; a += CKPT_PAGE_SIZE) {
		uint64_t page = first_page + (a - v->start) / CKPT_PAGE_SIZE;
		const uint8_t *want = blank;
		const char *what = "is not what the image holds";

		while (at < n && runs[at].run.page + runs[at].run.npages <= page)
			at++;
		if (is_guard(v, a))
			continue;
		if (pread(s->mem_fd, live, sizeof live, (off_t)a) != (ssize_t)sizeof live) {
			/* beyond a file's end there is nothing, neither here nor there */
			if (v->kind == VMA_FILE || (at < n && runs[at].run.page <= page))
				continue;
			report(s, v, a, "cannot be read");
			continue;
		}
		if (at == n || runs[at].run.page > page) {
			absent_page(v, file, a, blank);
			what = "is not in the image";
		} else if (runs[at].run.kind == RUN_ZERO) {
			memset(blank, 0, sizeof blank);
			what = "is zero in the image";
		} else {
			want = stored_page(s, &runs[at], page);
		}
		s->compared++;
		memcpy(held, want, sizeof held);
		forget_rseq(&s->tree->processes[0], a, live, held);
		if (memcmp(live, held, sizeof live))
			report(s, v, a, what);
	}
	if (file >= 0)
		(void)close(file);
}

/* What moves by itself while the process rests (its stack), or is no memory of its own. */
static bool is_compared(const struct vma *v)
{
	if (v->kind == VMA_VDSO || v->kind == VMA_VSYSCALL || (v->advice & ADVICE_DROPPABLE))
		return false;
	if (v->kind == VMA_FILE && (v->flags & MAP_SHARED))
		return false;
	return !v->path || strcmp(v->path, "[stack]");
}

static void compare_process(struct state *s, const struct process *p)
{
	for (unsigned i = 0; i < p->n_vmas; i++) {
		const struct vma *v = &p->vmas[i];

		if (!is_compared(v))
			continue;
		if (v->kind == VMA_SHM)
			compare_vma(s, v->shm_space, v, v->offset / CKPT_PAGE_SIZE);
		else
			compare_vma(s, p->space, v, v->start / CKPT_PAGE_SIZE);
	}
}

bool compare_newest(const char *dir, pid_t pid, unsigned long *ret_pages)
{
	struct arena *arena = arena_new();
	struct state s = { .mem_fd = -1 };
	struct err err = { 0 };
	struct chain *chain;
	struct tree *tree = NULL;
	char path[64];

	s.pages = malloc((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
	s.scratch = malloc(IMAGE_BLOCK_SCRATCH);
	if (!arena || !s.pages || !s.scratch)
		exit(2);
	if (chain_open(dir, CHAIN_READ, &chain, &err) < 0 || chain_scan(chain, &err) < 0)
		die(&err);
	if (!chain_newest(chain) ||
	    chain_resolve(chain, chain_newest(chain)->name, &s.r, &err) < 0 ||
	    image_reader_tree(resolved_image(s.r, 0), arena, &tree, &err) < 0)
		die(&err);
	s.tree = tree;
	(void)snprintf(path, sizeof path, "/proc/%d/mem", pid);
	s.mem_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s.mem_fd < 0) {
		perror(path);
		exit(2);
	}
	compare_process(&s, &tree->processes[0]);
	(void)close(s.mem_fd);
	resolved_free(s.r);
	chain_free(chain);
	arena_free(arena);
	free(s.pages);
	free(s.scratch);
	*ret_pages += s.compared;
	return !s.bad && s.compared;
}
