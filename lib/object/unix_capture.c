/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Unix sockets: who is connected to whom, and under which names, from sock_diag(7).
 *
 * The kernel tells the inode number of the other end, which is that of its descriptor: 0 means
 * that nobody has one, since the end was closed or because accept has not taken the connection
 * yet; the listening socket's list of waiting ones tells which.
 */
#include "object/socket.h"

#include "util/io.h"
#include "util/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LOG_ROOM  "object"
#define LISTENING 10 /* TCP_LISTEN, also of unix sockets */

#ifndef SIOCUNIXFILE /* of linux/un.h, which does not go with sys/un.h */
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif

static struct socket_seen *seen_at(const struct capture *c, uint32_t file)
{
	return file && file <= c->n_open_files ? c->open_files[file - 1].sock : NULL;
}

/* The socket of the tree with this inode number, 0: none. */
static uint32_t find_file(const struct sockets *s, uint32_t ino)
{
	uint32_t file;

	return ino && idmap_get(&s->files, (int32_t)ino, &file) ? file : 0;
}

/* What would else be looked for in a list of all, for each. */
static int index_sockets(struct sockets *s, struct err *err)
{
	int rc = 0;

	for (unsigned i = s->c->n_open_files; rc == 0 && i-- > 0;) {
		const struct open_file *of = &s->c->open_files[i];

		if (of->sock && S_ISSOCK(of->st.st_mode) && (uint32_t)of->st.st_ino)
			rc = idmap_put(&s->files, (int32_t)of->st.st_ino, i + 1);
	}
	for (unsigned i = s->n_unix; rc == 0 && i-- > 0;)
		for (unsigned k = 0; rc == 0 && k < s->unix_list[i].n_waiting; k++)
			if (s->unix_list[i].waiting[k])
				rc = idmap_put(&s->waiting, (int32_t)s->unix_list[i].waiting[k], i);
	return rc < 0 ? err_nomem(err) : 0;
}

/* --- names ------------------------------------------------------------------------------------ */

/* Does another socket lie where this one's name leads? */
static bool is_someone_elses(const struct sockets *s, const struct stat *st)
{
	for (unsigned i = 0; i < s->n_unix; i++)
		if (s->unix_list[i].has_file && s->unix_list[i].file_ino == (uint32_t)st->st_ino)
			return true;
	return false;
}

/* Counted from dir it is this socket's file: then that is its path. */
static bool leads_there(struct sockets *s, struct socket_seen *seen, const char *dir,
			const char *name, const struct sockdiag_unix *u)
{
	char *path = arena_printf(s->c->arena, "%s/%s", strcmp(dir, "/") ? dir : "", name);
	struct stat st;

	if (!path || lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode) ||
	    u->file_ino != (uint32_t)st.st_ino)
		return false;
	seen->path = path;
	return true;
}

/* The directory above one that the kernel (root may ask it) says the file lies in, or further up:
 * the name may have slashes, too. */
static bool kernel_knows(struct sockets *s, const struct open_file *of, const char *name,
			 const struct sockdiag_unix *u)
{
	CLEANUP_FD int fd = ioctl(of->dup, SIOCUNIXFILE);
	CLEANUP_FREE char *path = NULL;
	char link[64], *slash;

	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	if (fd < 0 || io_readlink(AT_FDCWD, link, &path) < 0)
		return false;
	while ((slash = strrchr(path, '/')) != NULL) {
		*slash = '\0';
		if (leads_there(s, of->sock, *path ? path : "/", name, u))
			return true;
	}
	return false;
}

/* From where the program was started, as its environment says. */
static bool environment_knows(struct sockets *s, const struct open_file *of, const char *name,
			      const struct sockdiag_unix *u)
{
	CLEANUP_FREE char *text = NULL;
	size_t len;

	if (io_read_file(of->subject->proc_dirfd, "environ", &text, &len) < 0)
		return false;
	for (const char *v = text; v < text + len; v += strlen(v) + 1)
		if (!strncmp(v, "PWD=/", 5))
			return leads_there(s, of->sock, v + 4, name, u);
	return false;
}

/*
 * A relative name counts from where the program was when it bound it, and daemons go away from
 * there. Others of the tree may still be where it came from, and so may we.
 */
static int find_relative(struct sockets *s, const struct open_file *of, const char *name,
			 const struct sockdiag_unix *u, struct err *err)
{
	struct socket_seen *seen = of->sock;
	char *cwd, *home;
	int rc = proc_link(of->subject->proc_dirfd, "cwd", s->c->arena, &home, NULL, err);

	if (rc < 0 || leads_there(s, seen, home, name, u))
		return rc;
	for (unsigned i = 0; i < s->c->n_subjects; i++)
		if (proc_link(s->c->subjects[i].proc_dirfd, "cwd", s->c->arena, &cwd, NULL, NULL) ==
			    0 &&
		    leads_there(s, seen, cwd, name, u))
			return 0;
	cwd = arena_alloc(s->c->arena, PATH_MAX);
	if (cwd && getcwd(cwd, PATH_MAX) && leads_there(s, seen, cwd, name, u))
		return 0;
	if (environment_knows(s, of, name, u) || kernel_knows(s, of, name, u))
		return 0;
	seen->path = arena_printf(s->c->arena, "%s/%s", strcmp(home, "/") ? home : "", name);
	return seen->path ? 0 : err_nomem(err);
}

/* --- a file that was renamed ------------------------------------------------------------------ */

#define MAX_LOOKED_AT 4096 /* entries of a directory: the job stands still */

/* Does the socket's file lie at that path? */
static bool is_its_file(const char *path, const struct sockdiag_unix *u, struct stat *ret)
{
	return lstat(path, ret) == 0 && S_ISSOCK(ret->st_mode) &&
	       u->file_ino == (uint32_t)ret->st_ino;
}

static char *find_in(struct arena *a, const char *dir, const struct sockdiag_unix *u)
{
	CLEANUP_DIR DIR *d = opendir(dir);
	const struct dirent *e;
	struct stat st;

	for (unsigned i = 0; d && i < MAX_LOOKED_AT && (e = readdir(d)); i++) {
		char *path;

		if ((uint32_t)e->d_ino != u->file_ino)
			continue;
		path = arena_printf(a, "%s/%s", strcmp(dir, "/") ? dir : "", e->d_name);
		if (path && is_its_file(path, u, &st))
			return path;
	}
	return NULL;
}

/* Where the kernel says that the file lies: to root it does. */
static char *ask_kernel(struct arena *a, const struct open_file *of, const struct sockdiag_unix *u)
{
	CLEANUP_FD int fd = ioctl(of->dup, SIOCUNIXFILE);
	CLEANUP_FREE char *path = NULL;
	char link[64];
	struct stat st;

	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	if (fd < 0 || io_readlink(AT_FDCWD, link, &path) < 0 || !is_its_file(path, u, &st))
		return NULL;
	return arena_strdup(a, path);
}

/* The name is not there any more: the file may have another, which must lead to the socket after a
 * restart as well. It is looked for beside the old one, and in the working directory. */
static void find_moved(struct sockets *s, const struct open_file *of, const struct sockdiag_unix *u)
{
	struct file_socket *d = of->sock->d;
	char *dir = arena_strdup(s->c->arena, of->sock->path), *slash, *cwd;
	struct stat st;

	if (!u->has_file)
		return;
	d->moved = ask_kernel(s->c->arena, of, u);
	slash = dir ? strrchr(dir, '/') : NULL;
	if (slash)
		*slash = '\0';
	if (!d->moved && slash)
		d->moved = find_in(s->c->arena, *dir ? dir : "/", u);
	if (!d->moved &&
	    proc_link(of->subject->proc_dirfd, "cwd", s->c->arena, &cwd, NULL, NULL) == 0)
		d->moved = find_in(s->c->arena, cwd, u);
	if (!d->moved || !is_its_file(d->moved, u, &st)) {
		log_debug("no name of the socket '%s' is left, or none that can be found",
			  of->sock->path);
		return;
	}
	d->mode = st.st_mode;
	d->owner_uid = st.st_uid + 1;
	d->owner_gid = st.st_gid + 1;
}

static int look_at_path(struct sockets *s, const struct open_file *of,
			const struct sockdiag_unix *u, struct err *err)
{
	struct socket_seen *seen = of->sock;
	struct file_socket *d = seen->d;
	size_t at = offsetof(struct sockaddr_un, sun_path);
	char *name = arena_alloc(s->c->arena, d->local.len - at + 1);
	struct stat st;
	int rc;

	if (!name)
		return err_nomem(err);
	memcpy(name, d->local.data + at, d->local.len - at);
	seen->path = name;
	if (name[0] != '/') {
		rc = find_relative(s, of, name, u, err);
		if (rc < 0)
			return rc;
		d->traits |= SOCKET_RELATIVE;
	}
	if (lstat(seen->path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    (u->file_ino == (uint32_t)st.st_ino || !is_someone_elses(s, &st))) {
		d->mode = st.st_mode;
		d->owner_uid = st.st_uid + 1;
		d->owner_gid = st.st_gid + 1;
	} else {
		d->traits |= SOCKET_UNLINKED;
		find_moved(s, of, u);
	}
	return 0;
}

/* Is a socket bound to that abstract name now? Each type has names of its own. */
static bool is_bound(const struct file_socket *d)
{
	CLEANUP_FD int fd = socket(AF_UNIX, (int)d->type | SOCK_CLOEXEC, 0);

	return fd < 0 || bind(fd, (const void *)d->local.data, d->local.len) < 0;
}

static bool has_listener(const struct sockets *s, const struct blob *name)
{
	for (unsigned i = 0; i < s->n_listening; i++)
		if (blob_same(&s->listening[i]->local, name))
			return true;
	return false;
}

/* A connected socket's name may be its own or that of the socket which accepted it. */
static bool was_accepted(const struct sockets *s, const struct file_socket *d)
{
	if (d->type == SOCK_DGRAM || !d->local.len || d->state == SOCKET_PLAIN ||
	    d->state == SOCKET_LISTENING || d->state == SOCKET_WAITING)
		return false;
	if (!d->peer.len || has_listener(s, &d->local))
		return true;
	/* both have names: one was accepted */
	if (has_listener(s, &d->peer))
		return false;
	return d->local.len > sizeof(sa_family_t) && !d->local.data[sizeof(sa_family_t)] &&
	       !is_bound(d);
}

/* --- connections ------------------------------------------------------------------------------ */

/* The listening socket in whose accept queue the connecting end ino waits; false: none. */
static bool find_waiting(const struct sockets *s, uint32_t ino, uint32_t *ret_listener)
{
	uint32_t at;

	if (!ino || !idmap_get(&s->waiting, (int32_t)ino, &at))
		return false;
	*ret_listener = find_file(s, s->unix_list[at].ino);
	return true;
}

static int take_waiting(struct sockets *s, struct socket_seen *seen, const struct sockdiag_unix *u,
			struct err *err)
{
	struct file_socket *d = seen->d;
	struct file_socket **listening =
		arena_push(s->c->arena, &s->listening, &s->n_listening, sizeof(*listening));

	if (!listening)
		return err_nomem(err);
	*listening = d;
	d->state = SOCKET_LISTENING;
	d->backlog = u->wqueue;
	for (unsigned k = 0; k < u->n_waiting; k++) {
		uint32_t file = find_file(s, u->waiting[k]);
		struct socket_right *w;

		if (!u->waiting[k])
			socket_refuse(seen, -EAGAIN,
				      "a connection that was closed before accept took it",
				      "what was sent on it can be read after accept only");
		if (!file) /* someone outside: gone with the job, as if refused */
			continue;
		w = arena_push(s->c->arena, &d->waiting, &d->n_waiting, sizeof *w);
		if (!w)
			return err_nomem(err);
		w->file = file;
	}
	return 0;
}

static void wait_in_queue(struct socket_seen *seen, int fd, uint32_t listener)
{
	int sent = 0;

	seen->d->peer_file = listener;
	seen->d->state = listener ? SOCKET_WAITING : SOCKET_OUTSIDE;
	seen->foreign = !listener;
	if (listener && ioctl(fd, SIOCOUTQ, &sent) == 0 && sent > 0)
		socket_refuse(seen, -EAGAIN,
			      "data sent on a connection that accept has not taken yet",
			      "it can be read after accept only");
}

static int link_one(struct sockets *s, struct open_file *of, struct err *err)
{
	struct socket_seen *seen = of->sock;
	struct file_socket *d = seen->d;
	const struct sockdiag_unix *u = sockdiag_unix_find(s->unix_list, s->n_unix, of->st.st_ino);
	uint32_t listener;

	if (!u) {
		socket_refuse(seen, -EOPNOTSUPP, "a socket of another network namespace",
			      "run ckpt-run inside of that namespace");
		return 0;
	}
	d->state = SOCKET_PLAIN;
	unix_peer_capture(s->c, of);
	if (u->shutdown & 1)
		d->traits |= SOCKET_SHUT_READ;
	if (u->shutdown & 2)
		d->traits |= SOCKET_SHUT_WRITE;
	if (u->state == LISTENING)
		return take_waiting(s, seen, u, err);
	if (!u->has_peer)
		return 0;
	d->peer_file = find_file(s, u->peer);
	if (d->peer_file) {
		d->state = SOCKET_CONNECTED;
	} else if (u->peer) {
		d->state = SOCKET_OUTSIDE;
		seen->foreign = true;
	} else if (d->type != SOCK_DGRAM && find_waiting(s, u->ino, &listener)) {
		wait_in_queue(seen, of->dup, listener);
	} else {
		d->state = SOCKET_CLOSED;
	}
	return 0;
}

static int name_one(struct sockets *s, struct open_file *of, struct err *err)
{
	const struct sockdiag_unix *u = sockdiag_unix_find(s->unix_list, s->n_unix, of->st.st_ino);
	struct file_socket *d = of->sock->d;

	if (was_accepted(s, d))
		d->traits |= SOCKET_ACCEPTED;
	/* two ends that both seem to be accepted: the lower one is */
	if ((d->traits & SOCKET_ACCEPTED) && d->peer_file && seen_at(s->c, d->peer_file) &&
	    (seen_at(s->c, d->peer_file)->d->traits & SOCKET_ACCEPTED))
		d->traits &= ~(uint32_t)SOCKET_ACCEPTED;
	return u && unix_has_path(&d->local) ? look_at_path(s, of, u, err) : 0;
}

int unix_survey(struct sockets *s, struct err *err)
{
	int rc = 0;

	for (int pass = 0; pass < 2 && rc == 0; pass++)
		for (unsigned i = 0; i < s->c->n_open_files && rc == 0; i++) {
			struct open_file *of = &s->c->open_files[i];

			if (!of->sock || of->sock->d->family != AF_UNIX)
				continue;
			if (!s->unix_list) {
				rc = sockdiag_unix_read(s->c->arena, &s->unix_list, &s->n_unix,
							err);
				if (rc == 0)
					rc = index_sockets(s, err);
			}
			if (rc == 0)
				rc = pass == 0 ? link_one(s, of, err) : name_one(s, of, err);
			if (rc < 0)
				return err_wrap(err, rc, "pid %d fd %d", of->subject->pid, of->fd);
		}
	return rc;
}
