/* SPDX-License-Identifier: BSD-2-Clause */
/* Credentials: captured as they are, given back exactly, and refused up front where they cannot be
 * had. */
#include "harness.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BIT(cap) (1ULL << (cap))

static void nothing(void *arg)
{
	(void)arg;
}

static void capset_both(uint64_t prm, uint64_t inh)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)prm,
		  .permitted = (uint32_t)prm,
		  .inheritable = (uint32_t)inh },
		{ .effective = (uint32_t)(prm >> 32), .permitted = (uint32_t)(prm >> 32) },
	};

	CHECK(syscall(SYS_capset, &head, data) == 0);
}

/* An ordinary user. */
static void user(void *arg)
{
	const gid_t groups[] = { 5, 7 };

	(void)arg;
	CHECK(setgroups(2, groups) == 0);
	CHECK(setresgid(100, 100, 100) == 0);
	CHECK(setresuid(1000, 1000, 1000) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	target_thread(nothing, NULL);
}

/* A user with some capabilities, one of them ambient, and a smaller bounding set. */
static void user_with_caps(void *arg)
{
	(void)arg;
	CHECK(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) == 0);
	CHECK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_KEEP_CAPS, 0, 0, 0) == 0);
	CHECK(setresgid(100, 100, 100) == 0);
	CHECK(setresuid(1000, 1000, 1000) == 0);
	capset_both(BIT(CAP_NET_RAW) | BIT(CAP_CHOWN), BIT(CAP_NET_RAW));
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	target_thread(nothing, NULL);
}

/* In the middle of changing who it is. */
static void mixed(void *arg)
{
	(void)arg;
	CHECK(setresgid(300, 100, 200) == 0);
	CHECK(setresuid(3000, 1000, 0) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	target_thread(nothing, NULL);
}

static void root(void *arg)
{
	(void)arg;
	target_thread(nothing, NULL);
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	(void)close(fd);
}

/* What an unprivileged ckpt-restart makes: the same user, with every capability inside a namespace.
 */
static void user_in_namespace(void *arg)
{
	(void)arg;
	CHECK(setgroups(0, NULL) == 0);
	CHECK(setresgid(100, 100, 100) == 0);
	CHECK(setresuid(1000, 1000, 1000) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	CHECK(unshare(CLONE_NEWUSER) == 0);
	write_text("/proc/self/setgroups", "deny");
	write_text("/proc/self/gid_map", "100 100 1");
	write_text("/proc/self/uid_map", "1000 1000 1");
	target_thread(nothing, NULL);
}

static void user_without_groups(void *arg)
{
	(void)arg;
	CHECK(setgroups(0, NULL) == 0);
	CHECK(setresgid(100, 100, 100) == 0);
	CHECK(setresuid(1000, 1000, 1000) == 0);
	CHECK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	target_thread(nothing, NULL);
}

static void check_same(const struct credentials *a, const struct credentials *b)
{
	CHECK_INT(b->ruid, a->ruid);
	CHECK_INT(b->euid, a->euid);
	CHECK_INT(b->suid, a->suid);
	CHECK_INT(b->fsuid, a->fsuid);
	CHECK_INT(b->rgid, a->rgid);
	CHECK_INT(b->egid, a->egid);
	CHECK_INT(b->sgid, a->sgid);
	CHECK_INT(b->n_groups, a->n_groups);
	for (unsigned i = 0; i < a->n_groups; i++)
		CHECK_INT(b->groups[i].id, a->groups[i].id);
	CHECK_INT(b->cap_prm, a->cap_prm);
	CHECK_INT(b->cap_eff, a->cap_eff);
	CHECK_INT(b->cap_inh, a->cap_inh);
	CHECK_INT(b->cap_amb, a->cap_amb);
	CHECK_INT(b->cap_bnd, a->cap_bnd);
	CHECK_INT(b->securebits, a->securebits);
}

/* Both threads of the target must have become what was recorded: a capture refuses threads that
 * differ. */
static struct credentials round_trip(void (*from_setup)(void *), void (*to_setup)(void *))
{
	struct target from, to;
	struct err err = { 0 };
	struct credentials ret;

	target_start(&from, from_setup, NULL);
	CHECK_OK(target_capture(&from, &err));
	target_start(&to, to_setup, NULL);
	CHECK_OK(target_put(&to, &from.process, &err));
	CHECK_OK(target_capture(&to, &err));
	check_same(&from.process.creds, &to.process.creds);
	CHECK_INT(to.process.dumpable, 1);
	ret = to.process.creds;
	target_end(&from);
	target_end(&to);
	return ret;
}

static void test_as_root(void)
{
	struct credentials c;

	c = round_trip(user, root);
	CHECK_INT(c.euid, 1000);
	CHECK_INT(c.n_groups, 2);
	CHECK_INT(c.cap_prm, 0);
	c = round_trip(user_with_caps, root);
	CHECK_INT(c.cap_eff, BIT(CAP_NET_RAW) | BIT(CAP_CHOWN));
	CHECK_INT(c.cap_amb, BIT(CAP_NET_RAW));
	CHECK(!(c.cap_bnd & BIT(CAP_SYS_TIME)));
	CHECK_INT(c.securebits, SECBIT_NOROOT | SECBIT_KEEP_CAPS);
	c = round_trip(mixed, root);
	CHECK_INT(c.suid, 0);
	CHECK_INT(c.ruid, 3000);
	c = round_trip(root, root);
	CHECK(c.cap_prm != 0);
}

static void test_namespace(void)
{
	struct credentials c = round_trip(user_without_groups, user_in_namespace);

	CHECK_INT(c.cap_prm, 0);
	CHECK_INT(c.euid, 1000);
}

/* --- what is said before anything is created ------------------------------------------------ */

static void expect(const struct process *p, const char *msg, const char *hint)
{
	struct tree tree = { .processes = (struct process *)(uintptr_t)p, .n_processes = 1 };
	struct rebuild_opts opts = { 0 };
	struct rebuild rb = { .tree = &tree, .opts = &opts, .arena = arena_new() };
	struct err err = { 0 };
	int rc = attrs_check(&rb, &err);

	if (!msg)
		CHECK_OK(rc);
	else if (rc >= 0 || !strstr(err.msg, msg) || !strstr(err.hint, hint)) {
		fprintf(stderr, "%d: '%s' (%s), not '%s' (%s)\n", rc, err.msg, err.hint, msg, hint);
		exit(1);
	}
	arena_free(rb.arena);
}

static struct process own_process(char *cwd)
{
	struct process p = { .pid = 12, .cwd = cwd, .root = cwd ? cwd : NULL };
	struct credentials *c = &p.creds;

	p.root = NULL;
	(void)getresuid(&c->ruid, &c->euid, &c->suid);
	(void)getresgid(&c->rgid, &c->egid, &c->sgid);
	c->fsuid = c->euid;
	c->fsgid = c->egid;
	return p;
}

/* Runs in a child without privilege. */
static int checks(void)
{
	char here[] = "/tmp", missing[] = "/tmp/there/is/none", file[] = "/etc/passwd";
	struct process p = own_process(here);
	struct rlimit nofile = { 100, 100 };
	struct rlimit_state limit = { .resource = RLIMIT_NOFILE, .soft = 101, .hard = 4000 };
	struct cred_id group = { .id = 4321 };
	struct thread thread = { .tid = 12 };

	CHECK(setrlimit(RLIMIT_NOFILE, &nofile) == 0);
	expect(&p, NULL, NULL);
	p.creds.suid = 5;
	expect(&p, "pid 12: cannot become uid 5", "as root");
	p = own_process(here);
	p.creds.egid = 6;
	expect(&p, "pid 12: cannot become gid 6", "as root");
	p = own_process(here);
	p.creds.groups = &group;
	p.creds.n_groups = 1;
	expect(&p, "pid 12: cannot take on the group 4321", "in that group");
	p = own_process(here);
	p.creds.cap_prm = BIT(CAP_NET_RAW);
	expect(&p, "pid 12: cannot give it the capabilities 0x2000", "privileges");
	p = own_process(missing);
	expect(&p, "pid 12: cannot enter its working directory '/tmp/there/is/none'", "--map");
	p = own_process(file);
	expect(&p, "Not a directory", "--map");
	p = own_process(here);
	p.rlimits = &limit;
	p.n_rlimits = 1;
	expect(&p, "cannot raise RLIMIT_NOFILE to 101: the hard limit is 100", "ulimit");
	limit.soft = 100; /* the hard limit alone is not felt */
	expect(&p, NULL, NULL);
	p = own_process(here);
	p.threads = &thread;
	p.n_threads = 1;
	thread.nice = -3;
	expect(&p, "cannot give thread 12 the nice value -3", "without nice");
	thread.nice = getpriority(PRIO_PROCESS, 0);
	thread.sched_policy = SCHED_FIFO;
	thread.sched_priority = 99;
	expect(&p, "cannot give thread 12 its real-time scheduling", "RLIMIT_RTPRIO");
	p = own_process(here);
	p.xfeatures_asked = 1ULL << 62;
	expect(&p, "has asked for leave to use AMX", "");
	return 0;
}

static void test_checks(void)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		if (geteuid() == 0) {
			CHECK(setgroups(0, NULL) == 0);
			CHECK(setresgid(65534, 65534, 65534) == 0);
			CHECK(setresuid(65534, 65534, 65534) == 0);
		}
		_exit(checks());
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_INT(status, 0);
}

static bool namespaces_work(void)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		_exit(setresuid(1000, 1000, 1000) < 0 || unshare(CLONE_NEWUSER) < 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	return status == 0;
}

int main(void)
{
	test_checks();
	if (geteuid() != 0) {
		puts("not root: changes of credentials are not tested");
		return 0;
	}
	test_as_root();
	if (namespaces_work())
		test_namespace();
	else
		puts("no user namespaces: giving up their capabilities is not tested");
	return 0;
}
