/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be restored is refused here by its name, with what can be done about it. */
#include "object/kinds.h"

#include <sys/socket.h>
#include <sys/sysmacros.h>

struct known {
	const char *link; /* the beginning of what /proc/PID/fd shows */
	const char *name;
	const char *hint;
};

static const struct known anon_files[] = {
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

static const struct known devices[] = {
	{ "/dev/kvm", "KVM", "virtual machines have snapshots of their own" },
	{ "/dev/fuse", "FUSE", NULL },
	{ "/dev/net/tun", "a TUN or TAP interface", NULL },
	{ "/dev/dri/", "a GPU", NULL },
	{ "/dev/nvidia", "a GPU", NULL },
	{ "/dev/userfaultfd", "userfaultfd", NULL },
};

#define FS_SECRETMEM 0x5345434d
#define FS_HUGETLB   0x958458f6
#define FS_NSFS      0x6e736673
#define FS_BPF       0xcafe4a11

static const struct {
	long magic;
	const char *name;
} filesystems[] = {
	{ FS_SECRETMEM, "memfd_secret" },
	{ FS_HUGETLB, "a file of huge pages" },
	{ FS_NSFS, "a namespace" },
	{ FS_BPF, "a bpf object" },
};

static const struct known *find(const struct known *k, size_t n, const char *link)
{
	for (size_t i = 0; i < n; i++)
		if (!strncmp(link, k[i].link, strlen(k[i].link)))
			return &k[i];
	return NULL;
}

static int refuse_known(const struct open_file *of, const struct known *k, struct err *err)
{
	refuse(of, err, "%s is not supported", k->name);
	if (k->hint)
		err_hint(err, "%s", k->hint);
	return -EOPNOTSUPP;
}

static int refuse_socket(const struct open_file *of, struct err *err)
{
	static const struct {
		int domain, type;
		const char *name;
	} sockets[] = {
		{ AF_INET, SOCK_RAW, "a raw socket" },
		{ AF_INET6, SOCK_RAW, "a raw socket" },
		{ AF_INET, SOCK_STREAM, "a TCP socket" },
		{ AF_INET6, SOCK_STREAM, "a TCP socket" },
		{ AF_INET, SOCK_DGRAM, "a UDP socket" },
		{ AF_INET6, SOCK_DGRAM, "a UDP socket" },
		{ AF_NETLINK, 0, "a netlink socket" },
		{ AF_PACKET, 0, "a packet socket" },
		{ AF_VSOCK, 0, "a vsock socket" },
		{ AF_ALG, 0, "a crypto socket (AF_ALG)" },
		{ AF_BLUETOOTH, 0, "a bluetooth socket" },
		{ AF_CAN, 0, "a CAN socket" },
		{ AF_XDP, 0, "an XDP socket" },
		{ AF_TIPC, 0, "a TIPC socket" },
		{ AF_SMC, 0, "an SMC socket" },
		{ AF_RDS, 0, "an RDS socket" },
	};
	int domain = -1, type = -1;
	socklen_t len = sizeof domain;

	(void)getsockopt(of->dup, SOL_SOCKET, SO_DOMAIN, &domain, &len);
	len = sizeof type;
	(void)getsockopt(of->dup, SOL_SOCKET, SO_TYPE, &type, &len);
	for (unsigned i = 0; i < ARRAY_SIZE(sockets); i++)
		if (sockets[i].domain == domain && (!sockets[i].type || sockets[i].type == type))
			return refuse(of, err, "%s is not supported", sockets[i].name);
	return refuse(of, err, "a socket of family %d is not supported", domain);
}

static int refuse_device(const struct open_file *of, struct err *err)
{
	const struct known *k = find(devices, ARRAY_SIZE(devices), of->link);

	if (k)
		return refuse_known(of, k, err);
	return refuse(of, err, "%s device '%s' (%u:%u) is not supported",
		      S_ISBLK(of->st.st_mode) ? "block" : "character", of->link,
		      major(of->st.st_rdev), minor(of->st.st_rdev));
}

static bool match(const struct capture *c, const struct open_file *of)
{
	(void)c;
	(void)of;
	return true;
}

static int capture(struct capture *c, const struct open_file *of, struct file *f, struct err *err)
{
	const struct known *k = find(anon_files, ARRAY_SIZE(anon_files), of->link);

	(void)c;
	(void)f;
	if (S_ISSOCK(of->st.st_mode))
		return refuse_socket(of, err);
	if (S_ISCHR(of->st.st_mode) || S_ISBLK(of->st.st_mode))
		return refuse_device(of, err);
	if (k)
		return refuse_known(of, k, err);
	for (unsigned i = 0; i < ARRAY_SIZE(filesystems); i++)
		if (of->fs_magic == filesystems[i].magic)
			return refuse(of, err, "%s is not supported", filesystems[i].name);
	if (!strncmp(of->link, "(unreachable)", 13))
		return refuse(of, err, "'%s' cannot be reached from here", of->link);
	return refuse(of, err, "'%s' is not supported", of->link);
}

const struct file_ops unsupported_ops = { .match = match, .capture = capture };
