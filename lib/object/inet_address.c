/* SPDX-License-Identifier: BSD-2-Clause */
/* Internet addresses: an IPv4 one may also come as IPv6 (::ffff:127.0.0.1), and is then the same.
 */
#include "object/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* In the form of IPv6; port in network order. */
struct plain {
	uint8_t addr[16];
	uint16_t port;
	bool v4;
};

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static bool to_plain(const struct blob *b, struct plain *ret)
{
	struct sockaddr_storage sa = { 0 };

	if (b->len < sizeof(struct sockaddr_in) || b->len > sizeof sa)
		return false;
	memcpy(&sa, b->data, b->len);
	memset(ret, 0, sizeof *ret);
	if (sa.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)&sa;

		memcpy(ret->addr, &in6->sin6_addr, 16);
		ret->port = in6->sin6_port;
		ret->v4 = !memcmp(ret->addr, mapped, sizeof mapped);
		return true;
	}
	memcpy(ret->addr, mapped, sizeof mapped);
	memcpy(ret->addr + 12, &((const struct sockaddr_in *)(const void *)&sa)->sin_addr, 4);
	ret->port = ((const struct sockaddr_in *)(const void *)&sa)->sin_port;
	ret->v4 = true;
	return sa.ss_family == AF_INET;
}

static bool is_any(const struct plain *p)
{
	static const uint8_t zero[16];

	return !memcmp(p->addr, zero, 16) || (p->v4 && !memcmp(p->addr + 12, zero, 4));
}

unsigned inet_port(const struct blob *addr)
{
	struct plain p;

	return to_plain(addr, &p) ? ntohs(p.port) : 0;
}

bool inet_is_any(const struct blob *addr)
{
	struct plain p;

	return !to_plain(addr, &p) || is_any(&p);
}

bool inet_same(const struct blob *a, const struct blob *b)
{
	struct plain x, y;

	return to_plain(a, &x) && to_plain(b, &y) && x.port == y.port &&
	       !memcmp(x.addr, y.addr, 16);
}

bool inet_reaches(const struct blob *local, const struct blob *addr)
{
	struct plain x, y;

	if (!to_plain(local, &x) || !to_plain(addr, &y) || x.port != y.port)
		return false;
	if (is_any(&x)) /* of IPv4 alone, or of both */
		return !x.v4 || y.v4;
	return !memcmp(x.addr, y.addr, 16);
}

const char *inet_text(struct arena *a, const struct blob *addr)
{
	char text[INET6_ADDRSTRLEN] = "?";
	const char *ret;
	struct plain p;

	if (!to_plain(addr, &p))
		return "an address";
	(void)inet_ntop(p.v4 ? AF_INET : AF_INET6, p.v4 ? p.addr + 12 : p.addr, text, sizeof text);
	ret = arena_printf(a, "%s port %u", text, ntohs(p.port));
	return ret ? ret : "an address";
}
