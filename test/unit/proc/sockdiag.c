/* SPDX-License-Identifier: BSD-2-Clause */
/* sock_diag: answers as the kernel lays them out, cut off anywhere, and those of this kernel. */
#include "../check.h"

#include "proc/sockdiag.h"
#include "util/cleanup.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct err err;
static struct arena *arena;

struct answer {
	uint8_t b[1024];
	size_t len;
};

static struct nlmsghdr *begin(struct answer *a, uint16_t type, const void *payload, size_t len)
{
	struct nlmsghdr *h = (void *)(a->b + a->len);

	*h = (struct nlmsghdr){ .nlmsg_len = (uint32_t)(NLMSG_HDRLEN + len), .nlmsg_type = type };
	memcpy(h + 1, payload, len);
	a->len += NLMSG_ALIGN(h->nlmsg_len);
	return h;
}

static void attribute(struct answer *a, struct nlmsghdr *h, uint16_t type, const void *data,
		      size_t len)
{
	struct rtattr *at = (void *)(a->b + a->len);

	at->rta_type = type;
	at->rta_len = (uint16_t)(sizeof *at + len);
	memcpy(at + 1, data, len);
	a->len += RTA_ALIGN(at->rta_len);
	h->nlmsg_len += (uint32_t)RTA_ALIGN(at->rta_len);
}

static struct answer listening(void)
{
	struct unix_diag_msg m = { .udiag_family = AF_UNIX,
				   .udiag_type = SOCK_STREAM,
				   .udiag_state = 10,
				   .udiag_ino = 77 };
	uint32_t icons[] = { 5, 0, 6 }, rqlen[] = { 3, 128 }, vfs[] = { 1234, 0x800001 };
	struct answer a = { 0 };
	struct nlmsghdr *h = begin(&a, SOCK_DIAG_BY_FAMILY, &m, sizeof m);
	uint8_t shut = 2;

	attribute(&a, h, UNIX_DIAG_ICONS, icons, sizeof icons);
	attribute(&a, h, UNIX_DIAG_RQLEN, rqlen, sizeof rqlen);
	attribute(&a, h, UNIX_DIAG_VFS, vfs, sizeof vfs);
	attribute(&a, h, 99, "later", 5);
	attribute(&a, h, UNIX_DIAG_SHUTDOWN, &shut, 1);
	return a;
}

static void test_unix(void)
{
	struct answer a = listening();
	struct sockdiag_unix *list = NULL;
	unsigned n = 0;
	bool done = false;
	int zero = 0;

	CHECK_OK(sockdiag_unix_parse(a.b, a.len, arena, &list, &n, &done, &err));
	CHECK(!done);
	CHECK_INT(n, 1);
	CHECK_INT(list[0].ino, 77);
	CHECK_INT(list[0].state, 10);
	CHECK_INT(list[0].n_waiting, 3);
	CHECK_INT(list[0].waiting[0], 5);
	CHECK_INT(list[0].waiting[1], 0);
	CHECK_INT(list[0].wqueue, 128);
	CHECK_INT(list[0].file_ino, 1234);
	CHECK_INT(list[0].shutdown, 2);
	CHECK(!list[0].has_peer && list[0].has_file);
	begin(&a, NLMSG_DONE, &zero, sizeof zero);
	CHECK_OK(sockdiag_unix_parse(a.b, a.len, arena, &list, &n, &done, &err));
	CHECK(done);
}

static void test_errors(void)
{
	struct nlmsgerr e = { .error = -ENOENT };
	struct answer a = { 0 };
	struct sockdiag_unix *list = NULL;
	struct sockdiag_tcp tcp;
	unsigned n = 0;
	bool done = false;

	begin(&a, NLMSG_ERROR, &e, sizeof e);
	CHECK_INT(sockdiag_unix_parse(a.b, a.len, arena, &list, &n, &done, &err), -ENOENT);
	CHECK_INT(sockdiag_tcp_parse(a.b, a.len, &tcp, &err), -ENOENT);
	a = listening();
	((struct nlmsghdr *)(void *)a.b)->nlmsg_flags = NLM_F_DUMP_INTR;
	CHECK_INT(sockdiag_unix_parse(a.b, a.len, arena, &list, &n, &done, &err), -EINTR);
}

/* Cut off anywhere, and with every length changed: an error or less, and no byte behind the end. */
static void test_damaged(void)
{
	struct answer a = listening();

	for (size_t len = 0; len <= a.len; len++)
		for (unsigned at = 0; at < len; at++) {
			CLEANUP_FREE uint8_t *b = malloc(len + 1);
			struct sockdiag_unix *list = NULL;
			struct sockdiag_tcp tcp;
			unsigned n = 0;
			bool done = false;

			memcpy(b, a.b, len);
			b[at] = (uint8_t)(b[at] + 1 + len);
			(void)sockdiag_unix_parse(b, len, arena, &list, &n, &done, &err);
			(void)sockdiag_tcp_parse(b, len, &tcp, &err);
		}
}

static uint64_t ino_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) < 0 ? 0 : st.st_ino;
}

static void test_live(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	socklen_t len = sizeof sa;
	const struct sockdiag_unix *u;
	struct sockdiag_unix *list;
	unsigned n;
	int pair[2], l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	CHECK_INT(bind(l, (void *)&sa, sizeof sa.sun_family), 0);
	CHECK_INT(getsockname(l, (void *)&sa, &len), 0);
	CHECK_INT(listen(l, 9), 0);
	CHECK_INT(connect(c, (void *)&sa, len), 0);
	CHECK_OK(sockdiag_unix_read(arena, &list, &n, &err));
	u = sockdiag_unix_find(list, n, ino_of(pair[0]));
	CHECK(u && u->has_peer && u->peer == ino_of(pair[1]) && u->type == SOCK_SEQPACKET);
	u = sockdiag_unix_find(list, n, ino_of(l));
	CHECK(u && u->state == 10 && u->wqueue == 9 && u->n_waiting == 1 &&
	      u->waiting[0] == ino_of(c));
	u = sockdiag_unix_find(list, n, ino_of(c));
	CHECK(u && u->has_peer && u->peer == 0);
	CHECK(!sockdiag_unix_find(list, n, 0));
}

/* What was sent arrives when the kernel gets to it, and the end of the handshake, too. */
static void wait_for_data(const struct sockaddr_in *at, const struct sockaddr_in *from, unsigned n)
{
	struct sockdiag_tcp tcp = { 0 };

	for (int i = 0; i < 20000 && tcp.rqueue != n; i++) {
		if (sockdiag_tcp_find((const void *)at, (const void *)from, &tcp, NULL) < 0)
			tcp.rqueue = 0;
		(void)usleep(1000);
	}
}

static void test_live_tcp(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
			   own;
	socklen_t len = sizeof sa;
	struct sockdiag_tcp tcp;
	int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);

	CHECK_INT(bind(l, (void *)&sa, sizeof sa), 0);
	CHECK_INT(getsockname(l, (void *)&sa, &len), 0);
	CHECK_INT(listen(l, 3), 0);
	CHECK_INT(connect(c, (void *)&sa, sizeof sa), 0);
	len = sizeof own;
	CHECK_INT(getsockname(c, (void *)&own, &len), 0);
	CHECK_INT(send(c, "hello", 5, 0), 5);
	wait_for_data(&sa, &own, 5);
	CHECK_OK(sockdiag_tcp_find((void *)&sa, (void *)&own, &tcp, &err));
	CHECK_INT(tcp.ino, 0);
	CHECK_INT(tcp.state, 1);
	CHECK_INT(tcp.rqueue, 5);
	CHECK_INT(tcp.local_port, ntohs(sa.sin_port));
	CHECK_OK(sockdiag_tcp_find((void *)&own, (void *)&sa, &tcp, &err));
	CHECK_INT(tcp.ino, ino_of(c));
	own.sin_port = htons(1);
	CHECK_INT(sockdiag_tcp_find((void *)&own, (void *)&sa, &tcp, &err), -ENOENT);
}

int main(void)
{
	arena = arena_new();
	test_unix();
	test_errors();
	test_damaged();
	test_live();
	test_live_tcp();
	arena_free(arena);
	return 0;
}
