/* SPDX-License-Identifier: BSD-2-Clause */
/* The image writer: opens the file, starts the threads, and ends it all. */
#include "image/check.h"
#include "image/writer_int.h"

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/fault.h"
#include "util/hash.h"
#include "util/io.h"
#include "util/word.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POOL_ALIGN   (2u << 20)
#define THREAD_STACK (512u << 10)

/* --- opening -------------------------------------------------------------------------------------
 */

static int open_pool(struct image_writer *w, struct err *err)
{
	unsigned n = w->params.modest ? WRITER_SLOTS / 4 : WRITER_SLOTS;
	void *pool;

	w->slots = calloc(WRITER_SLOTS, sizeof *w->slots);
	if (!w->slots || posix_memalign(&pool, POOL_ALIGN, n * BLOCK_BYTES))
		return err_nomem(err);
	w->pool = pool;
	(void)madvise(pool, n * BLOCK_BYTES, MADV_HUGEPAGE);
	/* the last one freed is the next one used: a small image touches few of them */
	for (unsigned i = 0; i < n; i++) {
		w->slots[i].data = w->pool + i * BLOCK_BYTES;
		w->free[n - 1 - i] = &w->slots[i];
	}
	w->n_free = n;
	return 0;
}

/* "DIR/NAME" for messages, as far as the directory's name can be known. */
static char *path_of(int dirfd, const char *name)
{
	char link[64], dir[4096];
	char *path = NULL;
	ssize_t n;

	if (dirfd == AT_FDCWD || name[0] == '/')
		return strdup(name);
	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
	n = readlink(link, dir, sizeof dir - 1);
	if (n <= 0)
		return strdup(name);
	dir[n] = '\0';
	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static int open_dir(struct image_writer *w, int dirfd, const char *name, struct err *err)
{
	const char *slash = strrchr(name, '/');
	CLEANUP_FREE char *dir =
		slash ? strndup(name, MAX((size_t)(slash - name), 1u)) : strdup(".");

	w->name = strdup(slash ? slash + 1 : name);
	if (!dir || !w->name || asprintf(&w->tmp_name, ".%s.tmp", w->name) < 0) {
		w->tmp_name = NULL;
		return err_nomem(err);
	}
	w->dir = openat(dirfd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->dir < 0)
		return err_set(err, -errno, "cannot open the directory of '%s': %m", w->path);
	return 0;
}

static int create_file(struct image_writer *w, struct err *err)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;

	w->fd = openat(w->dir, w->tmp_name, flags, 0600);
	if (w->fd < 0 && errno == EEXIST && unlinkat(w->dir, w->tmp_name, 0) == 0)
		w->fd = openat(w->dir, w->tmp_name, flags, 0600);
	if (w->fd < 0) {
		int code = -errno;

		free(w->tmp_name);
		w->tmp_name = NULL;
		return err_set(err, code, "cannot create '%s': %m", w->path);
	}
	w->owns_fd = true;
	return 0;
}

static int open_file(struct image_writer *w, int dirfd, const char *name, struct err *err)
{
	bool direct = false;
	int rc;

	w->path = name ? path_of(dirfd, name) : strdup("image stream");
	if (!w->path)
		return err_nomem(err);
	rc = fault_point("image-open", err);
	if (rc < 0)
		return err_wrap(err, rc, "cannot create '%s'", w->path);
	if (!name) {
		w->fd = dirfd;
		return out_init(&w->out, dirfd, false, false, w->path, err);
	}
	rc = open_dir(w, dirfd, name, err);
	if (rc == 0)
		rc = create_file(w, err);
	if (rc < 0)
		return rc;
	if (w->params.direct)
		direct = fcntl(w->fd, F_SETFL, O_DIRECT) == 0;
	return out_init(&w->out, w->fd, true, direct, w->path, err);
}

static int put_header(struct image_writer *w, struct err *err)
{
	uint8_t h[IMAGE_HEADER_BYTES] = { 0 };

	memcpy(h, IMAGE_MAGIC, 8);
	put_le16(h + 8, IMAGE_VERSION);
	put_le16(h + 10, IMAGE_ARCH_X86_64);
	h[12] = IMAGE_PAGE_SHIFT;
	memcpy(h + 16, w->params.state.b, 16);
	memcpy(h + 32, w->params.parent.b, 16);
	put_le64(h + 48, w->params.seq);
	put_le64(h + 56, hash64(h, 56));
	return out_bytes(&w->out, h, sizeof h, err);
}

/* --- threads -------------------------------------------------------------------------------------
 */

void writer_fail(struct image_writer *w, const struct err *err)
{
	pthread_mutex_lock(&w->lock);
	if (!w->failed) {
		w->err = *err;
		w->failed = true;
	}
	pthread_mutex_unlock(&w->lock);
	writer_ring(&w->free_bell);
	writer_ring(&w->work_bell);
	writer_ring(&w->done_bell);
}

int writer_failure(struct image_writer *w, struct err *err)
{
	if (!w->failed)
		return 0;
	if (err)
		*err = w->err;
	return w->err.code;
}

void writer_ring(atomic_uint *bell)
{
	(void)atomic_fetch_add(bell, 1);
	word_wake(bell);
}

void writer_listen(struct image_writer *w, atomic_uint *bell)
{
	unsigned heard = atomic_load(bell);

	pthread_mutex_unlock(&w->lock);
	word_wait(bell, heard, -1);
	pthread_mutex_lock(&w->lock);
}

void writer_enroll(struct image_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->tids[w->n_tids++] = gettid();
	if (w->background)
		io_step_back(gettid());
	pthread_mutex_unlock(&w->lock);
}

void image_writer_background(struct image_writer *w)
{
	pthread_mutex_lock(&w->lock);
	w->background = true;
	/* threads end after a failure, and then their ids may be others' */
	for (unsigned i = 0; i < w->n_tids && !w->failed; i++)
		io_step_back(w->tids[i]);
	pthread_mutex_unlock(&w->lock);
}

static unsigned worker_count(unsigned asked)
{
	long n = asked ? (long)asked : sysconf(_SC_NPROCESSORS_ONLN);

	return (unsigned)MAX(1, MIN(n, WRITER_MAX_WORKERS));
}

/* Signals are the command's business: none may be taken by a thread of ours (SIGXFSZ then becomes
 * EFBIG). */
static int start_threads(struct image_writer *w, struct err *err)
{
	unsigned want = worker_count(w->params.threads);
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	rc = pthread_attr_init(&attr);
	if (rc)
		return err_set(err, -rc, "cannot start a thread: %m");
	(void)pthread_attr_setstacksize(&attr, THREAD_STACK);
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&w->output, &attr, writer_output, w);
	w->have_output = rc == 0;
	while (rc == 0 && w->n_workers < want) {
		rc = pthread_create(&w->worker[w->n_workers], &attr, writer_worker, w);
		if (rc == 0)
			w->n_workers++;
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	if (!w->n_workers) /* with fewer than wanted it goes on */
		return err_set(err, -rc, "cannot start a thread to write '%s': %m", w->path);
	return 0;
}

static void stop_threads(struct image_writer *w)
{
	for (unsigned i = 0; i < w->n_workers; i++)
		(void)pthread_join(w->worker[i], NULL);
	if (w->have_output)
		(void)pthread_join(w->output, NULL);
	w->n_workers = 0;
	w->have_output = false;
}

int image_writer_open(int dirfd, const char *name, const struct image_params *params,
		      struct image_writer **ret, struct err *err)
{
	struct image_writer *w = calloc(1, sizeof *w);
	int rc;

	if (!w)
		return err_nomem(err);
	w->params = *params;
	w->dir = w->fd = -1;
	(void)pthread_mutex_init(&w->lock, NULL);
	w->pid = getpid();
	rc = open_file(w, dirfd, name, err);
	if (rc == 0)
		rc = open_pool(w, err);
	if (rc == 0)
		rc = put_header(w, err);
	if (rc == 0)
		rc = start_threads(w, err);
	if (rc < 0) {
		image_writer_abort(w);
		return rc;
	}
	*ret = w;
	return 0;
}

static void writer_free(struct image_writer *w)
{
	if (w->tmp_name && w->owns_fd)
		(void)unlinkat(w->dir, w->tmp_name, 0);
	if (w->owns_fd)
		(void)close(w->fd);
	if (w->dir >= 0)
		(void)close(w->dir);
	out_fini(&w->out);
	buf_fini(&w->blocks);
	free(w->runs);
	free(w->given);
	free(w->pool);
	free(w->slots);
	free(w->tmp_name);
	free(w->name);
	free(w->path);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

const struct image_params *image_writer_params(const struct image_writer *w)
{
	return &w->params;
}

void image_writer_abort(struct image_writer *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_mutex_unlock(&w->lock);
	writer_ring(&w->work_bell);
	writer_ring(&w->done_bell);
	stop_threads(w);
	writer_free(w);
}

int image_writer_commit(struct image_writer *w, const struct tree *tree,
			struct image_totals *ret_totals, struct err *err)
{
	struct image_totals totals;
	int rc;

	rc = tree_check(tree, err);
	if (rc < 0) {
		err_wrap(err, rc, "refusing to write '%s'", w->path);
		image_writer_abort(w);
		return rc;
	}
	writer_queue_open(w);
	image_writer_go(w);
	pthread_mutex_lock(&w->lock);
	w->tree = tree;
	w->finishing = true;
	pthread_mutex_unlock(&w->lock);
	writer_ring(&w->work_bell);
	writer_ring(&w->done_bell);
	stop_threads(w);
	rc = writer_failure(w, err);
	totals = w->totals;
	writer_free(w);
	if (rc == 0 && ret_totals)
		*ret_totals = totals;
	return rc;
}
