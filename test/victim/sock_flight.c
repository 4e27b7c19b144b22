/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: descriptors on their way in unix sockets, each at its byte; credentials. */
#include "victim.h"

#include <sys/socket.h>
#include <sys/un.h>

static int stream[2], dgram[2], pipe_left, creds[2], loop[2];

static void send_fds(int to, const char *text, const int *fds, unsigned n)
{
	char room[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)text, strlen(text) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n) {
		struct cmsghdr *h = (void *)room;

		msg.msg_control = room;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	}
	check_sys(sendmsg(to, &msg, MSG_DONTWAIT) == (ssize_t)strlen(text));
}

/* Reads up to len bytes; how many descriptors came with them. */
static unsigned get_fds(int from, size_t len, const char *want, int *fds)
{
	char room[CMSG_SPACE(4 * sizeof(int))], buf[256] = "";
	struct iovec iov = { buf, len };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	struct cmsghdr *h;
	ssize_t n = recvmsg(from, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	check(n >= 0, "receiving '%s': %s", want, strerror(errno));
	check((size_t)n == strlen(want) && !memcmp(buf, want, strlen(want)),
	      "received '%s', should be '%s'", buf, want);
	h = CMSG_FIRSTHDR(&msg);
	if (!h)
		return 0;
	check(h->cmsg_type == SCM_RIGHTS, "another control message: %d", h->cmsg_type);
	memcpy(fds, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0));
	return (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

static void send_off(void)
{
	int p[2], file, mem, inner[2], both[2];

	/* the read end exists on its way only; so does the file, at its offset */
	check_sys(pipe(p) == 0);
	check_sys(write(p[1], "in the pipe", 11) == 11);
	file = open(victim_path("data"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	check_sys(file >= 0 && write(file, "0123456789", 10) == 10 && lseek(file, 4, 0) == 4);
	both[0] = p[0];
	both[1] = file;
	send_fds(stream[0], "plain;", NULL, 0);
	send_fds(stream[0], "with two;", both, 2);
	send_fds(stream[0], "more;", NULL, 0);
	mem = (int)syscall(SYS_memfd_create, "flight", 1u);
	check_sys(mem >= 0 && pwrite(mem, "in memory", 9, 5000) == 9);
	send_fds(stream[0], "memory", &mem, 1);
	pipe_left = p[1];
	check_sys(close(p[0]) == 0 && close(file) == 0 && close(mem) == 0);
	/* a socket on its way, with a descriptor on its way in it */
	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, inner) == 0);
	send_fds(inner[0], "inside", &pipe_left, 1);
	send_fds(dgram[0], "nothing with it", NULL, 0);
	send_fds(dgram[0], "a socket", &inner[1], 1);
	check_sys(close(inner[0]) == 0 && close(inner[1]) == 0);
	/* and one in its own queue, which nobody could ever close */
	send_fds(loop[0], "round", &loop[1], 1);
}

static void check_pipe(int in)
{
	char buf[32] = "";

	check_sys(read(in, buf, sizeof buf) == 11);
	check(!memcmp(buf, "in the pipe", 11), "the pipe has '%s'", buf);
	check_sys(write(pipe_left, "again", 5) == 5 && read(in, buf, sizeof buf) == 5);
}

static void check_arrivals(void)
{
	char buf[32] = "";
	int fds[4];

	check(get_fds(stream[1], 6, "plain;", fds) == 0, "descriptors too early");
	check(get_fds(stream[1], 4, "with", fds) == 2, "descriptors are missing");
	check_pipe(fds[0]);
	check_sys(read(fds[1], buf, sizeof buf) == 6);
	check(!memcmp(buf, "456789", 6), "the file's offset: '%s'", buf);
	check_sys(close(fds[0]) == 0 && close(fds[1]) == 0);
	/* a read goes on into the message with the next ones, and ends with it */
	check(get_fds(stream[1], 100, " two;more;memory", fds) == 1, "no memory");
	check_sys(pread(fds[0], buf, 9, 5000) == 9);
	check(!memcmp(buf, "in memory", 9), "the memory has '%s'", buf);
	check_sys(close(fds[0]) == 0);
	check(get_fds(dgram[1], 100, "nothing with it", fds) == 0, "a descriptor too many");
	check(get_fds(dgram[1], 100, "a socket", fds) == 1, "no socket");
	check(get_fds(fds[0], 100, "inside", fds + 1) == 1, "nothing inside of the socket");
	check_sys(syscall(SYS_kcmp, getpid(), getpid(), 0, pipe_left, fds[1]) == 0 ||
		  errno == EPERM || errno == ENOSYS);
	check_sys(close(fds[0]) == 0 && close(fds[1]) == 0 && close(pipe_left) == 0);
	check(get_fds(loop[1], 100, "round", fds) == 1, "the loop");
	check_sys(close(fds[0]) == 0);
}

static void check_creds(void)
{
	char room[CMSG_SPACE(sizeof(struct ucred))], buf[16];
	struct iovec iov = { buf, sizeof buf };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room
	};
	struct ucred got, peer;
	socklen_t len = sizeof peer;
	struct cmsghdr *h;
	int on = 0;

	check_sys(recvmsg(creds[1], &msg, MSG_DONTWAIT) == 4);
	h = CMSG_FIRSTHDR(&msg);
	check(h && h->cmsg_type == SCM_CREDENTIALS, "no credentials");
	memcpy(&got, CMSG_DATA(h), sizeof got);
	check(got.uid == getuid() && got.gid == getgid(), "uid %u gid %u", got.uid, got.gid);
	check(got.pid == getpid() || victim_newpids(), "pid %d, not %d", got.pid, getpid());
	check_sys(getsockopt(creds[1], SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0);
	check(peer.uid == getuid() && (peer.pid == getpid() || victim_newpids()), "SO_PEERCRED");
	len = sizeof on;
	check_sys(getsockopt(creds[1], SOL_SOCKET, SO_PASSCRED, &on, &len) == 0);
	check(on == 1, "SO_PASSCRED");
	check_sys(send(creds[0], "who?", 4, 0) == 4);
}

/* What looking at it has set must not stay. */
static void check_peeking(int fd, const char *what)
{
	int off = 0;
	socklen_t len = sizeof off;

	check_sys(getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, &len) == 0);
	check(off == -1, "SO_PEEK_OFF of the %s is %d", what, off);
}

int main(int argc, char **argv)
{
	int on = 1;

	victim_init(argc, argv);
	check_sys(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 &&
		  socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0 &&
		  socketpair(AF_UNIX, SOCK_STREAM, 0, loop) == 0 &&
		  socketpair(AF_UNIX, SOCK_STREAM, 0, creds) == 0);
	check_sys(setsockopt(creds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
	check_sys(send(creds[0], "who?", 4, 0) == 4);
	send_off();
	victim_ready();
	while (victim_wait()) {
		check_peeking(stream[1], "stream");
		check_peeking(dgram[1], "datagram socket");
		check_peeking(loop[1], "loop");
		check_arrivals();
		check_creds();
		send_off();
		victim_ok();
	}
	return 0;
}
