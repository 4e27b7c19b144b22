/* SPDX-License-Identifier: BSD-2-Clause */
/* What the image tests share. */
#include "imgtest.h"

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/hash.h"

#include <dirent.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Noreturn void test_fail(const char *file, int line, const char *what, const char *why)
{
	fprintf(stderr, "%s:%d: failed: %s%s%s\n", file, line, what, why ? ": " : "",
		why ? why : "");
	_exit(1);
}

void test_check_msg(const char *file, int line, const struct err *err, const char *text)
{
	if (!strstr(err->msg, text)) {
		fprintf(stderr, "wanted '%s'\n", text);
		test_fail(file, line, "message", err->msg);
	}
}

/* --- scratch directory ---------------------------------------------------------------------------
 */

static char scratch[256];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void remove_scratch(void)
{
	(void)chdir("/");
	(void)nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

const char *test_dir(void)
{
	const char *base = getenv("TEST_SCRATCH");

	(void)snprintf(scratch, sizeof scratch, "%s/imgtest.XXXXXX", base ? base : "/tmp");
	CHECK(mkdtemp(scratch) && chdir(scratch) == 0);
	atexit(remove_scratch); /* test_fail leaves it there to be looked at */
	return scratch;
}

static unsigned count_threads(void)
{
	CLEANUP_DIR DIR *d = opendir("/proc/self/task");
	const struct dirent *e;
	unsigned n = 0;

	CHECK(d);
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	return n;
}

void test_alone(void)
{
	while (count_threads() != 1)
		(void)usleep(1000);
}

/* --- content -------------------------------------------------------------------------------------
 */

void fill_page(uint8_t *to, enum content how, uint32_t space, uint64_t page, uint32_t gen)
{
	uint64_t x = (uint64_t)space * 0x9e3779b97f4a7c15u + page * 0xbf58476d1ce4e5b9u +
		     gen * 0x94d049bb133111ebu + 1;
	size_t at = 0;

	memset(to, 0, CKPT_PAGE_SIZE);
	if (how == CONTENT_TEXT)
		while (at < CKPT_PAGE_SIZE - 64)
			at += (size_t)snprintf((char *)to + at, 64,
					       "space %u page %llu generation %u; ", space,
					       (unsigned long long)page, gen);
	if (how == CONTENT_RANDOM)
		for (; at < CKPT_PAGE_SIZE; at += 8) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			put_le64(to + at, x * 0x2545f4914f6cdd1du);
		}
}

struct id128 test_id(uint32_t n)
{
	struct id128 id = { { 0xab, 0xcd } };

	put_le32(id.b + 8, n);
	return id;
}

/* --- tree ----------------------------------------------------------------------------------------
 */

static struct blob blob_of(struct arena *a, uint8_t first, uint32_t len)
{
	struct blob b = { arena_alloc(a, len), len };

	for (uint32_t i = 0; i < len; i++)
		b.data[i] = (uint8_t)(first + i * 7);
	return b;
}

#define ADD(a, list, n, T) ((T *)arena_push(a, &(list), &(n), sizeof(T)))

static void add_space(struct arena *a, struct tree *t, uint32_t id, uint32_t kind, uint64_t size,
		      const char *name)
{
	*ADD(a, t->spaces, t->n_spaces, struct space) =
		(struct space){ id, kind, size, arena_strdup(a, name) };
}

static struct vma *add_vma(struct arena *a, struct process *p, uint64_t start, uint64_t end,
			   uint32_t kind)
{
	struct vma *v = ADD(a, p->vmas, p->n_vmas, struct vma);

	v->start = start;
	v->end = end;
	v->kind = kind;
	v->prot = 3;
	v->flags = kind == VMA_SHM ? 1 : 0x22;
	return v;
}

static void add_thread(struct arena *a, struct process *p, int32_t tid)
{
	struct thread *t = ADD(a, p->threads, p->n_threads, struct thread);

	t->tid = tid;
	t->gregs = blob_of(a, (uint8_t)tid, 216);
	t->xstate = blob_of(a, 9, 576);
	t->syscall_nr = -1;
	t->sigmask = 0x8000000000000001u;
	t->comm = arena_printf(a, "thread-%d", tid);
	t->nice = -5;
	ADD(a, t->pending, t->n_pending, struct pending_signal)->siginfo = blob_of(a, 1, 128);
}

static struct file *add_file(struct arena *a, struct tree *t, uint32_t id, uint32_t kind,
			     const char *path)
{
	struct file *f = ADD(a, t->files, t->n_files, struct file);

	f->id = id;
	f->kind = kind;
	f->path = arena_strdup(a, path);
	return f;
}

static void add_files(struct arena *a, struct tree *t, struct process *p)
{
	struct file_content *content = arena_alloc(a, sizeof *content);
	struct file_epoll *epoll = arena_alloc(a, sizeof *epoll);
	struct file_pipe *pipe = arena_alloc(a, sizeof *pipe);

	add_file(a, t, 10, FILE_REGULAR, "/tmp/out.txt")->pos = 12345;
	content->space = 3;
	add_file(a, t, 11, FILE_DELETED, "/tmp/gone")->detail = content;
	*ADD(a, epoll->watches, epoll->n_watches, struct epoll_watch) = (struct epoll_watch){
		.fd = 3, .events = 1, .data = 0x1122334455667788u, .file = 10
	};
	add_file(a, t, 12, FILE_EPOLL, NULL)->detail = epoll;
	pipe->pipe = 99;
	pipe->has_content = 1;
	ADD(a, pipe->packets, pipe->n_packets, struct pipe_packet)->data = blob_of(a, 50, 1000);
	add_file(a, t, 13, FILE_PIPE, NULL)->detail = pipe;
	for (int i = 0; i < 4; i++)
		*ADD(a, p->fds, p->n_fds, struct fd) =
			(struct fd){ 3 + i, (uint32_t)(i & 1), (uint32_t)(10 + i) };
}

struct tree *test_tree(struct arena *a)
{
	struct tree *t = arena_alloc(a, sizeof *t);
	struct process *p = ADD(a, t->processes, t->n_processes, struct process);
	struct vma *v;

	t->seq = 1;
	t->host.release = arena_strdup(a, "6.1.0");
	t->host.boot_id = arena_strdup(a, "");
	t->settings.name = arena_strdup(a, "job");
	ADD(a, t->settings.argv, t->settings.n_argv, struct string)->s = arena_strdup(a, "./job");
	add_space(a, t, 1, SPACE_MM, 0, "pid 100");
	add_space(a, t, 2, SPACE_SHM, 4 << 20, "memfd:x");
	add_space(a, t, 3, SPACE_FILE, 1 << 20, "/tmp/gone (deleted)");
	p->pid = 100;
	p->space = 1;
	p->exe = arena_strdup(a, "/usr/bin/job");
	p->cwd = arena_strdup(a, "/home/u");
	p->root = arena_strdup(a, "/");
	v = add_vma(a, p, 0x400000, 0x500000, VMA_FILE);
	v->path = p->exe;
	v->build_id = blob_of(a, 3, 20);
	v = add_vma(a, p, 0x10000000, 0x90000000, VMA_ANON);
	*ADD(a, v->guards, v->n_guards, struct range) = (struct range){ 0x10001000, 0x10002000 };
	v->path = arena_strdup(a, "[heap]");
	add_vma(a, p, 0x7f0000000000, 0x7f0000400000, VMA_SHM)->shm_space = 2;
	add_thread(a, p, 100);
	add_thread(a, p, 101);
	add_files(a, t, p);
	return t;
}

/* --- images --------------------------------------------------------------------------------------
 */

int put_page(struct image_writer *w, uint32_t space, uint64_t page, const uint8_t *data,
	     struct err *err)
{
	void *buf = image_writer_buffer(w, err);

	if (!buf)
		return err->code;
	memcpy(buf, data, CKPT_PAGE_SIZE);
	return image_writer_submit(w, space, page, 1, err);
}

uint8_t *slurp(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "re");
	uint8_t *data = NULL;
	size_t n = 0, got;

	if (!f)
		test_fail(__FILE__, __LINE__, "open", path);
	do {
		data = realloc(data, n + (1 << 20));
		CHECK(data);
		got = fread(data + n, 1, 1 << 20, f);
		n += got;
	} while (got);
	(void)fclose(f);
	*ret_len = n;
	return data;
}

void spill(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "we");

	CHECK(f && fwrite(data, 1, len, f) == len && fclose(f) == 0);
}

unsigned read_page(struct image_reader *r, uint32_t space, uint64_t page, uint8_t *to)
{
	static uint8_t buf[IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE], tmp[IMAGE_BLOCK_SCRATCH];
	struct err err = { 0 };
	unsigned n;
	const struct page_run *runs = image_reader_runs(r, &n);

	for (unsigned i = 0; i < n; i++) {
		uint32_t block, at;

		if (runs[i].space != space || page < runs[i].page ||
		    page >= runs[i].page + runs[i].npages)
			continue;
		memset(to, 0, CKPT_PAGE_SIZE);
		if (runs[i].kind == RUN_HERE) {
			image_reader_seek(r, &runs[i], page - runs[i].page, &block, &at);
			OK(image_reader_block(r, block, buf, tmp, &err), &err);
			memcpy(to, buf + (size_t)at * CKPT_PAGE_SIZE, CKPT_PAGE_SIZE);
		}
		return runs[i].kind;
	}
	return 0;
}

void fix_sums(uint8_t *image, size_t len)
{
	uint8_t *trailer = image + len - IMAGE_TRAILER_BYTES;
	uint64_t off = get_le64(trailer), n = get_le64(trailer + 8);

	put_le64(image + 56, hash64(image, 56));
	for (uint8_t *e = image + off; e < image + off + n; e += IMAGE_DIR_ENTRY_BYTES)
		if (get_le64(e + 8) <= len && get_le64(e + 16) <= len - get_le64(e + 8))
			put_le64(e + 24, hash64(image + get_le64(e + 8), get_le64(e + 16)));
	put_le64(trailer + 16, hash64(image + off, n));
	put_le64(trailer + 48, hash64(trailer, 48));
}

unsigned count_files(void)
{
	DIR *d = opendir(".");
	unsigned n = 0;
	struct dirent *e;

	while ((e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	closedir(d);
	return n;
}
