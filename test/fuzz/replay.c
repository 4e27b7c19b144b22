/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs a fuzz target without libFuzzer: over one input to debug it, or over a corpus as a test. */
#include "target.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

/*
 * replay FILE runs the target on that file. replay FOLDER does so for each file in it and asks two
 * things more: what is not called bad-* must be accepted by the target (a seed that no longer is
 * has gone stale), and some hundreds of damaged copies of each, always the same, must not break it.
 */
enum { MUTANTS = 400 };

static int n_run;
static char where[300]; /* what runs now, for the message when it breaks */

static void say_where(int sig)
{
	(void)!write(STDERR_FILENO, where, strlen(where));
	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
}

static void run_bytes(const char *data, size_t len)
{
	/* no byte to spare behind it, so that a sanitizer sees a read beyond the end */
	CLEANUP_FREE uint8_t *exact = malloc(len ? len : 1);

	if (!exact)
		abort();
	memcpy(exact, data, len);
	(void)LLVMFuzzerTestOneInput(exact, len);
	n_run++;
}

static int read_input(int dirfd, const char *name, char **ret, size_t *ret_len)
{
	int rc = io_read_file(dirfd, name, ret, ret_len);

	(void)snprintf(where, sizeof where, "broken by %s\n", name);
	if (rc == 0)
		return 0;
	errno = -rc;
	perror(name);
	return 1;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* One to four changed bytes, often to values at the edge, or the end cut off. */
static void run_mutants(const char *name, const char *data, size_t len)
{
	static const char edges[] = { 0, 1, 2, 0x7f, -128, -1, 64, 16 };
	uint64_t state = 0x9e3779b97f4a7c15u ^ len;

	for (int n = 0; n < MUTANTS && len > 0; n++) {
		CLEANUP_FREE char *copy = malloc(len);
		size_t copy_len = len;

		if (!copy)
			abort();
		memcpy(copy, data, len);
		for (uint64_t i = next_random(&state) % 4 + 1; i > 0; i--) {
			uint64_t r = next_random(&state);

			copy[r % len] = r >> 60 < 12 ? edges[r >> 40 & 7] : (char)(r >> 48);
		}
		if (n % 16 == 0)
			copy_len = next_random(&state) % len;
		(void)snprintf(where, sizeof where, "broken by damaged copy %d of %s\n", n, name);
		run_bytes(copy, copy_len);
	}
}

static int run_seed(int dirfd, const char *name)
{
	CLEANUP_FREE char *data = NULL;
	unsigned long before = fuzz_accepted;
	size_t len;

	if (read_input(dirfd, name, &data, &len))
		return 1;
	run_bytes(data, len);
	if (fuzz_accepted == before && strncmp(name, "bad-", 4) != 0) {
		printf("seed %s is not accepted any more (test/fuzz/run --seeds makes new ones)\n",
		       name);
		return 1;
	}
	run_mutants(name, data, len);
	return 0;
}

static int run_path(const char *path)
{
	CLEANUP_DIR DIR *dir = NULL;
	CLEANUP_FREE char *data = NULL;
	const struct dirent *d;
	struct stat st;
	int failed = 0;
	size_t len;

	if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
		if (read_input(AT_FDCWD, path, &data, &len))
			return 1;
		run_bytes(data, len);
		return 0;
	}
	dir = opendir(path);
	if (!dir) {
		perror(path);
		return 1;
	}
	while ((d = readdir(dir)) != NULL)
		if (d->d_name[0] != '.')
			failed |= run_seed(dirfd(dir), d->d_name);
	return failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	(void)signal(SIGABRT, say_where);
	for (int i = 1; i < argc; i++)
		failed |= run_path(argv[i]);
	printf("%d inputs\n", n_run);
	return failed || n_run == 0;
}
