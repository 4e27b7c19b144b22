/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of what cannot be restored. */
#include "proc/refusals.h"

#include "util/cleanup.h"

#include <linux/netlink.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

const char refusal_hint_32bit[] = "use a 64-bit build of the program";
const char refusal_hint_shadow_stack[] =
	"start the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off";
const char refusal_hint_root[] = "keep the directory that chroot(2) was called for";
const char refusal_hint_mapped[] =
	"a file that was replaced must keep its old content under another name until the program "
	"has been started anew";
const char refusal_hint_thread_creds[] =
	"a program that changes ids for all of its threads (setuid(3)) can be checkpointed";
const char refusal_hint_timer[] = "it is an obstacle only for as long as the timer is there";
const char refusal_hint_filter[] =
	"start the program without its sandbox (many have an option for that)";
const char refusal_hint_pkey[] = "the program must do without pkey_mprotect(2)";
const char refusal_hint_uffd[] =
	"with ckpt-run --unsupported close the pages come back that are there by then";
const char refusal_hint_device[] = "the program must unmap it first, or do without the device";
const char refusal_hint_netns[] = "run ckpt-run inside of that namespace";
const char refusal_hint_told_value[] = "a handler without SA_SIGINFO is";
const char refusal_hint_told_shared[] = "the first of the processes that share them may ask";
const char refusal_hint_hugetlb[] =
	"start the program without huge pages of its own (PostgreSQL: huge_pages=off; Java: "
	"-XX:+UseTransparentHugePages instead of -XX:+UseLargePages)";

static const struct refusal files[] = {
	{ "anon_inode:[io_uring]", "io_uring",
	  "ckpt-run --deny-io-uring makes programs do without it; libuv also UV_USE_IO_URING=0" },
	{ "anon_inode:[userfaultfd]", "userfaultfd", NULL },
	{ "anon_inode:[perf_event]", "a perf event", NULL },
	{ "anon_inode:bpf-map", "a bpf map", NULL },
	{ "anon_inode:bpf-prog", "a bpf program", NULL },
	{ "anon_inode:bpf_link", "a bpf link", NULL },
	{ "anon_inode:bpf", "a bpf object", NULL },
	{ "anon_inode:btf", "a bpf object", NULL },
	{ "anon_inode:[fanotify]", "fanotify", NULL },
	{ "anon_inode:kvm", "KVM", "virtual machines have snapshots of their own" },
	{ "anon_inode:seccomp notify", "a seccomp listener", NULL },
	{ "anon_inode:[landlock-ruleset]", "a landlock ruleset", NULL },
	{ "anon_inode:sync_file", "a GPU fence", NULL },
	{ "/dmabuf:", "a DMA buffer", NULL },
	{ "net:", "a network namespace", NULL },
	{ "mnt:", "a mount namespace", NULL },
	{ "user:", "a user namespace", NULL },
	{ "pid:", "a pid namespace", NULL },
	{ "/secretmem", "memfd_secret", NULL },
};

static const struct refusal devices[] = {
	{ "/dev/kvm", "KVM", "virtual machines have snapshots of their own" },
	{ "/dev/fuse", "FUSE", NULL },
	{ "/dev/net/tun", "a TUN or TAP interface", NULL },
	{ "/dev/dri/", "a GPU", NULL },
	{ "/dev/nvidia", "a GPU", NULL },
	{ "/dev/userfaultfd", "userfaultfd", NULL },
};

static const struct refusal mappings[] = {
	{ "anon_inode:[io_uring]", "an io_uring ring",
	  "ckpt-run --deny-io-uring makes programs do without it" },
	{ "anon_inode:", "a kernel object (perf, KVM, ...)", refusal_hint_device },
	{ "/[aio]", "a Linux AIO context",
	  "many programs can do without: MariaDB with innodb_use_native_aio=0, QEMU with "
	  "aio=threads" },
	{ "/secretmem", "secret memory (memfd_secret)",
	  "what may be nowhere else cannot be in an image: start the program without it" },
	{ "[uprobes]", "a uprobe", "end the tracing (perf probe, bpftrace), and start it anew" },
	{ "/dev/infiniband", "an InfiniBand device",
	  "Open MPI does without it: --mca btl self,tcp" },
};

static const struct {
	long magic;
	const char *name;
} filesystems[] = {
	{ 0x5345434d, "memfd_secret" },
	{ 0x958458f6, "a file of huge pages" },
	{ 0x6e736673, "a namespace" },
	{ 0xcafe4a11, "a bpf object" },
};

static const struct refusal *find(const struct refusal *r, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (!strncmp(text, r[i].prefix, strlen(r[i].prefix)))
			return &r[i];
	return NULL;
}

const struct refusal *refusal_of_file(const char *link)
{
	return find(files, ARRAY_SIZE(files), link);
}

static const char *const links[] = { LINK_EPOLL, LINK_EVENTFD,  LINK_INOTIFY,
				     LINK_PIDFD, LINK_SIGNALFD, LINK_TIMERFD };

bool refusal_link_is_pidfd(const char *link)
{
	return !strcmp(link, LINK_PIDFD) || !strncmp(link, "pidfd:", 6);
}

bool refusal_knows_link(const char *link)
{
	if (link[0] == '/' || !strncmp(link, "pipe:[", 6) || !strncmp(link, "socket:[", 8) ||
	    refusal_link_is_pidfd(link))
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (!strcmp(link, links[i]))
			return true;
	return false;
}

/* A name may stand for several types; protocol 0: any. */
static const struct {
	unsigned domain, type, protocol;
	const char *name;
} sockets[] = {
	{ AF_UNIX, SOCK_STREAM, 0, "UNIX-STREAM" },
	{ AF_UNIX, SOCK_DGRAM, 0, "UNIX" },
	{ AF_UNIX, SOCK_SEQPACKET, 0, "UNIX" },
	{ AF_INET, SOCK_STREAM, IPPROTO_TCP, "TCP" },
	{ AF_INET6, SOCK_STREAM, IPPROTO_TCP, "TCPv6" },
	{ AF_INET, SOCK_DGRAM, IPPROTO_UDP, "UDP" },
	{ AF_INET6, SOCK_DGRAM, IPPROTO_UDP, "UDPv6" },
};

bool refusal_knows_socket(unsigned domain, unsigned type, unsigned protocol)
{
	if (domain == AF_NETLINK)
		return refusal_knows_netlink(protocol);
	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
		if (sockets[i].domain == domain && sockets[i].type == type &&
		    (!sockets[i].protocol || sockets[i].protocol == protocol))
			return true;
	return false;
}

bool refusal_knows_protocol(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
		if (!strcmp(sockets[i].name, name))
			return true;
	return !strcmp(name, "NETLINK"); /* refusal_knows_netlink tells */
}

bool refusal_knows_netlink(unsigned protocol)
{
	return protocol == NETLINK_ROUTE || protocol == NETLINK_SOCK_DIAG ||
	       protocol == NETLINK_KOBJECT_UEVENT || protocol == NETLINK_GENERIC;
}

const struct refusal *refusal_of_device(const char *path)
{
	return find(devices, ARRAY_SIZE(devices), path);
}

const struct refusal *refusal_of_mapping(const char *path)
{
	return find(mappings, ARRAY_SIZE(mappings), path);
}

const char *refusal_of_filesystem(long magic)
{
	for (size_t i = 0; i < ARRAY_SIZE(filesystems); i++)
		if (filesystems[i].magic == magic)
			return filesystems[i].name;
	return NULL;
}

bool refusal_is_kernels_own(long magic)
{
	static const long magics[] = {
		0x62656572, /* sysfs */
		0x63677270, /* cgroup2 */
		0x27e0eb,   /* cgroup */
		0x64626720, /* debugfs */
		0x74726163, /* tracefs */
		0x73636673, /* securityfs */
	};

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (magics[i] == magic)
			return true;
	return false;
}

const char refusal_hint_ckpt[] =
	"a ckpt-run takes the whole tree below it: one around the job is enough";

/*
 * Another ckpt-run has a chain that goes on without it: after a restart it would be behind its own
 * images. Of a restarted process the executable may be shown as ckpt-restart, but not the name.
 */
bool refusal_is_ckpt(const char *name, const char *exe)
{
	const char *base = strrchr(exe, '/');

	return name && base && !strcmp(base + 1, name) &&
	       (!strcmp(name, "ckpt-run") || !strcmp(name, "ckpt-restart"));
}

int refusal_knows_device(unsigned maj, unsigned min)
{
	if (maj == 1) /* null, zero, full, random, urandom */
		return min == 3 || min == 5 || min == 7 || min == 8 || min == 9;
	return maj == 4 || maj == 5 || (maj >= 136 && maj <= 143);
}
