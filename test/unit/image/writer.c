/* SPDX-License-Identifier: BSD-2-Clause */
/* Writer and reader: every mixture of pages comes back; streams, misuse, memory. */
#include "imgtest.h"

#include "util/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define FIRST 0x10000u /* page of the anonymous mapping */

static struct image_params params_of(uint32_t compress, int direct)
{
	return (struct image_params){ .state = test_id(2),
				      .parent = test_id(1),
				      .seq = 2,
				      .compress = compress,
				      .threads = 2,
				      .direct = direct };
}

/* What the model says of page i of the space. */
static unsigned kind_of(uint32_t space, uint64_t i)
{
	switch ((i / 7 + space) % 6) {
	case 0:
		return RUN_PARENT;
	case 1:
		return 0;
	case 2:
		return RUN_ZERO; /* through image_writer_run */
	case 3:
		return 10 + CONTENT_ZERO;
	case 4:
		return 10 + CONTENT_TEXT;
	default:
		return 10 + CONTENT_RANDOM;
	}
}

/* Pages [0, n) of a space: full buffers where the model allows, else what lies together. */
static void put_space(struct image_writer *w, uint32_t space, uint64_t first, uint64_t n)
{
	struct err err = { 0 };

	for (uint64_t i = 0; i < n;) {
		unsigned kind = kind_of(space, i), len = 1;
		uint8_t *buf;

		if (kind < 10) {
			if (kind)
				OK(image_writer_run(w, space, kind, first + i, 1, &err), &err);
			i++;
			continue;
		}
		buf = image_writer_buffer(w, &err);
		CHECK(buf);
		for (len = 0;
		     len < IMAGE_BLOCK_PAGES && i + len < n && kind_of(space, i + len) >= 10; len++)
			fill_page(buf + (size_t)len * CKPT_PAGE_SIZE, kind_of(space, i + len) - 10,
				  space, i + len, 0);
		OK(image_writer_submit(w, space, first + i, len, &err), &err);
		i += len;
	}
}

static void put_random_stretch(struct image_writer *w, uint64_t from, unsigned blocks)
{
	struct err err = { 0 };

	for (unsigned b = 0; b < blocks; b++) {
		uint8_t *buf = image_writer_buffer(w, &err);

		CHECK(buf);
		for (unsigned i = 0; i < IMAGE_BLOCK_PAGES; i++)
			fill_page(buf + (size_t)i * CKPT_PAGE_SIZE, CONTENT_RANDOM, 9,
				  from + b * 64 + i, 0);
		OK(image_writer_submit(w, 1, from + (uint64_t)b * IMAGE_BLOCK_PAGES,
				       IMAGE_BLOCK_PAGES, &err),
		   &err);
	}
}

static void check_space(struct image_reader *r, uint32_t space, uint64_t first, uint64_t n)
{
	uint8_t want[CKPT_PAGE_SIZE], got[CKPT_PAGE_SIZE];

	for (uint64_t i = 0; i < n; i++) {
		unsigned kind = kind_of(space, i), have = read_page(r, space, first + i, got);

		if (kind == 0 || kind == RUN_PARENT || kind == RUN_ZERO) {
			CHECK(have == kind);
			continue;
		}
		CHECK(have == (kind == 10 + CONTENT_ZERO ? RUN_ZERO : RUN_HERE));
		fill_page(want, kind - 10, space, i, 0);
		CHECK(!memcmp(want, got, sizeof want));
	}
}

#define STRETCH        (FIRST + 10000)
#define STRETCH_BLOCKS 120u /* more than the pool has */

static void write_mixture(struct image_writer *w, const struct tree *t, struct image_totals *totals)
{
	struct err err = { 0 };

	put_space(w, 2, 0, 1000); /* spaces in any order; the file holds them sorted */
	put_space(w, 1, FIRST, 3000);
	image_writer_hold(w); /* ended by itself when the pool is used up */
	put_random_stretch(w, STRETCH, STRETCH_BLOCKS);
	put_space(w, 3, 0, 200);
	OK(image_writer_commit(w, t, totals, &err), &err);
}

static void check_mixture(struct image_reader *r)
{
	uint8_t want[CKPT_PAGE_SIZE], got[CKPT_PAGE_SIZE];
	struct arena *a = arena_new();
	struct err err = { 0 };
	struct tree *t;

	OK(image_reader_verify(r, NULL, NULL, &err), &err);
	OK(image_reader_tree(r, a, &t, &err), &err);
	CHECK(t->n_processes == 1 && !strcmp(t->settings.name, "job"));
	check_space(r, 1, FIRST, 3000);
	check_space(r, 2, 0, 1000);
	check_space(r, 3, 0, 200);
	for (unsigned i = 0; i < STRETCH_BLOCKS * 64; i += 37) {
		CHECK(read_page(r, 1, STRETCH + i, got) == RUN_HERE);
		fill_page(want, CONTENT_RANDOM, 9, STRETCH + i, 0);
		CHECK(!memcmp(want, got, sizeof want));
	}
	arena_free(a);
}

static void count_codecs(struct image_reader *r, unsigned *raw, unsigned *lz4)
{
	*raw = *lz4 = 0;
	for (uint32_t i = 0; i < image_reader_info(r)->n_blocks; i++) {
		enum block_codec codec;
		uint32_t stored;
		uint64_t off;

		image_reader_block_where(r, i, &off, &stored, &codec);
		CHECK(codec != BLOCK_RAW || off % 4096 == 0);
		++*(codec == BLOCK_RAW ? raw : lz4);
	}
}

static void round_trip(const struct tree *t, uint32_t compress, int direct)
{
	struct image_params params = params_of(compress, direct);
	struct image_totals totals;
	struct image_writer *w;
	struct image_reader *r;
	struct err err = { 0 };
	unsigned raw, lz4;
	struct stat st;

	OK(image_writer_open(AT_FDCWD, "000002.img", &params, &w, &err), &err);
	CHECK(access("000002.img", F_OK) < 0 && access(".000002.img.tmp", F_OK) == 0);
	write_mixture(w, t, &totals);
	CHECK(count_files() == 1);
	CHECK(stat("000002.img", &st) == 0 && (st.st_mode & 07777) == 0600);
	CHECK(totals.bytes_stored == (uint64_t)st.st_size);
	OK(image_reader_open(AT_FDCWD, "000002.img", &r, &err), &err);
	if (direct)
		image_reader_direct(r);
	CHECK(image_reader_info(r)->seq == 2 &&
	      image_reader_info(r)->file_bytes == totals.bytes_stored);
	CHECK(totals.bytes_raw == totals.pages_written * 4096 && totals.pages_parent > 0 &&
	      totals.pages_zero > 0);
	count_codecs(r, &raw, &lz4);
	CHECK(compress == COMPRESS_NONE ? lz4 == 0 : lz4 > 0);
	CHECK(raw >= STRETCH_BLOCKS); /* random data stays raw */
	check_mixture(r);
	image_reader_free(r);
	CHECK(unlink("000002.img") == 0);
}

struct sink {
	int fd;
	uint8_t *data;
	size_t len;
};

static void *drain(void *arg)
{
	struct sink *s = arg;
	ssize_t n;

	s->data = malloc(64 << 20);
	while (s->data && (n = read(s->fd, s->data + s->len, 65536)) > 0)
		s->len += (size_t)n;
	return NULL;
}

static void to_a_pipe(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_LZ4, 1);
	struct image_writer *w;
	struct image_reader *r;
	struct err err = { 0 };
	struct sink sink = { 0 };
	pthread_t reader;
	int p[2];

	CHECK(pipe2(p, O_CLOEXEC) == 0);
	(void)fcntl(p[1], F_SETFL, O_NONBLOCK); /* somebody else's setting must not break us */
	sink.fd = p[0];
	CHECK(pthread_create(&reader, NULL, drain, &sink) == 0);
	OK(image_writer_open(p[1], NULL, &params, &w, &err), &err);
	write_mixture(w, t, NULL);
	CHECK(close(p[1]) == 0); /* borrowed: still open until here */
	CHECK(pthread_join(reader, NULL) == 0);
	OK(image_reader_open_mem(sink.data, sink.len, &r, &err), &err);
	check_mixture(r);
	image_reader_free(r);
	free(sink.data);
	close(p[0]);
	CHECK(count_files() == 0);
}

static void to_a_closed_pipe(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_NONE, 0);
	struct image_writer *w;
	struct err err = { 0 };
	int p[2], rc;

	CHECK(pipe2(p, O_CLOEXEC) == 0);
	close(p[0]);
	OK(image_writer_open(p[1], NULL, &params, &w, &err), &err);
	rc = image_writer_commit(w, t, NULL, &err);
	CHECK(rc == -EPIPE); /* and no SIGPIPE: the threads block signals */
	CHECK_MSG(&err, "cannot write 'image stream': Broken pipe");
	close(p[1]);
}

static void to_a_full_disk(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_NONE, 0);
	struct image_writer *w;
	struct err err = { 0 };
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	OK(image_writer_open(fd, NULL, &params, &w, &err), &err);
	CHECK(image_writer_commit(w, t, NULL, &err) == -ENOSPC);
	CHECK_MSG(&err, "cannot write 'image stream': No space left on device");
	CHECK(strstr(err.hint, "free some space"));
	close(fd);
}

static void misuse(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_NONE, 0);
	uint8_t page[CKPT_PAGE_SIZE] = { 1 };
	struct image_writer *w;
	struct err err = { 0 };

	params.parent = (struct id128){ 0 };
	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	CHECK(image_writer_submit(w, 1, 0, 1, &err) == -EINVAL);
	CHECK(image_writer_run(w, 1, RUN_PARENT, 0, 1, &err) == -EINVAL);
	CHECK_MSG(&err, "full image has no parent");
	CHECK(image_writer_run(w, 0, RUN_ZERO, 0, 1, &err) == -EINVAL);
	CHECK(image_writer_run(w, 1, RUN_ZERO, UINT64_MAX, 2, &err) == -EINVAL);
	OK(put_page(w, 1, 5, page, &err), &err);
	OK(put_page(w, 1, 5, page, &err), &err);
	CHECK(image_writer_commit(w, t, NULL, &err) == -EINVAL);
	CHECK_MSG(&err, "given twice");
	CHECK(count_files() == 0);

	/* what could not be read again is not written */
	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	((struct tree *)(uintptr_t)t)->processes[0].threads[0].tid++;
	CHECK(image_writer_commit(w, t, NULL, &err) == -EBADMSG);
	CHECK_MSG(&err, "refusing to write");
	((struct tree *)(uintptr_t)t)->processes[0].threads[0].tid--;
	CHECK(count_files() == 0);

	CHECK(image_writer_open(AT_FDCWD, "no/such/x.img", &params, &w, &err) == -ENOENT);
	CHECK_MSG(&err, "no/such/x.img");
	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	put_random_stretch(w, 0, 40);
	image_writer_abort(w);
	CHECK(count_files() == 0);
}

static void leftovers_do_not_hinder(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_AUTO, 0);
	struct image_writer *w;
	struct err err = { 0 };

	spill(".x.img.tmp", "old", 3);
	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	OK(image_writer_commit(w, t, NULL, &err), &err);
	CHECK(count_files() == 1 && unlink("x.img") == 0);
}

/* ThreadSanitizer's own memory is several times ours. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define MEMORY_LIMIT_KIB (512 * 1024)
#endif
#endif
#ifndef MEMORY_LIMIT_KIB
#define MEMORY_LIMIT_KIB (40 * 1024) /* 24 MiB in blocks, and what the threads need */
#endif

/* A long job's worth of pages must not take memory with it. */
static void bounded_memory(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_LZ4, 1);
	struct image_writer *w;
	struct err err = { 0 };
	struct rusage before, after;

	CHECK(getrusage(RUSAGE_SELF, &before) == 0);
	OK(image_writer_open(AT_FDCWD, "x.img", &params, &w, &err), &err);
	for (uint64_t i = 0; i < 2048; i++) { /* 512 MiB */
		uint8_t *buf = image_writer_buffer(w, &err);

		CHECK(buf);
		memset(buf, (int)i, IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
		OK(image_writer_submit(w, 1, i * 64, 64, &err), &err);
	}
	OK(image_writer_commit(w, t, NULL, &err), &err);
	CHECK(getrusage(RUSAGE_SELF, &after) == 0);
	CHECK(after.ru_maxrss - before.ru_maxrss < MEMORY_LIMIT_KIB);
	CHECK(unlink("x.img") == 0);
}

/* How many of our threads have this nice level. */
static unsigned threads_at(int level)
{
	CLEANUP_DIR DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	unsigned n = 0;

	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			n += getpriority(PRIO_PROCESS, (id_t)atoi(e->d_name)) == level;
	return n;
}

/* Once the job runs again the writer's threads step back, those too that start late; the caller's
 * does not. */
static void steps_back(const struct tree *t)
{
	struct image_params params = params_of(COMPRESS_AUTO, 0);
	int own = getpriority(PRIO_PROCESS, 0);
	struct image_writer *w;
	struct err err = { 0 };

	if (own >= 10)
		return;
	test_alone();
	OK(image_writer_open(AT_FDCWD, "calm.img", &params, &w, &err), &err);
	image_writer_background(w);
	while (threads_at(10) != params.threads + 1)
		(void)sched_yield();
	CHECK(threads_at(own) == 1);
	put_space(w, 1, FIRST, 200);
	OK(image_writer_commit(w, t, NULL, &err), &err);
	test_alone();
	CHECK(threads_at(own) == 1);
	CHECK(unlink("calm.img") == 0);
}

int main(void)
{
	struct arena *a = arena_new();
	struct tree *t = test_tree(a);

	test_dir();
	bounded_memory(t);
	for (int direct = 0; direct < 2; direct++) {
		round_trip(t, COMPRESS_NONE, direct);
		round_trip(t, COMPRESS_LZ4, direct);
		round_trip(t, COMPRESS_AUTO, direct);
	}
	steps_back(t);
	to_a_pipe(t);
	to_a_closed_pipe(t);
	to_a_full_disk(t);
	misuse(t);
	leftovers_do_not_hinder(t);
	arena_free(a);
	return 0;
}
