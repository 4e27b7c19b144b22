/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A chain's lock, and in the same file a note of the job that the chain is of. A job survives the
 * command that looks after it: the lock is free then, and a restart beside the job would work on
 * the same files as it does.
 */
#include "image/chain_int.h"

#include "util/cleanup.h"
#include "util/ending.h"
#include "util/io.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#define LOCK_NAME    "lock"
#define LOCK_TRIES   300
#define ENDING_TRIES 1000 /* a large memory takes its time to go */
#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_MAX  65
#define KIN_MAX      (256 << 10)

static const struct timespec moment = { .tv_nsec = 10000000 };

/* --- the lock ------------------------------------------------------------------------------------
 */

static int locked_by(struct chain *c, struct err *err)
{
	char text[128] = "", who[64] = "another command";
	long pid = 0;
	ssize_t n = io_pread_full(c->lock, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "%ld %63s", &pid, who) >= 1 && pid > 0)
		return err_set(err, -EBUSY, "chain '%s' is in use by %s (pid %ld)", c->path, who,
			       pid);
	return err_set(err, -EBUSY, "chain '%s' is in use by %s", c->path, who);
}

/* Has the one who holds the lock been killed? Then it ends in a moment, or a process of its that is
 * letting go of a job does. */
static bool holder_is_dead(const struct chain *c)
{
	char text[32] = "";
	ssize_t n = io_pread_full(c->lock, text, sizeof text - 1, 0);
	long pid = n > 0 ? strtol(text, NULL, 10) : 0;

	if (pid <= 0)
		return false;
	switch (ending_of((pid_t)pid, NULL)) {
	case ENDING_NOT:
	case ENDING_LEADER:
		return false;
	case ENDING_GONE:
		return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
	default:
		return true;
	}
}

static int lock_file(const struct chain *c)
{
	for (unsigned tries = 0; flock(c->lock, LOCK_EX | LOCK_NB) < 0; tries++) {
		if (errno != EWOULDBLOCK)
			return -errno;
		if (!holder_is_dead(c) || tries == LOCK_TRIES)
			return -EWOULDBLOCK;
		(void)nanosleep(&moment, NULL);
	}
	return 0;
}

/* What the file says beside being locked: who has locked it, and which job the chain is of. */
static int write_lock(const struct chain *c)
{
	CLEANUP_FREE char *text = NULL;
	int n = asprintf(&text, "%ld %.64s\n%s%s", (long)c->locker, program_invocation_short_name,
			 c->job, c->kin ? c->kin : "");
	int rc;

	if (n < 0) {
		text = NULL;
		return -ENOMEM;
	}
	rc = io_pwrite_full(c->lock, text, (size_t)n, 0);
	/* what was there before goes last: the note of the job is there at every instant */
	return rc == 0 && ftruncate(c->lock, n) < 0 ? -errno : rc;
}

static void read_job(struct chain *c)
{
	CLEANUP_FREE char *text = calloc(1, KIN_MAX);
	ssize_t n = text ? io_pread_full(c->lock, text, KIN_MAX - 1, 0) : 0;
	char *line = n > 0 ? strchr(text, '\n') : NULL, *end;

	if (!line || strncmp(line + 1, "job ", 4) != 0 || !(end = strchr(line + 1, '\n')) ||
	    (size_t)(end - line) >= sizeof c->job)
		return;
	memcpy(c->job, line + 1, (size_t)(end - line));
	c->job[end - line] = '\0';
	c->kin = strdup(end + 1);
}

int chain_lock(struct chain *c, struct err *err)
{
	int rc;

	c->lock = openat(c->dir, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (c->lock < 0)
		return err_set(err, -errno, "cannot write to chain '%s': %m", c->path);
	rc = lock_file(c);
	if (rc == -EWOULDBLOCK)
		return locked_by(c, err);
	if (rc < 0)
		return err_set(err, rc, "cannot lock chain '%s': %m", c->path);
	c->locker = getpid();
	read_job(c);
	(void)write_lock(c); /* on a full disk the lock holds all the same */
	return 0;
}

/* --- the job -------------------------------------------------------------------------------------
 */

/* "-" where the system does not tell. */
static void read_boot_id(char ret[static BOOT_ID_MAX])
{
	CLEANUP_FREE char *text = NULL;
	size_t len = 0;

	if (io_read_file(AT_FDCWD, BOOT_ID_PATH, &text, NULL) == 0)
		len = strcspn(text, "\n");
	(void)snprintf(ret, BOOT_ID_MAX, "%.*s", len ? (int)MIN(len, 64u) : 1, len ? text : "-");
}

int chain_note_job(struct chain *c, pid_t root, struct err *err)
{
	char boot[BOOT_ID_MAX];
	uint64_t started;
	int rc;

	if (ending_of(root, &started) == ENDING_GONE) /* already */
		return 0;
	read_boot_id(boot);
	(void)snprintf(c->job, sizeof c->job, "job %ld %" PRIu64 " %s\n", (long)root, started,
		       boot);
	rc = write_lock(c);
	return rc < 0 ? err_set(err, rc, "cannot note in chain '%s' that its job runs: %m", c->path)
		      : 0;
}

int chain_note_kin(struct chain *c, const struct chain_kin *kin, unsigned n, struct err *err)
{
	CLEANUP_FREE char *text = calloc(n + 1, sizeof "also 2147483647 18446744073709551615\n");
	size_t len = 0;
	int rc = 0;

	if (!text)
		return err_nomem(err);
	for (unsigned i = 0; i < n && len < KIN_MAX / 2; i++)
		len += (size_t)sprintf(text + len, "also %ld %" PRIu64 "\n", (long)kin[i].pid,
				       kin[i].start_time);
	if (!c->kin || strcmp(text, c->kin) != 0) {
		free(c->kin);
		c->kin = ptr_take(&text);
		rc = write_lock(c);
	}
	return rc < 0 ? err_set(err, rc, "cannot note in chain '%s' who its job is: %m", c->path)
		      : 0;
}

/* The process if it is there, and how it is. */
static long find_process(long pid, uint64_t started, enum ending *ret)
{
	uint64_t start = 0;

	*ret = ending_of((pid_t)pid, &start);
	return *ret >= ENDING_DONE || start != started ? 0 : pid;
}

/* The first process of the note that is there. */
static long find_job(const struct chain *c, enum ending *ret)
{
	char boot[BOOT_ID_MAX], booted[BOOT_ID_MAX];
	const char *line = c->kin;
	uint64_t started = 0;
	long pid = 0, found;

	read_boot_id(boot);
	if (sscanf(c->job, "job %ld %" SCNu64 " %64s", &pid, &started, booted) != 3 ||
	    strcmp(boot, booted) != 0)
		return 0;
	found = find_process(pid, started, ret);
	while (!found && line && sscanf(line, "also %ld %" SCNu64, &pid, &started) == 2) {
		found = find_process(pid, started, ret);
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return found;
}

pid_t chain_job(const struct chain *c)
{
	enum ending how = ENDING_GONE;
	long pid = find_job(c, &how);

	for (unsigned tries = 0;
	     pid && how != ENDING_NOT && tries < (how == ENDING_SOON ? ENDING_TRIES : ENDING_LOOKS);
	     tries++) {
		(void)nanosleep(&moment, NULL);
		pid = find_job(c, &how);
	}
	return (pid_t)pid;
}
