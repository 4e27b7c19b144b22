/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: POSIX message queues with messages in them, in the order of their priorities: one open
 * for both directions, one that this process may only write to and another only read from, one that
 * is full and has no name any more, with a thread waiting for room ("apart": a process); and one of
 * whose next message a signal is to tell (mq_notify).
 */
#include "victim.h"

#include <mqueue.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { BOTH, ONEWAY, FULL, TOLD, NQUEUES };
#define DEPTH 6
#define SIZE  200

static struct shared {
	pid_t sender_tid;
	unsigned sent;
} * shared;
static mqd_t queue[NQUEUES], reader, again;
static char name[NQUEUES][64];
static pid_t child, sender;
static int order[2], report[2];
static volatile sig_atomic_t told;

static void on_message(int sig)
{
	(void)sig;
	told++;
}

static mqd_t make(int i)
{
	struct mq_attr attr = { .mq_maxmsg = DEPTH, .mq_msgsize = SIZE };
	mqd_t q;

	(void)snprintf(name[i], sizeof name[i], "/ckpt-%d-%d-%llx", (int)getpid(), i,
		       (unsigned long long)now_ns(CLOCK_REALTIME));
	q = mq_open(name[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attr);
	check_sys(q >= 0);
	return q;
}

static void put(mqd_t q, unsigned priority, unsigned round, unsigned n)
{
	char text[SIZE];
	int len = snprintf(text, sizeof text, "round %u message %u", round, n);

	/* one is empty, one as long as can be */
	if (n == 1)
		len = 0;
	if (n == 2) {
		memset(text + len, 'x', SIZE - (size_t)len);
		len = SIZE;
	}
	check(mq_send(q, text, (size_t)len, priority) == 0, "message %u: %s", n, strerror(errno));
}

static void get(mqd_t q, unsigned priority, unsigned round, unsigned n)
{
	char text[SIZE], want[SIZE];
	int len = snprintf(want, sizeof want, "round %u message %u", round, n);
	struct timespec past = { 0 };
	unsigned got = 99;
	ssize_t r = mq_timedreceive(q, text, sizeof text, &got, &past);

	check(r >= 0, "message %u: %s", n, strerror(errno));
	if (n == 1 || n == 2)
		check(r == (n == 1 ? 0 : SIZE), "message %u has %zd bytes", n, r);
	else
		check(r == len, "message %u has %zd bytes: %.*s", n, r, (int)r, text);
	check(got == priority && !memcmp(text, want, (size_t)(r < len ? r : len)),
	      "message %u has priority %u: %.*s", n, got, (int)r, text);
}

static void empty(mqd_t q)
{
	struct mq_attr attr;

	check_sys(mq_getattr(q, &attr) == 0);
	check(attr.mq_curmsgs == 0 && attr.mq_maxmsg == DEPTH && attr.mq_msgsize == SIZE,
	      "%ld messages of %ld, %ld bytes", attr.mq_curmsgs, attr.mq_maxmsg, attr.mq_msgsize);
}

static void fill(unsigned round)
{
	static const unsigned priority[] = { 0, 7, 0, 32767, 7 };

	for (unsigned i = 0; i < COUNT_OF(priority); i++)
		put(queue[BOTH], priority[i], round, i);
	put(queue[ONEWAY], 3, round, 0);
	put(queue[ONEWAY], 3, round, 3);
}

static void drain(mqd_t both, mqd_t oneway, unsigned round)
{
	get(both, 32767, round, 3);
	get(both, 7, round, 1);
	get(both, 7, round, 4);
	get(both, 0, round, 0);
	get(both, 0, round, 2);
	empty(both);
	get(oneway, 3, round, 0);
	get(oneway, 3, round, 3);
	empty(oneway);
}

/* Has what is in the queues by fork; takes it out when told to. */
static _Noreturn void be_child(void)
{
	unsigned round;

	while (read(order[0], &round, sizeof round) == (ssize_t)sizeof round) {
		drain(queue[BOTH], reader, round);
		check_sys(write(report[1], &round, sizeof round) == (ssize_t)sizeof round);
	}
	_exit(0);
}

static void *send_on(void *arg)
{
	(void)arg;
	__atomic_store_n(&shared->sender_tid, gettid_raw(), __ATOMIC_RELEASE);
	for (;;) {
		put(again, 5, shared->sent, 100);
		__atomic_add_fetch(&shared->sent, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void ask(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };

	check_sys(mq_notify(queue[TOLD], &event) == 0);
}

static void check_told(unsigned round)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };
	sig_atomic_t before = told;

	check(mq_notify(queue[TOLD], &event) == -1 && errno == EBUSY, "nobody is to be told");
	put(queue[TOLD], 0, round, 50);
	for (int i = 0; i < 60000 && told == before; i++)
		sleep_ms(1);
	check(told == before + 1, "told %d times", (int)(told - before));
	get(queue[TOLD], 0, round, 50);
	ask();
}

static void start_sender(bool apart)
{
	if (!apart)
		(void)thread_start(send_on, NULL);
	else if ((sender = fork()) == 0)
		(void)send_on(NULL);
	check_sys(sender >= 0);
	while (!__atomic_load_n(&shared->sender_tid, __ATOMIC_ACQUIRE))
		sleep_ms(1);
}

static void set_up(bool apart)
{
	struct sigaction sa = { .sa_handler = on_message, .sa_flags = SA_RESTART };

	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	check_sys(shared != MAP_FAILED);
	check_sys(sigaction(SIGUSR2, &sa, NULL) == 0);
	for (int i = 0; i < NQUEUES; i++)
		queue[i] = make(i);
	victim_say("queue %s %s %s", name[BOTH], name[ONEWAY], name[TOLD]);
	/* this process may only write, the child only read */
	reader = mq_open(name[ONEWAY], O_RDONLY | O_CLOEXEC);
	check_sys(reader >= 0 && mq_close(queue[ONEWAY]) == 0);
	queue[ONEWAY] = mq_open(name[ONEWAY], O_WRONLY | O_CLOEXEC | O_NONBLOCK);
	again = mq_open(name[FULL], O_WRONLY | O_CLOEXEC);
	check_sys(queue[ONEWAY] >= 0 && again >= 0 && mq_unlink(name[FULL]) == 0);
	check_sys(pipe2(order, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0);
	child = fork();
	check_sys(child >= 0);
	if (!child) {
		(void)close(order[1]);
		be_child();
	}
	check_sys(mq_close(reader) == 0);
	ask();
	start_sender(apart);
}

int main(int argc, char **argv)
{
	unsigned round = 0, got, taken = 0;

	victim_init(argc, argv);
	set_up(argc > 2 && !strcmp(argv[2], "apart"));
	fill(0);
	thread_wait_blocked(shared->sender_tid, SYS_mq_timedsend);
	victim_ready();
	while (victim_wait()) {
		thread_wait_blocked(shared->sender_tid, SYS_mq_timedsend);
		check(__atomic_load_n(&shared->sent, __ATOMIC_ACQUIRE) == taken + DEPTH, "%u sent",
		      shared->sent);
		for (int i = 0; i < 3; i++)
			get(queue[FULL], 5, taken++, 100);
		thread_wait_blocked(shared->sender_tid, SYS_mq_timedsend);
		check_told(round);
		check_sys(write(order[1], &round, sizeof round) == (ssize_t)sizeof round);
		check_sys(read(report[0], &got, sizeof got) == (ssize_t)sizeof got);
		check(got == round, "the child drained round %u", got);
		fill(++round);
		victim_ok();
	}
	check_sys(!sender || (kill(sender, SIGKILL) == 0 && waitpid(sender, NULL, 0) == sender));
	check_sys(close(order[1]) == 0 && waitpid(child, NULL, 0) == child);
	check_sys(mq_unlink(name[BOTH]) == 0 && mq_unlink(name[ONEWAY]) == 0);
	check_sys(mq_unlink(name[TOLD]) == 0);
	return 0;
}
