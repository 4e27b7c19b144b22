/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names of unix sockets: a path, which makes a file that outlives the socket, or an abstract one.
 *
 * A job that was killed leaves its files behind. One that no socket belongs to any more, and that
 * is ours, is taken away; whether a socket does is found by connecting a datagram socket to it,
 * which a socket of another type refuses in another way than nobody does, and never notices.
 */
#include "object/socket.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#define PATH_AT offsetof(struct sockaddr_un, sun_path)

bool unix_has_path(const struct blob *addr)
{
	return addr->len > PATH_AT && addr->data[PATH_AT];
}

/* What is shown of a name in messages. */
static const char *shown(const struct rebuild *rb, const struct file *f)
{
	const struct file_socket *d = f->detail;
	char *text;

	if (unix_has_path(&d->local))
		return rebuild_path(rb, f->path);
	text = arena_printf(
		rb->arena, "@%.*s", d->local.len > PATH_AT ? (int)(d->local.len - PATH_AT - 1) : 0,
		d->local.len > PATH_AT ? (const char *)d->local.data + PATH_AT + 1 : "");
	for (char *p = text; p && *p; p++)
		if ((unsigned char)*p < ' ')
			*p = '?';
	return text ? text : "@";
}

/* The directory that a relative name counts from: the path without the name. */
static char *base_dir(const struct rebuild *rb, const struct file *f)
{
	const struct file_socket *d = f->detail;
	const char *path = rebuild_path(rb, f->path);
	size_t name = strnlen((const char *)d->local.data + PATH_AT, d->local.len - PATH_AT),
	       len = strlen(path);

	return len > name ? arena_printf(rb->arena, "%.*s", (int)(len - name), path) : NULL;
}

/* f's name for bind or connect; a relative one counts from the directory that this goes to. */
struct named {
	struct sockaddr_un sa;
	socklen_t len;
	int home; /* where we were, -1: still there */
};

static void cleanup_named(struct named *n)
{
	int saved = errno;

	if (n->home >= 0) {
		(void)!fchdir(n->home);
		(void)close(n->home);
	}
	errno = saved;
}

static int name_of(const struct rebuild *rb, const struct file *f, struct named *ret)
{
	const struct file_socket *d = f->detail;
	const char *path, *dir;

	memset(&ret->sa, 0, sizeof ret->sa);
	memcpy(&ret->sa, d->local.data, d->local.len);
	ret->len = d->local.len;
	if (!unix_has_path(&d->local))
		return 0;
	if (d->traits & SOCKET_RELATIVE) {
		dir = base_dir(rb, f);
		ret->home = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		return dir && ret->home >= 0 && chdir(dir) == 0 ? 0 : dir ? -errno : -ENOENT;
	}
	path = rebuild_path(rb, f->path);
	if (strcmp(path, f->path)) { /* --map */
		if (strlen(path) >= sizeof ret->sa.sun_path)
			return -ENAMETOOLONG;
		memset(ret->sa.sun_path, 0, sizeof ret->sa.sun_path);
		memcpy(ret->sa.sun_path, path, strlen(path));
		ret->len = (socklen_t)(PATH_AT + strlen(path) + 1);
	}
	return 0;
}

/* Is a socket bound to it? 0: no; 1: yes; a negative errno: that cannot be seen. */
static int in_use(const struct named *n, const struct file_socket *d)
{
	CLEANUP_FD int same = socket(AF_UNIX, (int)d->type | SOCK_CLOEXEC, 0);
	CLEANUP_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || same < 0)
		return -errno;
	if (!unix_has_path(&d->local)) /* each type has names of its own */
		return bind(same, (const void *)&n->sa, n->len) < 0 && errno == EADDRINUSE;
	if (connect(fd, (const void *)&n->sa, n->len) == 0)
		return 1;
	if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTDIR)
		return 0;
	return errno == EPROTOTYPE || errno == EPERM ? 1 : -errno;
}

static int taken(const char *name, struct err *err)
{
	err_set(err, -EADDRINUSE, "the socket name '%s' is in use by another program", name);
	err_hint(err, "end that program first: ss -xlp shows it");
	return -EADDRINUSE;
}

/* Whose the socket's file is: not ours where root's job has made it as somebody else, or given it
 * away. */
static void owner_of(const struct rebuild *rb, const struct file *f, uid_t *ret_uid, gid_t *ret_gid)
{
	const struct file_socket *d = f->detail;
	const struct process *p = file_first_holder(rb->tree, f->id, NULL);

	*ret_uid = d->owner_uid ? d->owner_uid - 1 : p ? p->creds.euid : geteuid();
	*ret_gid = d->owner_gid ? d->owner_gid - 1 : p ? p->creds.egid : getegid();
}

/* May what lies at the path be taken away? */
static int check_file(const struct rebuild *rb, const struct file *f, const struct named *n,
		      const char *path, const struct stat *st, struct err *err)
{
	uid_t uid;
	gid_t gid;
	int used;

	if (!S_ISSOCK(st->st_mode)) {
		err_set(err, -EEXIST, "'%s' is not a socket any more", path);
		err_hint(err, "move it away");
		return -EEXIST;
	}
	used = in_use(n, f->detail);
	if (used > 0)
		return taken(path, err);
	owner_of(rb, f, &uid, &gid);
	if (used < 0 || (st->st_uid != geteuid() && (geteuid() != 0 || st->st_uid != uid))) {
		err_set(err, -EACCES, "'%s' is a socket of another user", path);
		err_hint(err, "move it away");
		return -EACCES;
	}
	return 0;
}

/* Does a file of the tree listen there? Then an accepted socket has its name by that one. */
static bool is_borrowed(const struct rebuild *rb, const struct file *f)
{
	const struct file_socket *d = f->detail;

	for (unsigned i = 0; i < rb->tree->n_files; i++) {
		const struct file_socket *o = socket_of(&rb->tree->files[i]);

		if (o && o != d && o->state == SOCKET_LISTENING && blob_same(&o->local, &d->local))
			return true;
	}
	return false;
}

/* Where the file is to be renamed to: what the killed job has left there, or nothing. */
static int check_moved(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_socket *d = f->detail;
	const char *path = d->moved ? rebuild_path(rb, d->moved) : NULL, *slash;
	struct named n = { .sa.sun_family = AF_UNIX, .home = -1 };
	struct stat st;

	if (!path)
		return 0;
	slash = strrchr(path, '/');
	if (!slash || strlen(path) >= sizeof n.sa.sun_path)
		return err_set(err, -ENAMETOOLONG, "cannot give a socket the name '%s'", path);
	if (lstat(path, &st) == 0) {
		memcpy(n.sa.sun_path, path, strlen(path));
		n.len = (socklen_t)(PATH_AT + strlen(path) + 1);
		return check_file(rb, f, &n, path, &st, err);
	}
	path = arena_printf(rb->arena, "%.*s", (int)MAX(slash - path, 1), path);
	if (path && faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0)
		return err_set(err, -errno, "cannot make the socket '%s': %m",
			       rebuild_path(rb, d->moved));
	return 0;
}

int unix_name_check(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_socket *d = f->detail;
	CLEANUP(cleanup_named) struct named n = { .home = -1 };
	const char *path, *slash;
	struct stat st;
	int rc;

	if (!d->local.len || ((d->traits & SOCKET_ACCEPTED) && is_borrowed(rb, f)))
		return 0;
	rc = check_moved(rb, f, err);
	if (rc < 0)
		return rc;
	rc = name_of(rb, f, &n);
	if (rc < 0) {
		errno = -rc;
		return err_set(err, rc, "cannot use the socket name '%s': %m", shown(rb, f));
	}
	if (!unix_has_path(&d->local))
		return in_use(&n, d) > 0 ? taken(shown(rb, f), err) : 0;
	path = rebuild_path(rb, f->path);
	if (lstat(path, &st) == 0)
		return check_file(rb, f, &n, shown(rb, f), &st, err);
	slash = strrchr(path, '/');
	path = arena_printf(rb->arena, "%.*s", (int)MAX(slash - path, 1), path);
	if (path && faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0) {
		rc = err_set(err, -errno, "cannot make the socket '%s': %m", shown(rb, f));
		err_hint(err, "its directory must be there and writable; if it is elsewhere now: "
			      "--map OLD=NEW");
		return rc;
	}
	return 0;
}

static int give_attributes(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_socket *d = f->detail;
	const char *path = rebuild_path(rb, f->path);
	uid_t uid;
	gid_t gid;

	if (d->mode && chmod(path, d->mode & 07777) < 0)
		return err_set(err, -errno, "cannot set the mode of '%s': %m", path);
	/* a group may also be given by who is in it */
	owner_of(rb, f, &uid, &gid);
	(void)!lchown(path, geteuid() == 0 ? uid : (uid_t)-1, gid);
	return 0;
}

int unix_name_bind(const struct rebuild *rb, const struct file *f, int fd, struct err *err)
{
	const struct file_socket *d = f->detail;
	CLEANUP(cleanup_named) struct named n = { .home = -1 };
	struct stat st;
	int rc = name_of(rb, f, &n);

	if (rc < 0) {
		errno = -rc;
		return err_set(err, rc, "cannot use the socket name '%s': %m", shown(rb, f));
	}
	if (bind(fd, (const void *)&n.sa, n.len) < 0) {
		if (errno != EADDRINUSE || !unix_has_path(&d->local))
			return errno == EADDRINUSE
				       ? taken(shown(rb, f), err)
				       : err_set(err, -errno, "cannot bind a socket to '%s': %m",
						 shown(rb, f));
		if (lstat(rebuild_path(rb, f->path), &st) == 0) {
			rc = check_file(rb, f, &n, shown(rb, f), &st, err);
			if (rc < 0)
				return rc;
			(void)unlink(rebuild_path(rb, f->path));
		}
		if (bind(fd, (const void *)&n.sa, n.len) < 0)
			return err_set(err, -errno, "cannot bind a socket to '%s': %m",
				       shown(rb, f));
	}
	return unix_has_path(&d->local) ? give_attributes(rb, f, err) : 0;
}

int unix_name_connect(const struct rebuild *rb, const struct file *f, int fd)
{
	CLEANUP(cleanup_named) struct named n = { .home = -1 };
	int rc = name_of(rb, f, &n);

	if (rc == 0 && connect(fd, (const void *)&n.sa, n.len) < 0)
		rc = -errno;
	return rc;
}

int unix_name_drop(const struct rebuild *rb, const struct file *f, struct err *err)
{
	const struct file_socket *d = f->detail;
	const char *path = f->path ? rebuild_path(rb, f->path) : NULL;
	const char *moved = d->moved ? rebuild_path(rb, d->moved) : NULL;

	if (!path || !(d->traits & SOCKET_UNLINKED))
		return 0;
	if (moved && rename(path, moved) < 0)
		return err_set(err, -errno, "cannot rename '%s' to '%s': %m", path, moved);
	if (moved || unlink(path) == 0 || errno == ENOENT)
		return 0;
	return err_set(err, -errno, "cannot remove '%s': %m", path);
}
