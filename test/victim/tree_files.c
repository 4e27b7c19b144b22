/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What processes share by being forked: an open file description (offset and flags), a pipe with
 * content, its blocked reader, a FIFO, flock; by clone(2): a descriptor table (CLONE_FILES),
 * working directory and umask (CLONE_FS). Member 1 is an ordinary child, 2 shares the descriptor
 * table, 3 the directories, 4 both; 5 blocks in read from a pipe that 1 holds the other end of; 6
 * reads to the end of a pipe whose writers have all closed it.
 */
#include "family.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/file.h>

enum { LAST = 7 };

/* In shared memory: what the members tell each other. */
static struct talk {
	uint64_t offset, want_offset;
	uint32_t opened; /* a descriptor that the root has opened last */
	uint32_t umask;
	uint32_t got; /* what the blocked reader read */
	uint32_t reading;
} * talk;
static int shared_file, content[2], blocked[2], ended[2], fifo;

static pid_t clone_child(uint64_t flags)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);

	check_sys(pid >= 0);
	return pid;
}

/* The offset is everybody's, and so are the flags. */
static void check_shared_file(int n)
{
	off_t at = lseek(shared_file, 0, SEEK_CUR);

	check((uint64_t)at == talk->offset, "member %d: offset %lld, not %llu", n, (long long)at,
	      (unsigned long long)talk->offset);
	check_sys(write(shared_file, "x", 1) == 1);
	talk->offset++;
}

static void check_table(int n)
{
	char cwd[4096];

	check_shared_file(n);
	if (n == 2 || n == 4)
		check(fcntl((int)talk->opened, F_GETFD) >= 0,
		      "member %d: descriptor %u is not there", n, talk->opened);
	else
		check(fcntl((int)talk->opened, F_GETFD) < 0, "member %d: descriptor %u is there", n,
		      talk->opened);
	if (n == 3 || n == 4) {
		mode_t mask = umask(0);

		check(mask == talk->umask, "member %d: umask %o, not %o", n, mask, talk->umask);
		talk->umask ^= 011;
		(void)umask(talk->umask);
		check_sys(getcwd(cwd, sizeof cwd));
		check(!strcmp(cwd, "/usr"), "member %d: in %s", n, cwd);
	}
}

/* The content of the pipe is a counter: whoever is asked takes it out and puts the next in. */
static void check_content(int n)
{
	uint64_t now, next;

	check_table(n);
	check_sys(read(content[0], &now, sizeof now) == sizeof now);
	next = mix(now);
	check_sys(write(content[1], &next, sizeof next) == sizeof next);
	check(flock(shared_file, LOCK_EX | LOCK_NB) == 0, "member %d: the lock is another's", n);
}

static void check_ended(int n)
{
	char c;

	check(read(ended[0], &c, 1) == 0, "member %d: no end of file", n);
	check(fcntl(fifo, F_GETFL) & O_NONBLOCK, "member %d: the FIFO would block", n);
	check(read(fifo, &c, 1) == 1 && c == 'f' && write(fifo, "f", 1) == 1,
	      "member %d: the FIFO has lost its content", n);
}

static _Noreturn void read_blocked(int n)
{
	family_note(n, 0);
	for (;;) {
		uint32_t v;

		__atomic_store_n(&talk->reading, 1, __ATOMIC_RELEASE);
		check_sys(read(blocked[0], &v, sizeof v) == sizeof v);
		__atomic_store_n(&talk->got, v, __ATOMIC_RELEASE);
	}
}

static void start(int n, uint64_t flags)
{
	pid_t pid = clone_child(flags);

	if (pid)
		return;
	if (n == 5)
		read_blocked(n);
	if (n == 1)
		(void)close(blocked[0]);
	family[n].also = n == 6   ? check_ended
			 : n == 5 ? NULL
			 : n == 1 ? check_content
				  : check_table;
	family_note(n, 0);
	family_serve(n);
}

static void set_up(void)
{
	uint64_t first = 1;

	talk = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check_sys(talk != MAP_FAILED);
	shared_file = open(victim_path("shared"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check_sys(shared_file >= 0 && flock(shared_file, LOCK_EX) == 0);
	check_sys(pipe(content) == 0 && pipe(blocked) == 0 && pipe(ended) == 0);
	check_sys(fcntl(content[1], F_SETPIPE_SZ, 8192) == 8192);
	check_sys(write(content[1], &first, sizeof first) == sizeof first);
	(void)unlink(victim_path("fifo"));
	check_sys(mkfifo(victim_path("fifo"), 0600) == 0);
	fifo = open(victim_path("fifo"), O_RDWR | O_NONBLOCK);
	check_sys(fifo >= 0 && write(fifo, "f", 1) == 1);
	check_sys(close(ended[1]) == 0);
	check_sys(chdir("/usr") == 0);
	talk->umask = umask(027);
	talk->umask = 027;
}

static void check_root(void)
{
	static uint32_t value;
	uint64_t counter;

	(void)close((int)talk->opened);
	talk->opened = (uint32_t)open("/dev/null", O_RDONLY);
	check_shared_file(0);
	family_ask(5);
	family_ask_one(6);
	check(umask(talk->umask) == talk->umask, "the umask is not that of members 3 and 4");
	check(fcntl(content[0], F_GETPIPE_SZ) == 8192, "the pipe has another size");
	check_sys(read(content[0], &counter, sizeof counter) == sizeof counter);
	check_sys(write(content[1], &counter, sizeof counter) == sizeof counter);
	value++;
	check_sys(write(blocked[1], &value, sizeof value) == sizeof value);
	while (__atomic_load_n(&talk->got, __ATOMIC_ACQUIRE) != value)
		sleep_ms(1);
	wait_state(family[5].pid, 'S');
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	set_up();
	family_note(0, -1);
	talk->opened = UINT32_MAX;
	start(1, 0);
	start(2, CLONE_FILES);
	start(3, CLONE_FS);
	start(4, CLONE_FILES | CLONE_FS);
	start(5, 0);
	start(6, 0);
	family_wait(LAST);
	victim_ready();
	while (victim_wait()) {
		check_root();
		victim_ok();
	}
	for (int i = 1; i < LAST; i++)
		(void)kill(family[i].pid, SIGKILL);
	return 0;
}
