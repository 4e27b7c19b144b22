/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of what cannot be restored. */
#include "proc/refusals.h"

#include "util/cleanup.h"

#include <string.h>

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
	{ "anon_inode:", "a kernel object (perf, KVM, ...)", NULL },
	{ "/[aio]", "a Linux AIO context",
	  "many programs can do without: MariaDB with innodb_use_native_aio=0, QEMU with "
	  "aio=threads" },
	{ "/secretmem", "secret memory (memfd_secret)", NULL },
	{ "[uprobes]", "a uprobe", NULL },
	{ "/dev/infiniband", "an InfiniBand device", NULL },
};

const char refusal_hint_hugetlb[] =
	"start the program without huge pages of its own (PostgreSQL: huge_pages=off; Java: "
	"-XX:+UseTransparentHugePages instead of -XX:+UseLargePages)";

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
