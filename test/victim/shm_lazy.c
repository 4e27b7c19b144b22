/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: shared memory of three processes that is touched in no order, through mappings at
 * different places, by the programs and by the kernel for them; a memfd that is read by its
 * descriptor; a robust mutex whose owner is killed. "gently": no call that needs all of it.
 * "owner": the mutex's owner is killed at the first poke that asks for it (a token that begins with
 * "t" does not).
 */
#include "family.h"

#include <sys/wait.h>

enum { LAST = 3, NPAGES = 4096, HOLES = 64, LOCK = NPAGES - 7, FD_PAGES = 128 };

static char *area, *second, *private;
static uint32_t *version; /* of each page; too small to be missing */
static bool gently;
static int fd, ends[2];
static uint64_t rounds;

static uint64_t seed(unsigned p)
{
	return (uint64_t)p << 20 | version[p];
}

static void check_page(const char *map, unsigned p)
{
	check(page_is(map + p * PAGE, seed(p)), "page %u in round %d", p, (int)rounds);
}

static void renew(char *map, unsigned p)
{
	version[p]++;
	page_fill(map + p * PAGE, seed(p));
}

static unsigned any(unsigned n, unsigned i)
{
	return (unsigned)(mix(version[n] + rounds * 10000 + n * 1000 + i) % (LOCK - 8));
}

/* Each from its own side, and what one writes another finds. */
static void touch_all_sides(int n)
{
	char *map = n == 1 ? second : area;
	char page[PAGE];

	rounds++;
	for (unsigned i = 0; i < (gently ? 6 : 60); i++) {
		unsigned p = any((unsigned)n, i);

		check_page(i % 3 ? map : area, p);
		if (i % 2)
			renew(map, p);
	}
	/* the kernel: from a missing page, and into one */
	for (unsigned i = 100; i < 103; i++) {
		unsigned from = any((unsigned)n, i), to = any((unsigned)n, i + 50);

		check_sys(write(ends[1], map + from * PAGE, PAGE) == PAGE);
		check_sys(read(ends[0], page, PAGE) == PAGE);
		check(page_is(page, seed(from)), "write() from page %u", from);
		version[to]++;
		page_fill(page, seed(to));
		check_sys(write(ends[1], page, PAGE) == PAGE);
		check_sys(read(ends[0], map + to * PAGE, PAGE) == PAGE);
		check_page(area, to);
	}
	for (unsigned i = 0; i < 4; i++)
		check(page_is_zero(map + (NPAGES + (rounds * 4 + i) % HOLES) * PAGE),
		      "a page that never was");
	for (unsigned i = 0; i < FD_PAGES; i += 17) {
		check_sys(pread(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE);
		check(page_is(page, 99 + i), "page %u of the memfd", i);
	}
	check(page_is(private + any((unsigned)n, 200) * PAGE, 5), "private memory");
}

static void set_up(void)
{
	const int prot = PROT_READ | PROT_WRITE;
	size_t len = (NPAGES + HOLES) * PAGE;
	pthread_mutexattr_t attr;

	area = mmap(NULL, len, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	version = mmap(NULL, NPAGES * sizeof *version, prot, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	private = mmap(NULL, NPAGES * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(area != MAP_FAILED && version != MAP_FAILED && private != MAP_FAILED);
	second = mremap(area, 0, len, MREMAP_MAYMOVE);
	check_sys(second != MAP_FAILED);
	fd = memfd_create("open", MFD_CLOEXEC);
	check_sys(fd >= 0 && ftruncate(fd, FD_PAGES * PAGE) == 0 && pipe(ends) == 0);
	for (unsigned p = 0; p < NPAGES; p++) {
		page_fill(area + p * PAGE, seed(p));
		page_fill(private + p * PAGE, 5);
	}
	for (unsigned p = 0; p < FD_PAGES; p++) {
		page_fill(private, 99 + p);
		check_sys(pwrite(fd, private, PAGE, (off_t)(p * PAGE)) == PAGE);
	}
	page_fill(private, 5);
	check_sys(pthread_mutexattr_init(&attr) == 0);
	check_sys(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0);
	check_sys(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	check_sys(pthread_mutex_init((pthread_mutex_t *)(area + LOCK * PAGE), &attr) == 0);
}

/* Nothing has touched the mutex since it was locked, nor does its owner's end. */
static void kill_owner(void)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(second + LOCK * PAGE);
	int rc;

	check_sys(kill(family[2].pid, SIGKILL) == 0);
	check_sys(waitpid(-1, NULL, 0) > 0);
	rc = pthread_mutex_lock(lock);
	check(rc == EOWNERDEAD, "nobody has noticed the owner's end: %d", rc);
	check_sys(pthread_mutex_consistent(lock) == 0);
	check_sys(pthread_mutex_unlock(lock) == 0);
}

int main(int argc, char **argv)
{
	bool owner = argc > 2 && !strcmp(argv[2], "owner");

	victim_init(argc, argv);
	gently = argc > 2;
	family_init();
	set_up();
	family_note(0, -1);
	for (int n = 1; n < LAST; n++) {
		if (family_fork(n))
			continue;
		if (n == 2)
			check_sys(pthread_mutex_lock((pthread_mutex_t *)(area + LOCK * PAGE)) == 0);
		family[n].also = touch_all_sides;
		family_note(n, 0);
		family_serve(n);
	}
	family_wait(LAST);
	victim_ready();
	while (victim_wait()) {
		if (owner && victim_token()[0] != 't') {
			kill_owner();
			victim_ok();
			continue;
		}
		family_ask(LAST);
		touch_all_sides(0);
		if (!gently) {
			/* while they are missing nobody's mappings change */
			check_sys(madvise(area, 8 * PAGE, MADV_REMOVE) == 0);
			for (unsigned p = 0; p < 8; p++) {
				check(page_is_zero(second + p * PAGE), "page %u came back", p);
				renew(area, p);
			}
			for (unsigned p = 0; p < NPAGES; p++)
				if (p < LOCK || p >= LOCK + 1)
					check_page(p % 2 ? area : second, p);
		}
		victim_ok();
	}
	for (int i = 1; i < LAST; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
