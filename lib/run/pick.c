/* SPDX-License-Identifier: BSD-2-Clause */
/* Picking the state to restart: of a chain the newest complete image, or one that was named. */
#include "run/pick.h"

#include "proc/proc.h"
#include "util/cleanup.h"
#include "util/parse.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void warn(const struct pick_opts *o, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void warn(const struct pick_opts *o, const char *fmt, ...)
{
	char msg[PATH_MAX + 1024];
	va_list ap;

	if (!o->warn)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof msg, fmt, ap);
	va_end(ap);
	o->warn(o->warn_arg, msg);
}

/* "000012.img" -> 12 */
static bool image_number(const char *base, int64_t *ret)
{
	char digits[20];
	size_t len = strspn(base, "0123456789");

	if (len < 6 || len >= sizeof digits || strcmp(base + len, ".img") != 0)
		return false;
	memcpy(digits, base, len);
	digits[len] = '\0';
	return parse_int(digits, 0, INT64_MAX, ret) == 0;
}

/* Does path name an image of a chain? Then its directory and number. */
static int split_image(struct pick *p, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *lock = NULL;
	CLEANUP_FREE char *dir = NULL;
	int64_t number;

	if (!image_number(slash ? slash + 1 : path, &number))
		return 0;
	dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	if (!dir || asprintf(&lock, "%s/lock", dir) < 0) {
		lock = NULL;
		return err_nomem(err);
	}
	/* a copy of an image may keep its name; a chain is where somebody has held the lock */
	if (faccessat(AT_FDCWD, lock, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	p->dir = ptr_take(&dir);
	p->at = number;
	return 0;
}

/* A second one beside it would work on the same files. */
static int check_job(const struct pick *p, struct err *err)
{
	pid_t pid = chain_job(p->chain);

	if (!pid)
		return 0;
	err_set(err, -EEXIST, "the job in '%s' still runs (pid %d)", p->dir, pid);
	return err_hint(err,
			"'ckpt-run --pid %d --overwrite -o %s' looks after it again; end it first "
			"to go back to its last checkpoint, or --force",
			pid, p->dir);
}

static int open_chain(struct pick *p, const struct pick_opts *o, struct err *err)
{
	char how[64];
	int rc = chain_open(p->dir, CHAIN_WRITE, &p->chain, err);

	p->writable = rc == 0;
	if (((rc == -EACCES || rc == -EROFS || rc == -EPERM) && o->no_lock) ||
	    (rc == -EBUSY && o->copy))
		rc = chain_open(p->dir, CHAIN_READ, &p->chain, err);
	if (rc < 0) {
		p->chain = NULL;
		return rc;
	}
	err_clear(err);
	if (!o->trust)
		rc = chain_check_owner(chain_dirfd(p->chain), p->dir, err);
	if (rc == 0)
		rc = chain_scan(p->chain, err);
	if (rc < 0)
		return rc;
	if (p->at < 0 && !o->force && chain_finished(p->chain, how)) {
		rc = err_set(err, -EEXIST, "the job in '%s' has finished (%s)", p->dir, how);
		err_hint(err, "--at N or --force restarts it all the same");
	}
	return rc == 0 && !o->force && !o->copy ? check_job(p, err) : rc;
}

int pick_open(struct pick *p, const char *path, const struct pick_opts *o, struct err *err)
{
	struct stat st;
	int rc;

	*p = (struct pick){ .at = o->at };
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "cannot open '%s': %m", path);
	if (S_ISDIR(st.st_mode)) {
		p->dir = strdup(path);
		rc = p->dir ? 0 : err_nomem(err);
	} else {
		if (o->at >= 0)
			return err_set(err, -EINVAL, "'%s' is an image: --at goes with a chain",
				       path);
		rc = split_image(p, path, err);
	}
	if (rc < 0)
		return rc;
	(void)snprintf(p->name, sizeof p->name, "%s", path);
	return p->dir ? open_chain(p, o, err) : 0;
}

static int entry_unusable(const struct pick *p, const struct chain_entry *e, struct err *err)
{
	(void)err_image(err, e->why.code ? e->why.code : -EBADMSG, "%s", e->why.msg);
	return err_wrap(err, err->code, "cannot restart image %" PRIu64 " of chain '%s'", e->seq,
			p->dir);
}

/* Why the chain has nothing to restart: in one line, which names its newest image. */
static int nothing_left(const struct pick *p, uint64_t below, struct err *err)
{
	unsigned n = chain_count(p->chain);
	int rc;

	if (n == 0)
		return err_image(err, -ENOENT, "chain '%s' holds no image: no checkpoint was taken",
				 p->dir);
	if (below != UINT64_MAX)
		return err_image(err, -ENOENT,
				 "chain '%s' holds no other image that can be restarted", p->dir);
	rc = entry_unusable(p, chain_entry(p->chain, n - 1), err);
	if (n > 1)
		err_hint(err, "nor any older one: 'ckpt-inspect %s' says why", p->dir);
	return rc;
}

/* The newest complete one below a number, telling of those that are passed over for it. */
static int choose_newest(const struct pick *p, const struct pick_opts *o, uint64_t below,
			 const struct chain_entry **ret, struct err *err)
{
	unsigned n = chain_count(p->chain), i = n;

	while (i > 0 && (chain_entry(p->chain, i - 1)->seq >= below ||
			 !chain_entry(p->chain, i - 1)->complete))
		i--;
	if (i == 0)
		return nothing_left(p, below, err);
	*ret = chain_entry(p->chain, i - 1);
	for (; i < n; i++) {
		const struct chain_entry *e = chain_entry(p->chain, i);

		if (e->seq < below && !e->complete)
			warn(o, "image '%s/%s' is passed over: %s", p->dir, e->name, e->why.msg);
	}
	return 0;
}

static int choose(struct pick *p, const struct pick_opts *o, const struct chain_entry **ret,
		  struct err *err)
{
	if (p->at < 0)
		return choose_newest(p, o, p->state ? p->seq : UINT64_MAX, ret, err);
	*ret = chain_find(p->chain, (uint64_t)p->at);
	if (!*ret)
		return err_image(err, -ENOENT, "chain '%s' holds no image with number %" PRId64,
				 p->dir, p->at);
	return (*ret)->complete ? 0 : entry_unusable(p, *ret, err);
}

/* Restarting an image runs what it says: so nobody else may have had a hand in it, nor in its
 * parents. */
static int check_owners(const struct pick *p, struct err *err)
{
	for (unsigned i = 0; i < resolved_n_images(p->state); i++) {
		struct image_reader *r = resolved_image(p->state, i);
		int rc = chain_check_owner(image_reader_fd(r), image_reader_name(r), err);

		if (rc < 0)
			return rc;
	}
	return 0;
}

int pick_take(struct pick *p, const struct pick_opts *o, struct err *err)
{
	const struct chain_entry *e = NULL;
	struct resolved *state = NULL;
	int rc = 0;

	if (p->chain) {
		rc = choose(p, o, &e, err);
		if (rc < 0)
			return rc;
		(void)snprintf(p->name, sizeof p->name, "%s/%s", p->dir, e->name);
		rc = chain_resolve(p->chain, e->name, &state, err);
	} else {
		rc = resolve_file(p->name, &state, err);
	}
	if (rc < 0)
		return rc;
	resolved_free(p->state);
	p->state = state;
	arena_free(p->arena);
	p->arena = arena_new();
	if (!p->arena)
		return err_nomem(err);
	p->seq = image_reader_info(resolved_image(state, 0))->seq;
	if (e)
		p->seq = e->seq;
	if (!o->trust)
		rc = check_owners(p, err);
	return rc < 0 ? rc : image_reader_tree(resolved_image(state, 0), p->arena, &p->tree, err);
}

/* All below a process, with their times. */
static void add_below(struct arena *a, pid_t pid, struct chain_kin **kin, unsigned *n)
{
	CLEANUP_FD int dirfd = -1;
	pid_t *children;
	unsigned n_children;

	if (proc_open_pid(pid, &dirfd, NULL) < 0 ||
	    proc_children(dirfd, a, &children, &n_children, NULL) < 0)
		return;
	for (unsigned i = 0; i < n_children; i++) {
		CLEANUP_FD int child = -1;
		struct proc_stat stat;
		struct chain_kin *k;

		if (proc_open_pid(children[i], &child, NULL) < 0 ||
		    proc_stat_read(child, &stat, NULL) < 0 ||
		    !(k = arena_push(a, kin, n, sizeof *k)))
			continue;
		*k = (struct chain_kin){ children[i], stat.start_time };
		add_below(a, children[i], kin, n);
	}
}

void pick_note_job(const struct pick *p, const struct pick_opts *o, pid_t root)
{
	struct chain_kin *kin = NULL;
	struct err err = { 0 };
	unsigned n = 0;

	/* a copy of one that runs is not what the next restart is to wait for */
	if (!p->writable || (o->copy && chain_job(p->chain)))
		return;
	add_below(p->arena, getpid(), &kin, &n);
	if (chain_note_kin(p->chain, kin, n, &err) < 0 || chain_note_job(p->chain, root, &err) < 0)
		warn(o, "%s", err.msg);
}

void pick_fini(struct pick *p)
{
	resolved_free(p->state);
	arena_free(p->arena);
	chain_free(p->chain);
	free(p->dir);
	*p = (struct pick){ 0 };
}
