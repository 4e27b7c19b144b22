/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Victim: its memory is written to through pins, which takes no fault once they are held. One
 * thread writes chunk after chunk, notes that it has done so, and looks before it writes whether
 * the chunk still is what it has noted: a page that came back older is found out.
 *
 *	direct   read(2) from a file with O_DIRECT
 *	aio      the same by io_submit, in a context that is there for a moment only
 *	writev   process_vm_writev(2) into a child's memory
 *	mem      the same through /proc/PID/mem
 *	idle     nothing; `pins BASE into PID ADDRESS N` writes round N there from outside
 */
#include "victim.h"

#include <linux/aio_abi.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#define CHUNK_PAGES 1024ul /* as many as process_vm_writev pins at once */
#define CHUNK_BYTES (CHUNK_PAGES * PAGE)
#define CHUNKS      4
#define SLOTS       5 /* rounds after which the same content comes again */

static uint8_t *area; /* the chunks */
static uint64_t done[CHUNKS];
static uint8_t *work; /* a chunk, for what is written or read back */
static int file = -1;
static pid_t child;
static const char *how;

static uint64_t stamp(uint64_t round, size_t page)
{
	return mix((round % SLOTS) * CHUNK_PAGES + page);
}

static void fill(uint8_t *chunk, uint64_t round)
{
	for (size_t i = 0; i < CHUNK_PAGES; i++)
		*(uint64_t *)(chunk + i * PAGE) = stamp(round, i);
}

static void check_is(const uint8_t *chunk, unsigned c, uint64_t round)
{
	for (size_t i = 0; i < CHUNK_PAGES; i++)
		check(*(const uint64_t *)(chunk + i * PAGE) == stamp(round, i),
		      "page %zu of chunk %u is not of round %llu", i, c, (unsigned long long)round);
}

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check_sys(p != MAP_FAILED);
	return p;
}

/* --- ways of writing ---------------------------------------------------------------------- */

static void make_file(void)
{
	const char *path = victim_path("data");
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	check_sys(fd >= 0);
	for (uint64_t r = 0; r < SLOTS; r++) {
		fill(work, r);
		check_sys(write(fd, work, CHUNK_BYTES) == (ssize_t)CHUNK_BYTES);
	}
	check_sys(fsync(fd) == 0 && close(fd) == 0);
	file = open(path, O_RDONLY | O_DIRECT);
	if (file < 0 && errno == EINVAL)
		victim_skip("no O_DIRECT on this file system");
	check_sys(file >= 0);
}

static void by_aio(uint8_t *to, uint64_t round)
{
	struct iocb cb = { .aio_lio_opcode = IOCB_CMD_PREAD,
			   .aio_fildes = (uint32_t)file,
			   .aio_buf = (uintptr_t)to,
			   .aio_nbytes = CHUNK_BYTES,
			   .aio_offset = (int64_t)(round % SLOTS * CHUNK_BYTES) };
	struct iocb *list[] = { &cb };
	struct io_event event;
	aio_context_t ctx = 0;

	check_sys(syscall(SYS_io_setup, 1, &ctx) == 0);
	check_sys(syscall(SYS_io_submit, ctx, 1L, list) == 1);
	check_sys(syscall(SYS_io_getevents, ctx, 1L, 1L, &event, NULL) == 1);
	check(event.res == (int64_t)CHUNK_BYTES, "read %lld", (long long)event.res);
	check_sys(syscall(SYS_io_destroy, ctx) == 0);
}

static void by_writev(pid_t pid, uint8_t *to, uint64_t round)
{
	struct iovec from = { work, CHUNK_BYTES }, into = { to, CHUNK_BYTES };

	fill(work, round);
	check_sys(process_vm_writev(pid, &from, 1, &into, 1, 0) == (ssize_t)CHUNK_BYTES);
}

static void by_mem(uint8_t *to, uint64_t round)
{
	char path[128], dots[81];
	int fd, dir;

	fill(work, round);
	/* by three names: the usual one, a long one, one that says less */
	memset(dots, '/', sizeof dots - 1);
	dots[round % 3 == 1 ? sizeof dots - 1 : 1] = '\0';
	(void)snprintf(path, sizeof path, "/proc%s%d/mem", dots, child);
	if (round % 3 == 2) {
		*strrchr(path, '/') = '\0';
		dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		check_sys(dir >= 0);
		fd = openat(dir, "mem", O_RDWR | O_CLOEXEC);
		check_sys(close(dir) == 0);
	} else {
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	check_sys(fd >= 0);
	check_sys(pwrite(fd, work, CHUNK_BYTES, (off_t)(uintptr_t)to) == (ssize_t)CHUNK_BYTES);
	check_sys(close(fd) == 0);
}

static void put(uint8_t *to, uint64_t round)
{
	if (!strcmp(how, "direct"))
		check_sys(pread(file, to, CHUNK_BYTES, (off_t)(round % SLOTS * CHUNK_BYTES)) ==
			  (ssize_t)CHUNK_BYTES);
	else if (!strcmp(how, "aio"))
		by_aio(to, round);
	else if (!strcmp(how, "writev"))
		by_writev(child, to, round);
	else
		by_mem(to, round);
}

/* --- looking ------------------------------------------------------------------------------ */

static const uint8_t *look(const uint8_t *at)
{
	struct iovec from = { (void *)(uintptr_t)at, CHUNK_BYTES }, into = { work, CHUNK_BYTES };

	if (!child)
		return at;
	check_sys(process_vm_readv(child, &into, 1, &from, 1, 0) == (ssize_t)CHUNK_BYTES);
	return work;
}

static void *writer(void *arg)
{
	(void)arg;
	for (uint64_t round = 1;; round++)
		for (unsigned c = 0; c < CHUNKS; c++) {
			uint8_t *chunk = area + c * CHUNK_BYTES;

			check_is(look(chunk), c, round - 1);
			put(chunk, round);
			__atomic_store_n(&done[c], round, __ATOMIC_RELEASE);
			if (!strcmp(how, "aio"))
				sleep_ms(5); /* a moment without it, to be saved in */
		}
	return NULL;
}

static void start_child(void)
{
	child = fork();
	check_sys(child >= 0);
	if (child)
		return;
	check_sys(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	for (;;)
		(void)pause();
}

/* From outside: all chunks, and what is noted of them. */
static int write_into(pid_t pid, uint64_t at, uint64_t round)
{
	struct iovec from = { done, sizeof done }, into;

	for (unsigned c = 0; c < CHUNKS; c++) {
		by_writev(pid, (uint8_t *)(uintptr_t)at + c * CHUNK_BYTES, round);
		done[c] = round;
	}
	into = (struct iovec){ (uint8_t *)(uintptr_t)at + CHUNKS * CHUNK_BYTES, sizeof done };
	check_sys(process_vm_writev(pid, &from, 1, &into, 1, 0) == (ssize_t)sizeof done);
	return 0;
}

static void run_idle(void)
{
	const uint64_t *noted = (const uint64_t *)(area + CHUNKS * CHUNK_BYTES);

	(void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	victim_say("area %llx", (unsigned long long)(uintptr_t)area);
	victim_ready();
	while (victim_wait()) {
		for (unsigned c = 0; c < CHUNKS; c++)
			check_is(area + c * CHUNK_BYTES, c, noted[c]);
		victim_say("round %llu", (unsigned long long)noted[0]);
		victim_ok();
	}
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	check(argc > 2, "usage: pins BASE direct|aio|writev|mem|idle");
	how = argv[2];
	work = map(CHUNK_BYTES);
	if (!strcmp(how, "into"))
		return write_into(atoi(argv[3]), strtoull(argv[4], NULL, 16),
				  strtoull(argv[5], NULL, 10));
	area = map(CHUNKS * CHUNK_BYTES + PAGE);
	for (unsigned c = 0; c < CHUNKS; c++)
		fill(area + c * CHUNK_BYTES, 0);
	if (!strcmp(how, "idle")) {
		run_idle();
		return 0;
	}
	if (!strcmp(how, "direct") || !strcmp(how, "aio"))
		make_file();
	else
		start_child();
	(void)thread_start(writer, NULL);
	victim_ready();
	while (victim_wait()) {
		uint64_t now = __atomic_load_n(&done[CHUNKS - 1], __ATOMIC_ACQUIRE);

		while (__atomic_load_n(&done[CHUNKS - 1], __ATOMIC_ACQUIRE) < now + 2)
			sleep_ms(1);
		victim_ok();
	}
	return 0;
}
