/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes whose first thread has ended while others go on: the root, and a child of it. How the
 * first thread ended can still be seen; the process ends as its last thread does (before Linux
 * 5.17, as its first one has). "ipc": the root also has a System V segment that it has not attached
 * and a message queue without a name: the job itself looks into both at a checkpoint.
 */
#include "family.h"

#include <mqueue.h>
#include <sys/shm.h>
#include <sys/wait.h>

enum { LEADER_STATUS = 7, LAST_STATUS = 3 };

static uint64_t turns;
static pid_t child, my_tid;
static int end_status; /* what the kernel makes of the two */
static bool *leave;    /* shared: the child's last thread is to end */
static int segment = -1;
static mqd_t queue = (mqd_t)-1;
static const char content[] = "of a process whose first thread has ended";

static void make_ipc(void)
{
	struct mq_attr attr = { .mq_maxmsg = 2, .mq_msgsize = sizeof content };
	char name[64], *at;

	segment = shmget(IPC_PRIVATE, 3 * PAGE, 0600);
	check_sys(segment >= 0);
	at = shmat(segment, NULL, 0);
	check_sys(at != (char *)-1);
	memcpy(at + 2 * PAGE, content, sizeof content);
	check_sys(shmdt(at) == 0);
	victim_say("ipc -m %d", segment);
	(void)snprintf(name, sizeof name, "/ckpt-ended-%d-%llx", (int)getpid(),
		       (unsigned long long)now_ns(CLOCK_REALTIME));
	queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attr);
	check_sys(queue >= 0 && mq_unlink(name) == 0);
	check_sys(mq_send(queue, content, sizeof content, 5) == 0);
}

static void check_ipc(void)
{
	char text[sizeof content] = "", *at;
	unsigned priority = 0;

	if (segment < 0)
		return;
	at = shmat(segment, NULL, SHM_RDONLY);
	check_sys(at != (char *)-1);
	check(!memcmp(at + 2 * PAGE, content, sizeof content), "the segment");
	check_sys(shmdt(at) == 0);
	check(mq_receive(queue, text, sizeof text, &priority) == sizeof content && priority == 5 &&
		      !strcmp(text, content),
	      "the message: '%s' (%u)", text, priority);
	check_sys(mq_send(queue, content, sizeof content, 5) == 0);
	if (!strcmp(victim_token(), "quit"))
		check_sys(shmctl(segment, IPC_RMID, NULL) == 0);
}

static void check_leader(int n)
{
	char path[48], text[400], *p;

	if (victim_newpids())
		return;
	(void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)getpid());
	(void)read_small(path, text, sizeof text);
	p = strrchr(text, ')');
	check(p && p[2] == 'Z', "member %d: its first thread has not ended: %s", n, text);
	p = strrchr(text, ' '); /* exit_code */
	check(p && atoi(p) == (n ? LEADER_STATUS << 8 : 0),
	      "member %d: the first thread's status: %s", n, text);
	check(gettid_raw() == my_tid, "member %d: thread %d, not %d", n, gettid_raw(), my_tid);
	turns++;
}

/* Threads that do not end the process by returning to the C library. */
static _Noreturn void end_thread(int status)
{
	for (;;)
		(void)syscall(SYS_exit, status);
}

static void check_child(int n)
{
	check_leader(n);
	if (*leave)
		end_thread(LAST_STATUS);
}

static void *run_child(void *arg)
{
	my_tid = gettid_raw();
	family[1].also = check_child;
	family_note(1, 0);
	family_serve(1);
	return arg;
}

static void *count(void *arg)
{
	for (;; sleep_ms(1))
		__atomic_fetch_add((uint64_t *)arg, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void check_end(void)
{
	int status;

	*leave = true;
	__atomic_fetch_add(&family[1].asked, 1, __ATOMIC_RELEASE);
	(void)syscall(SYS_futex, &family[1].asked, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
	check_sys(waitpid(child, &status, 0) == child);
	check(status == end_status, "the child ended with status %#x, not %#x", status, end_status);
}

static void *run_root(void *arg)
{
	static uint64_t counted;
	uint64_t before;
	bool more = true;

	my_tid = gettid_raw();
	(void)thread_start(count, &counted);
	wait_state(getpid(), 'Z');
	wait_state(child, 'Z');
	victim_ready();
	while (more) {
		more = victim_wait();
		if (!more)
			break;
		before = __atomic_load_n(&counted, __ATOMIC_RELAXED);
		check_leader(0);
		check_ipc();
		family_ask(2);
		while (__atomic_load_n(&counted, __ATOMIC_RELAXED) == before)
			sleep_ms(1);
		if (!strcmp(victim_token(), "quit"))
			check_end();
		victim_ok();
	}
	_exit(0);
	return arg;
}

static void *end_last(void *arg)
{
	wait_state(getpid(), 'Z');
	end_thread(LAST_STATUS);
	return arg;
}

static void find_end_status(void)
{
	pid_t pid = fork();

	check_sys(pid >= 0);
	if (pid == 0) {
		(void)thread_start(end_last, NULL);
		end_thread(LEADER_STATUS);
	}
	check_sys(waitpid(pid, &end_status, 0) == pid);
	check(WIFEXITED(end_status), "status %#x", end_status);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	leave = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(leave != MAP_FAILED);
	find_end_status();
	family_note(0, -1);
	child = family_fork(1);
	if (child == 0) {
		(void)thread_start(run_child, NULL);
		end_thread(LEADER_STATUS);
	}
	family_wait(2);
	if (argc > 2)
		make_ipc();
	(void)thread_start(run_root, NULL);
	end_thread(0);
}
