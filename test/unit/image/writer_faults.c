/* SPDX-License-Identifier: BSD-2-Clause */
/* The image writer fails or dies at each of its fault points, or finds the disk full: what then
 * lies there. */
#include "imgtest.h"

#include "util/cleanup.h"
#include "util/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The whole writing of an image in a child, which answers 0 (written), or 1 after saying why on
 * standard error. */
static int write_in_child(const struct tree *t, const char *fault, rlim_t limit, char *msg,
			  size_t room)
{
	int p[2], status;
	pid_t pid;
	ssize_t n;

	CHECK(pipe2(p, O_CLOEXEC) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		struct image_params params = { .state = test_id(2),
					       .parent = test_id(1),
					       .seq = 2,
					       .compress = COMPRESS_NONE,
					       .threads = 2,
					       .direct = limit != 0 };
		struct rlimit rl = { limit, limit };
		struct image_writer *w;
		struct err err = { 0 };
		int rc;

		if (fault) {
			setenv("CKPT_FAULT", fault, 1);
			fault_init();
		}
		if (limit && setrlimit(RLIMIT_FSIZE, &rl) < 0)
			_exit(9);
		rc = image_writer_open(AT_FDCWD, "000002.img", &params, &w, &err);
		for (uint64_t i = 0; rc == 0 && i < 200; i++) {
			uint8_t *buf = image_writer_buffer(w, &err);

			if (!buf) {
				image_writer_abort(w);
				rc = -1;
				break;
			}
			memset(buf, (int)i + 1, IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
			rc = image_writer_submit(w, 1, i * 64, 64, &err);
			if (rc < 0)
				image_writer_abort(w);
		}
		if (rc == 0)
			rc = image_writer_commit(w, t, NULL, &err);
		(void)write(p[1], err.msg, strlen(err.msg));
		_exit(rc < 0);
	}
	close(p[1]);
	n = read(p[0], msg, room - 1);
	msg[n > 0 ? n : 0] = '\0';
	close(p[0]);
	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void faults(const struct tree *t)
{
	static const char *const points[] = { "image-open",    "image-write", "image-write:3",
					      "image-trailer", "image-fsync", "image-rename",
					      "image-dirsync" };
	char msg[1024], kill[64];

	for (unsigned i = 0; i < ARRAY_SIZE(points); i++) {
		bool late = !strcmp(
			points[i],
			"image-dirsync"); /* the name is there, only not known to be durable */

		CHECK(write_in_child(t, points[i], 0, msg, sizeof msg) == 1);
		if (!strstr(msg, "injected fault") || !strstr(msg, "000002.img"))
			test_fail(__FILE__, __LINE__, points[i], msg);
		CHECK(count_files() == late);
		(void)unlink("000002.img");
		(void)snprintf(kill, sizeof kill, "%s=kill", points[i]);
		CHECK(write_in_child(t, kill, 0, msg, sizeof msg) == 128 + SIGKILL);
		CHECK((access("000002.img", F_OK) == 0) == late);
		(void)unlink("000002.img");
		(void)unlink(".000002.img.tmp");
	}
	CHECK(write_in_child(t, NULL, 0, msg, sizeof msg) == 0);
	CHECK(count_files() == 1 && unlink("000002.img") == 0);
}

static void disk_full(const struct tree *t)
{
	static const rlim_t limits[] = { 1, 4096, 1 << 20, (20 << 20) + 12345, (50 << 20) + 4096 };
	char msg[1024];

	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
		CHECK(write_in_child(t, NULL, limits[i], msg, sizeof msg) == 1);
		CHECK(strstr(msg, "000002.img': File too large"));
		CHECK(count_files() == 0);
	}
}

int main(void)
{
	struct arena *a = arena_new();
	struct tree *t = test_tree(a);

	test_dir();
	faults(t);
	disk_full(t);
	arena_free(a);
	return 0;
}
