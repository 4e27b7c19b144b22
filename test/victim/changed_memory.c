/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that changes in every way a program can change it, and a model of what it must hold. */
#include "changed.h"

#include <sys/uio.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_MERGEABLE
#define MADV_MERGEABLE   12
#define MADV_UNMERGEABLE 13
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

struct region regions[REGIONS];
uint64_t rng, seeds, steps_done;
int file_fd;
static char *recent; /* where something was unmapped last */

uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng * 0x2545f4914f6cdd1dull >> 33) % n;
}

/* --- the model ------------------------------------------------------------------------------ */

static bool is_blank(const struct region *r, unsigned i)
{
	const char *p = r->at + i * PAGE;

	return r->kind == FILE_PRIVATE ? page_is(p, FILE_SEED + i) : page_is_zero(p);
}

static void verify_page(const struct region *r, unsigned i)
{
	uint64_t want = r->page[i] & ~MAYBE;
	const char *p = r->at + i * PAGE;
	bool good = want == BLANK ? is_blank(r, i) : page_is(p, want);

	if (!good && (r->page[i] & MAYBE))
		good = is_blank(r, i);
	check(good, "step %llu: page %u of region %d (kind %d, at %p) is not %#llx",
	      (unsigned long long)steps_done, i, (int)(r - regions), (int)r->kind,
	      (const void *)r->at, (unsigned long long)r->page[i]);
}

static void verify_region(struct region *r)
{
	if (r->kind == NOTHING || !r->npages)
		return;
	if (!(r->prot & PROT_READ))
		check_sys(mprotect(r->at, r->npages * PAGE, PROT_READ) == 0);
	for (unsigned i = 0; i < r->npages; i++)
		verify_page(r, i);
	if (!(r->prot & PROT_READ))
		check_sys(mprotect(r->at, r->npages * PAGE, r->prot) == 0);
}

void verify_all(void)
{
	for (unsigned i = 0; i < REGIONS; i++)
		verify_region(&regions[i]);
}

/* --- making and unmaking -------------------------------------------------------------------- */

static void forget(struct region *r)
{
	if (r->fd >= 0)
		check_sys(close(r->fd) == 0);
	r->kind = NOTHING;
	r->fd = -1;
	r->home = NULL;
}

void unmake(struct region *r)
{
	if (r->kind == NOTHING || r->kind == BREAK)
		return;
	check_sys(munmap(r->at, r->npages * PAGE) == 0);
	recent = r->at;
	forget(r);
}

static void *map(struct region *r, void *at, int how)
{
	size_t len = r->npages * PAGE;

	switch (r->kind) {
	case FILE_PRIVATE:
		return mmap(at, len, r->prot, MAP_PRIVATE | how, file_fd, 0);
	case SHARED:
		return mmap(at, len, r->prot, MAP_SHARED | MAP_ANONYMOUS | how, -1, 0);
	case SHARED_FD:
		return mmap(at, len, r->prot, MAP_SHARED | how, r->fd, 0);
	default:
		return mmap(at, len, r->prot, MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0);
	}
}

static void make_huge(struct region *r)
{
	char *p = mmap(NULL, 2 * HUGE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	size_t head;

	check_sys(p != MAP_FAILED);
	head = -(uintptr_t)p & (HUGE_LEN - 1);
	if (head)
		check_sys(munmap(p, head) == 0);
	check_sys(munmap(p + head + HUGE_LEN, HUGE_LEN - head) == 0);
	r->at = p + head;
	r->npages = HUGE_LEN / PAGE;
	(void)madvise(r->at, HUGE_LEN, MADV_HUGEPAGE);
}

void make(struct region *r)
{
	static const enum kind kinds[] = { ANON,   ANON,      ANON,         ANON,
					   SHARED, SHARED_FD, FILE_PRIVATE, HUGE };

	if (r->kind != NOTHING)
		return;
	r->kind = kinds[rnd(COUNT_OF(kinds))];
	if (r->kind == HUGE && rnd(2))
		r->kind = ANON;
	r->npages = 1 + (unsigned)rnd(MAX_PAGES);
	r->prot = PROT_READ | PROT_WRITE;
	memset(r->page, 0, sizeof r->page);
	if (r->kind == SHARED_FD) {
		r->fd = memfd_create("changed", MFD_CLOEXEC);
		check_sys(r->fd >= 0 && ftruncate(r->fd, (off_t)(r->npages * PAGE)) == 0);
	}
	if (r->kind == HUGE) {
		make_huge(r);
		return;
	}
	r->at = MAP_FAILED;
	if (recent && rnd(2)) /* often at the address of something that has just gone */
		r->at = map(r, recent, MAP_FIXED_NOREPLACE);
	if (r->at == MAP_FAILED)
		r->at = map(r, NULL, 0);
	check_sys(r->at != MAP_FAILED);
}

/* Something else of the same kind at the same place, without a moment in between. */
void replace(struct region *r)
{
	if (r->kind == BREAK || r->kind == NOTHING || r->kind == SHARED_FD)
		return;
	r->prot = PROT_READ | PROT_WRITE;
	check_sys(map(r, r->at, MAP_FIXED) == r->at);
	memset(r->page, 0, sizeof r->page);
}

void shrink(struct region *r)
{
	unsigned n;

	if (r->kind == NOTHING || r->kind == BREAK || r->kind == HUGE)
		return;
	n = 1 + (unsigned)rnd(r->npages);
	if (n < r->npages)
		check_sys(munmap(r->at + n * PAGE, (r->npages - n) * PAGE) == 0);
	r->npages = n;
}

/* The end of it is a region of its own from now on, still in the same mapping. */
void split(struct region *r)
{
	struct region *o = &regions[rnd(REGIONS)];
	unsigned n;

	if (r->kind != ANON || o->kind != NOTHING || r->npages < 2)
		return;
	n = 1 + (unsigned)rnd(r->npages - 1);
	*o = *r;
	o->at = r->at + n * PAGE;
	o->home = o->at;
	o->npages = r->npages - n;
	memmove(o->page, o->page + n, o->npages * sizeof o->page[0]);
	r->npages = n;
}

/* Where there is room for it. */
static bool go_home(struct region *r)
{
	size_t len = r->npages * PAGE;
	char *room = mmap(r->home, len, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (room == MAP_FAILED)
		return false;
	check_sys(mremap(r->at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
	recent = r->at;
	r->at = room;
	return true;
}

/* Moves, grows or shrinks; what is new is blank. */
void move(struct region *r)
{
	unsigned n = r->npages;
	char *to;

	if (r->kind != ANON)
		return;
	if (r->home && r->home != r->at && rnd(4) && go_home(r))
		return;
	if (rnd(2))
		n = 1 + (unsigned)rnd(MAX_PAGES);
	if (rnd(2)) {
		char *room = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		check_sys(room != MAP_FAILED);
		to = mremap(r->at, r->npages * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	} else {
		to = mremap(r->at, r->npages * PAGE, n * PAGE, MREMAP_MAYMOVE);
	}
	check_sys(to != MAP_FAILED);
	if (to != r->at)
		recent = r->at;
	for (unsigned i = r->npages; i < n; i++)
		r->page[i] = BLANK;
	r->at = to;
	r->npages = n;
}

void protect(struct region *r)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };

	if (r->kind == NOTHING || !r->npages)
		return;
	r->prot = prots[rnd(COUNT_OF(prots))];
	check_sys(mprotect(r->at, r->npages * PAGE, r->prot) == 0);
}

/* --- writing -------------------------------------------------------------------------------- */

static void fill(struct region *r, unsigned i, unsigned how)
{
	static char buf[PAGE];
	/* now and then pages that are alike, for KSM */
	uint64_t seed = rnd(6) ? ++seeds : TWIN_SEED + rnd(8);
	struct iovec from = { buf, PAGE }, to = { r->at + i * PAGE, PAGE };
	int p[2];

	if (how < 2) {
		page_fill(r->at + i * PAGE, seed);
	} else {
		page_fill(buf, seed);
		if (how == 2) {
			check_sys(pipe(p) == 0 && write(p[1], buf, PAGE) == (ssize_t)PAGE);
			check_sys(read(p[0], r->at + i * PAGE, PAGE) == (ssize_t)PAGE);
			check_sys(close(p[0]) == 0 && close(p[1]) == 0);
		} else {
			check_sys(process_vm_writev(getpid(), &from, 1, &to, 1, 0) ==
				  (ssize_t)PAGE);
		}
	}
	r->page[i] = seed;
}

void writes(struct region *r)
{
	unsigned n = 1 + (unsigned)rnd(12), how = (unsigned)rnd(4), at, step = 1 + (unsigned)rnd(3);

	if (r->kind == NOTHING || !r->npages || !(r->prot & PROT_WRITE))
		return;
	at = (unsigned)rnd(r->npages);
	for (; n && at < r->npages; n--, at += step)
		fill(r, at, how);
}

/* --- advice --------------------------------------------------------------------------------- */

static void blank(struct region *r, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		r->page[i] = BLANK;
}

void advise(struct region *r)
{
	static const int hints[] = { MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE,
				     MADV_PAGEOUT,       MADV_COLD,           MADV_NORMAL };
	static const int marks[] = { MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE,
				     MADV_NOHUGEPAGE };
	unsigned first, n, hint;

	if (r->kind == NOTHING || !r->npages)
		return;
	first = (unsigned)rnd(r->npages);
	n = 1 + (unsigned)rnd(r->npages - first);
	if (rnd(6) == 0) { /* what would split a mapping is for all of it */
		(void)madvise(r->at, r->npages * PAGE, marks[rnd(COUNT_OF(marks))]);
		return;
	}
	switch (rnd(4)) {
	case 0:
		if (madvise(r->at + first * PAGE, n * PAGE, MADV_DONTNEED) == 0 &&
		    r->kind != SHARED && r->kind != SHARED_FD)
			blank(r, first, n);
		break;
	case 1:
		if (madvise(r->at + first * PAGE, n * PAGE, MADV_FREE) == 0)
			for (unsigned i = first; i < first + n; i++)
				r->page[i] |= r->page[i] ? MAYBE : 0;
		break;
	case 2:
		if ((r->kind == SHARED || r->kind == SHARED_FD) && (r->prot & PROT_WRITE) &&
		    madvise(r->at + first * PAGE, n * PAGE, MADV_REMOVE) == 0)
			blank(r, first, n);
		break;
	default: /* whether it is heeded or refused, nothing may change */
		hint = (unsigned)rnd(COUNT_OF(hints));
		if (hints[hint] == MADV_COLLAPSE &&
		    r->kind == HUGE) /* all of it, or nothing happens */
			first = 0, n = r->npages;
		(void)madvise(r->at + first * PAGE, n * PAGE, hints[hint]);
	}
}

/* Read only: the zero page comes in, or the file's. */
void touch(struct region *r)
{
	if (r->kind == NOTHING || !r->npages || !(r->prot & PROT_READ))
		return;
	for (unsigned i = (unsigned)rnd(r->npages); i < r->npages; i += 1 + (unsigned)rnd(5))
		verify_page(r, i);
}
