/* SPDX-License-Identifier: BSD-2-Clause */
/* What writes beside a running job steps back: all threads of the writer, and nobody else. */
#include "imgtest.h"

#include "util/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS     2
#define ONE_THREAD  1 /* of ioprio_get(2) */
#define LOWEST      (2 << 13 | 7)
#define IDLE        (3 << 13 | 7)
#define NICE_BEHIND 10

static int nice_of(pid_t tid)
{
	return getpriority(PRIO_PROCESS, (id_t)tid);
}

static int io_of(pid_t tid)
{
	return (int)syscall(SYS_ioprio_get, ONE_THREAD, tid);
}

/* --- one thread
 * -----------------------------------------------------------------------------------
 */

static void *step_back(void *arg)
{
	io_step_back(gettid());
	CHECK(nice_of(gettid()) == NICE_BEHIND);
	CHECK(io_of(gettid()) == LOWEST);
	return arg;
}

static void test_thread(void)
{
	int my_nice = nice_of(gettid()), my_io = io_of(gettid());
	pthread_t t;

	CHECK(pthread_create(&t, NULL, step_back, NULL) == 0);
	CHECK(pthread_join(t, NULL) == 0);
	CHECK(nice_of(gettid()) == my_nice);
	CHECK(io_of(gettid()) == my_io);
}

/* Nobody gets more than he was started with. */
static void test_behind_already(void)
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(setpriority(PRIO_PROCESS, 0, 15) == 0);
		CHECK(syscall(SYS_ioprio_set, ONE_THREAD, 0, IDLE) == 0);
		io_step_back(gettid());
		CHECK(nice_of(gettid()) == 15);
		CHECK(io_of(gettid()) >> 13 == IDLE >> 13);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(status == 0);
}

/* --- a writer
 * -------------------------------------------------------------------------------------
 */

/* So many of this process's threads have. */
static unsigned stepped_back(void)
{
	DIR *dir = opendir("/proc/self/task");
	const struct dirent *e;
	unsigned n = 0;

	CHECK(dir);
	while ((e = readdir(dir))) {
		pid_t tid = atoi(e->d_name);

		if (tid > 0 && nice_of(tid) == NICE_BEHIND && io_of(tid) == LOWEST)
			n++;
	}
	closedir(dir);
	return n;
}

static void put_pages(struct image_writer *w, uint64_t from, uint64_t n)
{
	static uint8_t data[CKPT_PAGE_SIZE];
	struct err err = { 0 };

	for (uint64_t i = from; i < from + n; i++) {
		fill_page(data, CONTENT_RANDOM, 1, i, 0);
		OK(put_page(w, 1, i, data, &err), &err);
	}
}

/* They step back when they are told to, or, told before they have begun, as they begin. */
static void test_writer(const struct tree *tree, bool begun, const char *name)
{
	struct image_params params = { .state = test_id(2), .seq = 1, .threads = WORKERS };
	int my_nice = nice_of(gettid()), my_io = io_of(gettid());
	struct err err = { 0 };
	struct image_writer *w;

	test_alone();
	OK(image_writer_open(AT_FDCWD, name, &params, &w, &err), &err);
	if (begun) {
		put_pages(w, 0x10000, 8);
		OK(image_writer_drain(w, &err), &err);
		CHECK(stepped_back() == 0);
	}
	image_writer_background(w);
	while (stepped_back() < WORKERS + 1)
		(void)usleep(1000);
	CHECK(stepped_back() == WORKERS + 1);
	CHECK(nice_of(gettid()) == my_nice && io_of(gettid()) == my_io);
	put_pages(w, 0x10008, 8);
	OK(image_writer_commit(w, tree, NULL, &err), &err);
	CHECK(nice_of(gettid()) == my_nice && io_of(gettid()) == my_io);
}

int main(void)
{
	struct arena *a = arena_new();
	const struct tree *tree = test_tree(a);

	if (nice_of(0) >= NICE_BEHIND) {
		printf("it runs at nice level %d itself\n", nice_of(0));
		return 77;
	}
	(void)test_dir();
	test_thread();
	test_behind_already();
	test_writer(tree, false, "soon.img");
	test_writer(tree, true, "late.img");
	arena_free(a);
	return 0;
}
