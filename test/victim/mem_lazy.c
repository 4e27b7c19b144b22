/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: memory that is touched in no order, by the program and by the kernel for it, and mappings
 * that change while some of it may be missing. */
#include "victim.h"

#include <linux/futex.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define NPAGES 6000u
#define HOLES  64u /* after the pages: never touched until a test does */

/* Pages with a part of their own to play: none of them is touched by anything else. */
enum {
	PIPE_FROM = 100,
	PIPE_TO = 200,
	IOVECS = 300,
	IOV_A = 400,
	IOV_B = 500,
	FUTEX = 600,
	READABLE = 620, /* for select() ... */
	WRITABLE,
	EXCEPTED,
	TIMEOUT,
	MASK, /* and pselect() */
	MASK_AT,
	SELECT_END,
	SENT = 640, /* what sendmsg() is told ... */
	SENT_IOV,
	SENT_DATA,
	SENT_RIGHTS,
	GOT, /* and recvmsg() */
	GOT_IOV,
	GOT_DATA,
	GOT_RIGHTS,
	OPTION, /* of a socket */
	OPTION_LEN,
	MESSAGE_END,
	PATH = 700,
	STACK = 800,
	STACK_PAGES = 16,
	GONE = 1000,
	GONE_PAGES = 32,
	MOVED = 1100,
	MOVED_PAGES = 32,
	PROTECTED = 1200,
	FREE = 1300
};

static char *area;
static uint64_t rounds;
static volatile int signals;
static int ends[2], pair[2];

static char *at(unsigned page)
{
	return area + (size_t)page * PAGE;
}

static void check_page(unsigned page)
{
	check(page_is(at(page), page), "page %u in round %d", page, (int)rounds);
}

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

/* That is, what a call of select() has left there when one of them was ready. */
static void want_both(void)
{
	FD_SET(ends[0], (fd_set *)at(READABLE));
	FD_SET(ends[1], (fd_set *)at(WRITABLE));
}

static void selects(bool masked)
{
	long n = masked ? syscall(SYS_pselect6, ends[1] + 1, at(READABLE), at(WRITABLE),
				  at(EXCEPTED), at(TIMEOUT), at(MASK_AT))
			: syscall(SYS_select, ends[1] + 1, at(READABLE), at(WRITABLE), at(EXCEPTED),
				  at(TIMEOUT));

	check(n == 1, "select() on missing pages: %ld, %s", n, strerror(errno));
	check(!FD_ISSET(ends[0], (fd_set *)at(READABLE)) &&
		      FD_ISSET(ends[1], (fd_set *)at(WRITABLE)),
	      "select() has not written to a missing page");
	want_both();
}

/* One message with a descriptor, of which each part is in a page of its own. */
static void want_message(unsigned header, bool sent)
{
	struct msghdr *m = (struct msghdr *)at(header);
	struct iovec *iov = (struct iovec *)at(header + 1);
	struct cmsghdr *c = (struct cmsghdr *)at(header + 3);

	*iov = (struct iovec){ at(header + 2), PAGE };
	*m = (struct msghdr){ .msg_iov = iov,
			      .msg_iovlen = 1,
			      .msg_control = c,
			      .msg_controllen = CMSG_SPACE(sizeof(int)) };
	memset(c, 0, PAGE);
	page_fill(at(header + 2), sent ? SENT_DATA : GOT_DATA);
	if (!sent)
		return;
	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
			       .cmsg_level = SOL_SOCKET,
			       .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(c), &ends[0], sizeof ends[0]);
}

static void want_messages(void)
{
	want_message(SENT, true);
	want_message(GOT, false);
	*(int *)at(OPTION) = 1;
	*(socklen_t *)at(OPTION_LEN) = sizeof(int);
}

static void messages(void)
{
	int got;

	check_sys(setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, at(OPTION), sizeof(int)) == 0);
	check_sys(sendmsg(pair[0], (struct msghdr *)at(SENT), 0) == PAGE);
	check_sys(recvmsg(pair[1], (struct msghdr *)at(GOT), MSG_WAITALL) == PAGE);
	check(page_is(at(GOT_DATA), SENT_DATA), "recvmsg() into a missing page");
	check(((struct msghdr *)at(GOT))->msg_controllen == CMSG_LEN(sizeof(int)) ||
		      ((struct msghdr *)at(GOT))->msg_controllen == CMSG_SPACE(sizeof(int)),
	      "no descriptor came in a missing page");
	memcpy(&got, CMSG_DATA((struct cmsghdr *)at(GOT_RIGHTS)), sizeof got);
	check_sys(close(got) == 0);
	check_sys(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, at(OPTION),
			     (socklen_t *)at(OPTION_LEN)) == 0);
	check(*(int *)at(OPTION) == SOCK_STREAM, "getsockopt() into a missing page");
	want_messages();
}

static void set_up(void)
{
	struct sigaction act = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_size = STACK_PAGES * PAGE };
	struct iovec *iov;

	area = mmap(NULL, (NPAGES + HOLES) * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(area != MAP_FAILED);
	iov = (struct iovec *)at(IOVECS);
	stack.ss_sp = at(STACK);
	for (unsigned p = 0; p < NPAGES; p++)
		page_fill(at(p), p);
	iov[0] = (struct iovec){ at(IOV_A), PAGE };
	iov[1] = (struct iovec){ at(IOV_B), PAGE };
	*(uint32_t *)at(FUTEX) = 4711;
	strcpy(at(PATH), "/dev/null");
	memset(at(READABLE), 0, (SELECT_END - READABLE) * PAGE);
	*(uint64_t *)at(MASK) = 1ull << (SIGUSR2 - 1);
	((uint64_t *)at(MASK_AT))[0] = (uintptr_t)at(MASK);
	((uint64_t *)at(MASK_AT))[1] = sizeof(uint64_t);
	check_sys(sigaltstack(&stack, NULL) == 0);
	check_sys(sigaction(SIGUSR2, &act, NULL) == 0);
	check_sys(pipe(ends) == 0);
	want_both();
	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	want_messages();
}

/* The kernel reads and writes memory that nobody has touched since the restart. */
static void calls(void)
{
	char hole[PAGE];
	int fd;

	check_sys(write(ends[1], at(PIPE_FROM), PAGE) == PAGE);
	check_sys(read(ends[0], at(PIPE_TO), PAGE) == PAGE);
	check(page_is(at(PIPE_TO), PIPE_FROM), "read() into a missing page");
	page_fill(at(PIPE_TO), PIPE_TO);

	check_sys(writev(ends[1], (struct iovec *)at(IOVECS), 2) == 2 * PAGE);
	check_sys(read(ends[0], hole, PAGE) == PAGE);
	check(page_is(hole, IOV_A), "writev() from a missing page");
	check_sys(read(ends[0], at(NPAGES + rounds % HOLES), PAGE) == PAGE);
	check(page_is(at(NPAGES + rounds % HOLES), IOV_B), "read() into a page that never was");

	errno = 0;
	check(syscall(SYS_futex, at(FUTEX), FUTEX_WAIT, 1, NULL, NULL, 0) == -1 && errno == EAGAIN,
	      "futex() on a missing page: %s", strerror(errno));
	selects(rounds % 2);
	messages();
	fd = open(at(PATH), O_RDONLY);
	check_sys(fd >= 0);
	check_sys(close(fd) == 0);
	signals = 0;
	check_sys(raise(SIGUSR2) == 0);
	check(signals == 1, "no signal on a missing stack");
}

static void touches(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		check_page(FREE + (unsigned)(mix(rounds * 1000 + i) % (NPAGES - FREE)));
	/* a hole in the same mapping */
	check(page_is_zero(at(NPAGES + (rounds + 1) % HOLES)), "a page that never was");
}

/* What has not come yet must not come any more. */
static void changes(void)
{
	char *moved;
	pid_t pid;
	int status;

	check_sys(madvise(at(GONE), GONE_PAGES * PAGE, MADV_DONTNEED) == 0);
	for (unsigned p = GONE; p < GONE + GONE_PAGES; p++) {
		check(page_is_zero(at(p)), "page %u came back after MADV_DONTNEED", p);
		page_fill(at(p), p);
	}
	moved = mmap(NULL, MOVED_PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_sys(moved != MAP_FAILED);
	check_sys(mremap(at(MOVED), MOVED_PAGES * PAGE, MOVED_PAGES * PAGE,
			 MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
	for (unsigned p = 0; p < MOVED_PAGES; p++)
		check(page_is(moved + p * PAGE, MOVED + p), "moved page %u", p);
	check_sys(mremap(moved, MOVED_PAGES * PAGE, MOVED_PAGES * PAGE,
			 MREMAP_MAYMOVE | MREMAP_FIXED, at(MOVED)) == at(MOVED));
	pid = fork();
	check_sys(pid >= 0);
	if (pid == 0) {
		for (unsigned p = FREE; p < NPAGES; p++)
			if (!page_is(at(p), p))
				_exit(1);
		_exit(0);
	}
	check_sys(waitpid(pid, &status, 0) == pid);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child's memory");
}

static void verify_all(void)
{
	for (unsigned p = 0; p < NPAGES; p++)
		if (p != IOVECS && p != FUTEX && p != PATH && (p < READABLE || p >= SELECT_END) &&
		    (p < SENT || p >= MESSAGE_END) && (p < STACK || p >= STACK + STACK_PAGES))
			check_page(p);
	for (unsigned p = 0; p < HOLES; p++)
		check_sys(madvise(at(NPAGES + p), PAGE, MADV_DONTNEED) == 0);
}

/* With an argument it does not change its mappings and makes no unusual call: then it never needs
 * what it does not touch. */
int main(int argc, char **argv)
{
	bool gently = argc > 2;

	victim_init(argc, argv);
	set_up();
	victim_ready();
	while (victim_wait()) {
		rounds++;
		calls();
		/* splits a mapping that has missing pages */
		check_sys(mprotect(at(PROTECTED), PAGE, PROT_READ) == 0);
		check_page(PROTECTED);
		touches(gently ? 20 : 500);
		if (!gently) {
			changes();
			check_sys(mprotect(at(PROTECTED), PAGE, PROT_READ | PROT_WRITE) == 0);
			verify_all();
		}
		victim_ok();
	}
	return 0;
}
