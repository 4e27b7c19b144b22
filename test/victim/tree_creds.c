/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Credentials that differ within a tree. With privilege: 1 has dropped to a user with ambient
 * capabilities, securebits, three groups, a smaller bounding set, in a chroot, with a thread that
 * has them too; 2 has eight different ids and no group; 3 is uid 0 without any capability, and may
 * gain none; 4 has inheritable capabilities and may switch between two users; 1 is not dumpable any
 * more. Without: what anybody may do.
 */
#include "family.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

struct who {
	uid_t uid[4];
	gid_t gid[4];
	gid_t groups[64];
	int n_groups, securebits, nnp, dumpable;
	struct __user_cap_data_struct caps[2];
	uint64_t bounding, ambient, root, root_dev, cwd;
};

static struct who had;
static bool mighty, may_trace, user_ns;
static struct who *of_thread; /* shared by member 1 and its thread */
static volatile int asked, answered;

static struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };

static void look(struct who *w)
{
	struct stat st;

	memset(w, 0, sizeof *w);
	check_sys(getresuid(&w->uid[0], &w->uid[1], &w->uid[2]) == 0);
	check_sys(getresgid(&w->gid[0], &w->gid[1], &w->gid[2]) == 0);
	w->uid[3] = (uid_t)setfsuid((uid_t)-1);
	w->gid[3] = (gid_t)setfsgid((gid_t)-1);
	w->n_groups = getgroups(64, w->groups);
	w->securebits = prctl(PR_GET_SECUREBITS);
	w->nnp = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	w->dumpable = prctl(PR_GET_DUMPABLE);
	check_sys(syscall(SYS_capget, &head, w->caps) == 0);
	for (int cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_READ, cap) == 1)
			w->bounding |= 1ull << cap;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
			w->ambient |= 1ull << cap;
	}
	check_sys(stat("/", &st) == 0);
	w->root = st.st_ino;
	w->root_dev = st.st_dev;
	check_sys(stat(".", &st) == 0);
	w->cwd = st.st_ino;
}

/* In a user namespace of its own it has capabilities and groups that mean nothing outside. */
static void compare(int n, const struct who *now)
{
	for (int i = 0; i < 4; i++) {
		check(now->uid[i] == had.uid[i], "member %d: uid %d is %u", n, i, now->uid[i]);
		check(now->gid[i] == had.gid[i], "member %d: gid %d is %u", n, i, now->gid[i]);
	}
	check(now->nnp == had.nnp, "member %d: no_new_privs", n);
	check(now->dumpable == had.dumpable, "member %d: dumpable %d", n, now->dumpable);
	check(now->root == had.root && now->root_dev == had.root_dev, "member %d: its root", n);
	check(now->cwd == had.cwd, "member %d: its directory", n);
	if (user_ns)
		return;
	check(now->n_groups == had.n_groups && !memcmp(now->groups, had.groups, sizeof had.groups),
	      "member %d: %d groups", n, now->n_groups);
	check(now->securebits == had.securebits, "member %d: securebits %#x", n, now->securebits);
	check(!memcmp(now->caps, had.caps, sizeof had.caps), "member %d: capabilities", n);
	check(now->bounding == had.bounding, "member %d: bounding set %#llx", n,
	      (unsigned long long)now->bounding);
	check(now->ambient == had.ambient, "member %d: ambient set %#llx", n,
	      (unsigned long long)now->ambient);
}

static void check_creds(int n)
{
	struct who now;

	look(&now);
	compare(n, &now);
	if (!of_thread)
		return;
	answered = 0;
	asked = 1;
	while (!answered)
		sleep_ms(1);
	compare(n, of_thread);
}

static void *run_thread(void *arg)
{
	static struct who w;

	of_thread = &w;
	for (;; sleep_ms(1))
		if (asked) {
			look(&w);
			asked = 0;
			answered = 1;
		}
	return arg;
}

static void set_caps(uint32_t eff, uint32_t prm, uint32_t inh)
{
	const struct __user_cap_data_struct data[2] = {
		{ .effective = eff, .permitted = prm, .inheritable = inh }
	};

	check_sys(syscall(SYS_capset, &head, data) == 0);
}

static void be_user(void)
{
	const uint32_t bind = 1u << CAP_NET_BIND_SERVICE, kill_ = 1u << CAP_KILL;
	const gid_t groups[] = { 3000, 1003, 27 };

	check_sys(mkdir(victim_path("root"), 0755) == 0 || errno == EEXIST);
	check_sys(chroot(victim_path("root")) == 0 && chdir("/") == 0);
	check_sys(setgroups(3, groups) == 0 && setresgid(1001, 1001, 1001) == 0);
	check_sys(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME) == 0);
	check_sys(prctl(PR_CAPBSET_DROP, CAP_MKNOD) == 0);
	check_sys(prctl(PR_SET_SECUREBITS,
			SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT | SECBIT_NOROOT_LOCKED) == 0);
	check_sys(setresuid(1000, 1000, 1000) == 0);
	set_caps(bind, bind | kill_, bind | kill_);
	check_sys(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0);
	(void)thread_start(run_thread, NULL);
	while (!of_thread)
		sleep_ms(1);
}

static void be_many(void)
{
	check_sys(setgroups(0, NULL) == 0);
	check_sys(setresgid(2001, 2002, 2003) == 0 && setfsgid(2004) == 2002);
	check_sys(setresuid(2001, 0, 2003) == 0);
	(void)setfsuid(2004);
	check((uid_t)setfsuid((uid_t)-1) == 2004, "fsuid");
}

static void become(int n)
{
	if (n == 1 && mighty)
		be_user();
	if (n == 2 && mighty)
		be_many();
	if (n == 3) {
		if (mighty)
			set_caps(0, 0, 0);
		check_sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	}
	if (n == 4 && mighty) {
		set_caps(had.caps[0].effective & ~(1u << CAP_SYS_ADMIN), had.caps[0].permitted,
			 1u << CAP_CHOWN);
		check_sys(setresuid(1000, 1000, 0) == 0);
	}
	/* What changes credentials makes a process one that is not dumpable. Only the mighty can
	 * have that captured. */
	if (n % 2 == 0 || !may_trace)
		check_sys(prctl(PR_SET_DUMPABLE, 1) == 0);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	family_init();
	mighty = geteuid() == 0;
	user_ns = access(victim_path("userns"), F_OK) == 0;
	look(&had);
	may_trace = had.caps[0].effective & 1u << CAP_SYS_PTRACE;
	family_note(0, -1);
	family[0].also = check_creds;
	for (int n = 1; n <= 4; n++)
		if (family_fork(n) == 0) {
			become(n);
			look(&had);
			family[n].also = check_creds;
			family_note(n, 0);
			family_serve(n);
		}
	family_wait(5);
	victim_ready();
	while (victim_wait()) {
		check_creds(0);
		family_ask(5);
		victim_ok();
	}
	for (int n = 1; n <= 4; n++)
		(void)kill(family[n].pid, SIGKILL);
	return 0;
}
