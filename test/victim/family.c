/* SPDX-License-Identifier: BSD-2-Clause */
/* Victims of several processes: see the header. */
#include "family.h"

#include <linux/futex.h>

struct member *family;
static void *own_page; /* private to each: written anew at every answer */
static uint64_t own_seed;

void family_init(void)
{
	family = mmap(NULL, sizeof *family * FAMILY_MAX, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(family != MAP_FAILED);
	own_page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(own_page != MAP_FAILED);
	page_fill(own_page, own_seed);
}

static void futex_wait(uint32_t *word, uint32_t value)
{
	(void)syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void futex_wake(uint32_t *word)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void set(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
	futex_wake(word);
}

static uint32_t get(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

pid_t family_fork(int n)
{
	pid_t pid = fork();

	(void)n;
	check_sys(pid >= 0);
	return pid;
}

void family_note(int n, int parent)
{
	family[n].pid = getpid();
	family[n].ppid = getppid();
	family[n].pgid = getpgrp();
	family[n].sid = getsid(0);
	family[n].parent = parent;
	set(&family[n].here, 1);
}

/* Is the id that of a member? Then it must stay what it is. */
static bool is_member(pid_t id)
{
	for (int i = 0; i < FAMILY_MAX; i++)
		if (family[i].here && family[i].pid == id)
			return true;
	return false;
}

void family_verify(int n)
{
	const struct member *m = &family[n];
	uint64_t was = own_seed;

	check(page_is(own_page, was), "member %d: its memory has changed", n);
	own_seed = mix(was + (uint64_t)n + 1);
	page_fill(own_page, own_seed);
	if (victim_newpids())
		return;
	check(getpid() == m->pid, "member %d: pid %d, not %d", n, getpid(), m->pid);
	if (m->parent >= 0)
		check(getppid() == family[m->parent].pid, "member %d: parent %d, not %d", n,
		      getppid(), family[m->parent].pid);
	else
		check(!is_member(getppid()), "member %d: parent %d is a member", n, getppid());
	if (m->sid == m->pid || is_member(m->sid))
		check(getsid(0) == m->sid, "member %d: session %d, not %d", n, getsid(0), m->sid);
	else
		check(!is_member(getsid(0)), "member %d: session %d is a member's", n, getsid(0));
	if (m->pgid == m->pid || is_member(m->pgid))
		check(getpgrp() == m->pgid, "member %d: group %d, not %d", n, getpgrp(), m->pgid);
	else
		check(!is_member(getpgrp()), "member %d: group %d is a member's", n, getpgrp());
}

void family_serve(int n)
{
	struct member *m = &family[n];

	for (;;) {
		uint32_t asked = get(&m->asked);

		if (asked == get(&m->answered)) {
			futex_wait(&m->asked, asked);
			continue;
		}
		family_verify(n);
		if (m->also)
			m->also(n);
		set(&m->answered, asked);
	}
}

void family_wait(int n)
{
	for (int i = 1; i < n; i++)
		while (!get(&family[i].here))
			futex_wait(&family[i].here, 0);
}

void family_ask_one(int i)
{
	uint32_t asked = get(&family[i].asked) + 1, now;

	set(&family[i].asked, asked);
	while ((now = get(&family[i].answered)) != asked)
		futex_wait(&family[i].answered, now);
}

void family_ask(int n)
{
	for (int i = 1; i < n; i++)
		family_ask_one(i);
	family_verify(0);
}

void wait_state(pid_t pid, char state)
{
	char path[40], text[400], *p;

	(void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
	for (int i = 0; i < 12000; i++) {
		(void)read_small(path, text, sizeof text);
		p = strrchr(text, ')');
		if (p && p[2] == state)
			return;
		sleep_ms(5);
	}
	check(false, "process %d does not come into state %c", pid, state);
}
