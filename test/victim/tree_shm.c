/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory across fork: a shared anonymous mapping and a memfd are one for all; private memory is
 * each process's own, also where it was the parent's before (copy on write). A process-shared mutex
 * is held by a child while another waits for it; a robust one is held by a member that then dies.
 */
#include "family.h"

#include <sys/wait.h>

enum { LAST = 5, PAGES = 64 };

static uint8_t *shared, *from_memfd, *private;
static struct locks {
	pthread_mutex_t plain, robust;
	uint32_t waited;
	uint64_t turn;
} * locks;

static void check_memory(int n)
{
	uint64_t turn = locks->turn;

	for (size_t i = 0; i < PAGES; i++) {
		check(page_is(shared + i * PAGE, turn + i), "member %d: shared page %zu", n, i);
		check(page_is(from_memfd + i * PAGE, turn + 2 * i), "member %d: memfd page %zu", n,
		      i);
		check(page_is(private + i * PAGE, i % 2 ? 7 + i : (uint64_t)n * 100 + i),
		      "member %d: private page %zu", n, i);
	}
	locks->turn++;
	for (size_t i = 0; i < PAGES; i++) {
		page_fill(shared + i * PAGE, locks->turn + i);
		page_fill(from_memfd + i * PAGE, locks->turn + 2 * i);
	}
}

/* Member 3 holds the mutex all the time and gives it away for a moment when it is asked. */
static void pass_lock(int n)
{
	uint32_t before = __atomic_load_n(&locks->waited, __ATOMIC_ACQUIRE);

	check_memory(n);
	check_sys(pthread_mutex_unlock(&locks->plain) == 0);
	while (__atomic_load_n(&locks->waited, __ATOMIC_ACQUIRE) == before)
		sleep_ms(1);
	check_sys(pthread_mutex_lock(&locks->plain) == 0);
}

static _Noreturn void wait_for_lock(int n)
{
	family_note(n, 0);
	for (;;) {
		check_sys(pthread_mutex_lock(&locks->plain) == 0);
		__atomic_fetch_add(&locks->waited, 1, __ATOMIC_RELEASE);
		check_sys(pthread_mutex_unlock(&locks->plain) == 0);
		sleep_ms(20);
	}
}

static void start(int n)
{
	if (family_fork(n))
		return;
	for (size_t i = 0; i < PAGES; i += 2)
		page_fill(private + i * PAGE, (uint64_t)n * 100 + i);
	if (n == 3)
		check_sys(pthread_mutex_lock(&locks->plain) == 0);
	if (n == 2)
		check_sys(pthread_mutex_lock(&locks->robust) == 0);
	if (n == 4)
		wait_for_lock(n);
	family[n].also = n == 3 ? pass_lock : check_memory;
	family_note(n, 0);
	family_serve(n);
}

static void set_up(void)
{
	int fd = memfd_create("tree", MFD_CLOEXEC);
	pthread_mutexattr_t attr;

	check_sys(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0);
	shared =
		mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	from_memfd = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	private = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	locks = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(shared != MAP_FAILED && from_memfd != MAP_FAILED && private != MAP_FAILED &&
		  locks != MAP_FAILED);
	for (size_t i = 0; i < PAGES; i++) {
		page_fill(shared + i * PAGE, i);
		page_fill(from_memfd + i * PAGE, 2 * i);
		page_fill(private + i * PAGE, i % 2 ? 7 + i : i);
	}
	check_sys(pthread_mutexattr_init(&attr) == 0);
	check_sys(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) == 0);
	check_sys(pthread_mutex_init(&locks->plain, &attr) == 0);
	check_sys(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) == 0);
	check_sys(pthread_mutex_init(&locks->robust, &attr) == 0);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	set_up();
	family_note(0, -1);
	for (int n = 1; n < LAST; n++)
		start(n), n == 3 ? family_wait(4) : (void)0;
	family_wait(LAST);
	victim_ready();
	while (victim_wait()) {
		check_memory(0);
		family_ask(4);
		victim_ok();
	}
	check(pthread_mutex_trylock(&locks->robust) == EBUSY, "the robust mutex is free");
	check_sys(kill(family[2].pid, SIGKILL) == 0);
	check_sys(waitpid(family[2].pid, NULL, 0) == family[2].pid);
	check(pthread_mutex_lock(&locks->robust) == EOWNERDEAD,
	      "nobody has noticed the owner's end");
	for (int i = 1; i < LAST; i++)
		if (i != 2)
			(void)kill(family[i].pid, SIGKILL);
	return 0;
}
