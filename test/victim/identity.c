/* SPDX-License-Identifier: BSD-2-Clause */
/* Victim: who and where a process is; argv[2] "leader" or "session" makes it lead a group or a
 * session. */
#include "victim.h"

#include <sys/auxv.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#ifndef PR_SET_THP_DISABLE
#define PR_SET_THP_DISABLE 41
#define PR_GET_THP_DISABLE 42
#endif
#define ADDR_NO_RANDOMIZE_ 0x0040000

struct identity {
	pid_t pid, pgid, sid;
	uid_t uid[3];
	gid_t gid[3];
	char cwd[4096], root[64], exe[4096], cmdline[4096], environ[8192], comm[16], oom[16],
		coredump[16], auxv[1024];
	size_t cmdline_len, environ_len, auxv_len;
	mode_t mask;
	struct rlimit limits[RLIMIT_NLIMITS];
	int personality, nnp, dumpable, pdeathsig, subreaper, thp, keepcaps, nice, slack;
	char caps[5][32], groups[512];
};

static const char *const cap_names[5] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" };

static void read_link(const char *path, char *buf, size_t size)
{
	ssize_t n = readlink(path, buf, size - 1);

	check(n > 0, "readlink %s: %s", path, strerror(errno));
	buf[n] = '\0';
}

static void look(struct identity *id)
{
	memset(id, 0, sizeof *id);
	id->pid = getpid();
	id->pgid = getpgid(0);
	id->sid = getsid(0);
	check_sys(getresuid(&id->uid[0], &id->uid[1], &id->uid[2]) == 0);
	check_sys(getresgid(&id->gid[0], &id->gid[1], &id->gid[2]) == 0);
	check_sys(getcwd(id->cwd, sizeof id->cwd));
	read_link("/proc/self/root", id->root, sizeof id->root);
	read_link("/proc/self/exe", id->exe, sizeof id->exe);
	id->cmdline_len = read_small("/proc/self/cmdline", id->cmdline, sizeof id->cmdline);
	id->environ_len = read_small("/proc/self/environ", id->environ, sizeof id->environ);
	id->auxv_len = read_small("/proc/self/auxv", id->auxv, sizeof id->auxv);
	(void)read_small("/proc/self/oom_score_adj", id->oom, sizeof id->oom);
	(void)read_small("/proc/self/coredump_filter", id->coredump, sizeof id->coredump);
	check_sys(prctl(PR_GET_NAME, id->comm) == 0);
	id->mask = umask(0);
	(void)umask(id->mask);
	for (unsigned i = 0; i < RLIMIT_NLIMITS; i++)
		check_sys(getrlimit((__rlimit_resource_t)i, &id->limits[i]) == 0);
	id->personality = personality(0xffffffff);
	id->nnp = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	id->dumpable = prctl(PR_GET_DUMPABLE);
	check_sys(prctl(PR_GET_PDEATHSIG, &id->pdeathsig) == 0);
	check_sys(prctl(PR_GET_CHILD_SUBREAPER, &id->subreaper) == 0);
	id->thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	id->keepcaps = prctl(PR_GET_KEEPCAPS);
	id->nice = getpriority(PRIO_PROCESS, 0);
	id->slack = prctl(PR_GET_TIMERSLACK);
	for (unsigned i = 0; i < 5; i++)
		(void)status_field("/proc/self/status", cap_names[i], id->caps[i],
				   sizeof id->caps[i]);
	(void)status_field("/proc/self/status", "Groups", id->groups, sizeof id->groups);
}

#define SAME_INT(field)                                                                            \
	check(now->field == had->field, #field " is %ld, was %ld", (long)now->field,               \
	      (long)had->field)
#define SAME_STR(field)                                                                            \
	check(!strcmp(now->field, had->field), #field " is '%s', was '%s'", now->field, had->field)

static void compare(const struct identity *had, const struct identity *now, bool leads)
{
	if (!victim_newpids()) {
		SAME_INT(pid);
		if (leads)
			SAME_INT(pgid);
		if (leads && had->sid == had->pid)
			SAME_INT(sid);
	}
	check(!leads || now->pgid == now->pid, "it does not lead its group any more");
	check(had->sid != had->pid || now->sid == now->pid,
	      "it does not lead its session any more");
	for (unsigned i = 0; i < 3; i++) {
		SAME_INT(uid[i]);
		SAME_INT(gid[i]);
	}
	SAME_STR(cwd);
	SAME_STR(root);
	SAME_STR(exe);
	SAME_STR(comm);
	SAME_STR(oom);
	SAME_STR(coredump);
	SAME_INT(cmdline_len);
	check(!memcmp(now->cmdline, had->cmdline, had->cmdline_len), "cmdline");
	SAME_INT(environ_len);
	check(!memcmp(now->environ, had->environ, had->environ_len), "environ");
	SAME_INT(auxv_len);
	check(!memcmp(now->auxv, had->auxv, had->auxv_len), "auxv");
	SAME_INT(mask);
	for (unsigned i = 0; i < RLIMIT_NLIMITS; i++) {
		SAME_INT(limits[i].rlim_cur);
		SAME_INT(limits[i].rlim_max);
	}
	SAME_INT(personality);
	SAME_INT(nnp);
	SAME_INT(dumpable);
	SAME_INT(pdeathsig);
	SAME_INT(subreaper);
	SAME_INT(thp);
	SAME_INT(keepcaps);
	SAME_INT(nice);
	SAME_INT(slack);
	/* In a user namespace of its own its capabilities show otherwise, without any meaning
	 * outside. */
	if (access(victim_path("userns"), F_OK) != 0) {
		for (unsigned i = 0; i < 5; i++)
			SAME_STR(caps[i]);
		SAME_STR(groups);
	}
}

static void set_up(const char *how)
{
	struct rlimit lim;

	if (how && !strcmp(how, "leader"))
		check_sys(setpgid(0, 0) == 0);
	if (how && !strcmp(how, "session"))
		check_sys(setsid() == getpid());
	check_sys(mkdir(victim_path("cwd"), 0700) == 0 || errno == EEXIST);
	check_sys(chdir(victim_path("cwd")) == 0);
	(void)umask(0137);
	check_sys(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = 777;
	lim.rlim_max = lim.rlim_max < 888 ? lim.rlim_max : 888;
	check_sys(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = lim.rlim_max = 12345678;
	check_sys(setrlimit(RLIMIT_CORE, &lim) == 0 || errno == EPERM);
	check_sys(personality((unsigned)personality(0xffffffff) | ADDR_NO_RANDOMIZE_) >= 0);
	check_sys(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	check_sys(prctl(PR_SET_PDEATHSIG, SIGHUP) == 0);
	check_sys(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
	check_sys(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	check_sys(prctl(PR_SET_NAME, "an identity") == 0);
	check_sys(prctl(PR_SET_TIMERSLACK, 71234) == 0);
	check_sys(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + 3) == 0);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	check_sys(fd >= 0 && write(fd, "300", 3) == 3 && close(fd) == 0);
	fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
	check_sys(fd >= 0 && write(fd, "0x3f", 4) == 4 && close(fd) == 0);
}

int main(int argc, char **argv)
{
	static struct identity had, now;
	char path[4096], cwd[4096];

	/* The protocol's files must be found from the new directory too. */
	check_sys(getcwd(cwd, sizeof cwd));
	if (argc > 1 && argv[1][0] != '/') {
		(void)snprintf(path, sizeof path, "%.2000s/%.2000s", cwd, argv[1]);
		argv[1] = path;
	}
	victim_init(argc, argv);
	set_up(argc > 2 ? argv[2] : NULL);
	/* The parent death signal is for the death of ckpt-run, which must not be ours. */
	check_sys(signal(SIGHUP, SIG_IGN) != SIG_ERR);
	look(&had);
	victim_ready();
	while (victim_wait()) {
		look(&now);
		compare(&had, &now, argc > 2);
		check(getauxval(AT_PAGESZ) == PAGE, "auxval");
		victim_ok();
	}
	return 0;
}
