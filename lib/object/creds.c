/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Credentials (credentials(7), capabilities(7)): ids, groups, capability sets, securebits,
 * no_new_privs. They belong to each thread, so every thread gives up its own. Whoever restarts
 * without privilege either has the recorded ids already or is told so before anything is created;
 * what remains to be done then is to drop the capabilities that the new user namespace gave.
 */
#include "object/attrs.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define CAP_BIT(cap) (1ULL << (cap))

static void own_caps(uint64_t *ret_eff, uint64_t *ret_prm)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	(void)syscall(SYS_capget, &head, data);
	*ret_eff = data[0].effective | (uint64_t)data[1].effective << 32;
	*ret_prm = data[0].permitted | (uint64_t)data[1].permitted << 32;
}

uint64_t creds_own_effective(void)
{
	uint64_t eff, prm;

	own_caps(&eff, &prm);
	return eff;
}

/* --- capture -------------------------------------------------------------------------------- */

void creds_look(const struct proc_status *st, struct credentials *c)
{
	uint32_t securebits = c->securebits;

	*c = (struct credentials){
		.ruid = st->uid[0],
		.euid = st->uid[1],
		.suid = st->uid[2],
		.fsuid = st->uid[3],
		.rgid = st->gid[0],
		.egid = st->gid[1],
		.sgid = st->gid[2],
		.fsgid = st->gid[3],
		.groups = st->groups,
		.n_groups = st->n_groups,
		.cap_inh = st->cap_inh,
		.cap_prm = st->cap_prm,
		.cap_eff = st->cap_eff,
		.cap_bnd = st->cap_bnd,
		.cap_amb = st->cap_amb,
		.securebits = securebits,
		.no_new_privs = st->no_new_privs,
	};
}

static bool same_ids(const struct credentials *c, const struct proc_status *st)
{
	return c->ruid == st->uid[0] && c->euid == st->uid[1] && c->suid == st->uid[2] &&
	       c->fsuid == st->uid[3] && c->rgid == st->gid[0] && c->egid == st->gid[1] &&
	       c->sgid == st->gid[2] && c->fsgid == st->gid[3];
}

/* The kernel keeps groups sorted; /proc shows them so. */
static bool same_groups(const struct credentials *c, const struct proc_status *st)
{
	return c->n_groups == st->n_groups &&
	       (!c->n_groups || !memcmp(c->groups, st->groups, c->n_groups * sizeof *c->groups));
}

static bool same_caps(const struct credentials *c, const struct proc_status *st)
{
	uint64_t known = proc_known_caps();

	return !(known & ((c->cap_inh ^ st->cap_inh) | (c->cap_prm ^ st->cap_prm) |
			  (c->cap_eff ^ st->cap_eff) | (c->cap_amb ^ st->cap_amb)));
}

void creds_ask(struct batch *b, struct creds_query *q)
{
	q->securebits_call =
		batch_call(b, "read the securebits", SYS_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0);
}

void creds_take(const struct batch *b, const struct creds_query *q, struct credentials *c)
{
	c->securebits = (uint32_t)batch_ret(b, q->securebits_call);
}

/* --- check ---------------------------------------------------------------------------------- */

static int check_ids(const struct process *p, struct err *err)
{
	const struct credentials *c = &p->creds;
	const uint32_t want_u[] = { c->ruid, c->euid, c->suid, c->fsuid };
	const uint32_t want_g[] = { c->rgid, c->egid, c->sgid, c->fsgid };
	uid_t u[4];
	gid_t g[4];

	(void)getresuid(&u[0], &u[1], &u[2]);
	(void)getresgid(&g[0], &g[1], &g[2]);
	u[3] = u[1];
	g[3] = g[1];
	for (int i = 0; i < 4; i++) {
		if (want_u[i] == u[i] && want_g[i] == g[i])
			continue;
		if (want_u[i] != u[i])
			(void)err_set(err, -EPERM, "pid %d: cannot become uid %u from uid %u",
				      p->pid, want_u[i], u[i]);
		else
			(void)err_set(err, -EPERM, "pid %d: cannot become gid %u from gid %u",
				      p->pid, want_g[i], g[i]);
		(void)err_hint(err, "run ckpt-restart as root, or as the user that ran the job");
		return -EPERM;
	}
	return 0;
}

/* Groups that the job had and we have not cannot be had; what we have beyond them cannot be dropped
 * and is ours anyhow. */
static int check_groups(const struct process *p, struct err *err)
{
	CLEANUP_FREE gid_t *own = NULL;
	int n = getgroups(0, NULL);

	own = calloc((size_t)MAX(n, 0) + 1, sizeof *own);
	if (!own)
		return err_nomem(err);
	n = getgroups(n, own);
	for (unsigned i = 0; i < p->creds.n_groups; i++) {
		bool found = p->creds.groups[i].id == getegid();

		for (int k = 0; k < n && !found; k++)
			found = own[k] == p->creds.groups[i].id;
		if (found)
			continue;
		(void)err_set(err, -EPERM, "pid %d: cannot take on the group %u", p->pid,
			      p->creds.groups[i].id);
		(void)err_hint(err, "run ckpt-restart as root, or as a user who is in that group");
		return -EPERM;
	}
	return 0;
}

int creds_check(const struct process *p, struct err *err)
{
	uint64_t eff, prm, lacking;
	int rc = 0;

	own_caps(&eff, &prm);
	if (!(eff & CAP_BIT(CAP_SETUID)) || !(eff & CAP_BIT(CAP_SETGID))) {
		rc = check_ids(p, err);
		if (rc == 0)
			rc = check_groups(p, err);
	}
	lacking = (p->creds.cap_prm | p->creds.cap_eff) & proc_known_caps() & ~prm;
	if (rc == 0 && lacking) {
		(void)err_set(err, -EPERM, "pid %d: cannot give it the capabilities %#llx", p->pid,
			      (unsigned long long)lacking);
		(void)err_hint(err, "run ckpt-restart with the privileges that the job had");
		rc = -EPERM;
	}
	return rc;
}

/* --- restore -------------------------------------------------------------------------------- */

static void capset_call(struct batch *b, uint64_t eff, uint64_t prm, uint64_t inh)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)eff,
		  .permitted = (uint32_t)prm,
		  .inheritable = (uint32_t)inh },
		{ .effective = (uint32_t)(eff >> 32),
		  .permitted = (uint32_t)(prm >> 32),
		  .inheritable = (uint32_t)(inh >> 32) },
	};

	batch_call(b, NULL, SYS_capset, batch_in(b, &head, sizeof head),
		   batch_in(b, data, sizeof data));
}

/* Raw calls: each changes the one thread that issues it. */
static void ids_calls(struct batch *b, const struct credentials *c, const struct proc_status *now)
{
	if (!same_groups(c, now))
		batch_call(b, NULL, SYS_setgroups, c->n_groups,
			   batch_in(b, c->groups, c->n_groups * sizeof *c->groups));
	if (same_ids(c, now))
		return;
	batch_call(b, NULL, SYS_setresgid, c->rgid, c->egid, c->sgid);
	batch_call(b, NULL, SYS_setresuid, c->ruid, c->euid, c->suid);
	batch_call(b, NULL, SYS_setfsgid, c->fsgid);
	batch_call(b, NULL, SYS_setfsuid, c->fsuid);
}

static void caps_calls(struct batch *b, const struct credentials *c, const struct proc_status *now)
{
	uint64_t known = proc_known_caps();
	uint64_t prm = now->cap_prm & known;

	for (int cap = 0; cap < 64; cap++)
		if (now->cap_bnd & ~c->cap_bnd & known & CAP_BIT(cap))
			batch_call(b, NULL, SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
	/* All that is permitted stays effective until the securebits are set; ambient needs
	 * inheritable. */
	if (!same_caps(c, now)) {
		capset_call(b, prm, prm, c->cap_inh & known);
		batch_call(b, NULL, SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
		for (int cap = 0; cap < 64; cap++)
			if (c->cap_amb & known & CAP_BIT(cap))
				batch_call(b, NULL, SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE,
					   cap, 0, 0);
	}
	batch_call(b, NULL, SYS_prctl, PR_SET_SECUREBITS, c->securebits, 0, 0, 0);
	if (!same_caps(c, now) || !same_ids(c, now))
		capset_call(b, c->cap_eff & known, c->cap_prm & known, c->cap_inh & known);
}

static int read_now(pid_t tid, struct arena *a, struct proc_status *ret, struct err *err)
{
	CLEANUP_FD int dirfd = -1;
	int rc = proc_open_pid(tid, &dirfd, err);

	return rc < 0 ? rc : proc_status_read(dirfd, a, ret, err);
}

/* In a user namespace made without privilege the groups are what they were: see check_groups. */
static bool groups_fixed(pid_t tid)
{
	CLEANUP_FREE char *text = NULL;
	char path[48];

	if (!(creds_own_effective() & CAP_BIT(CAP_SETGID)))
		return true;
	(void)snprintf(path, sizeof path, "/proc/%d/setgroups", tid);
	return io_read_file(-1, path, &text, NULL) == 0 && !strncmp(text, "deny", 4);
}

static int verify(const struct process *p, pid_t tid, struct arena *a, struct err *err)
{
	const struct credentials *c = &p->creds;
	struct proc_status now;
	int rc;

	rc = read_now(tid, a, &now, err);
	if (rc < 0)
		return rc;
	if (!same_ids(c, &now))
		return err_set(err, -EPERM,
			       "pid %d: cannot become uid %u, gid %u (is uid %u, gid %u)", p->pid,
			       c->euid, c->egid, now.uid[1], now.gid[1]);
	if (!groups_fixed(tid) && !same_groups(c, &now))
		return err_set(err, -EPERM, "pid %d: cannot take on its supplementary groups",
			       p->pid);
	if (!same_caps(c, &now))
		return err_set(err, -EPERM,
			       "pid %d: cannot set its capabilities to %#llx (they are %#llx)",
			       p->pid, (unsigned long long)c->cap_prm,
			       (unsigned long long)now.cap_prm);
	return 0;
}

static void change_calls(const struct process *p, const struct proc_status *now, struct batch *b,
			 struct creds_change *ret)
{
	const struct credentials *c = &p->creds;

	/* Without this, leaving uid 0 would cost the capabilities that the calls after it need. */
	if (!same_ids(c, now))
		batch_call(b, NULL, SYS_prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
	ids_calls(b, c, now);
	caps_calls(b, c, now);
	ret->any = true;
	ret->securebits_call =
		batch_call(b, "read the securebits", SYS_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0);
}

int creds_put(const struct process *p, struct batch *b, pid_t tid, struct creds_change *ret,
	      struct err *err)
{
	struct arena *a = arena_new();
	struct proc_status now;
	uint32_t own_securebits = (uint32_t)prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);
	int rc;

	*ret = (struct creds_change){ 0 };
	if (!a)
		return err_nomem(err);
	rc = read_now(tid, a, &now, err);
	if (rc == 0 && (!same_ids(&p->creds, &now) || !same_groups(&p->creds, &now) ||
			!same_caps(&p->creds, &now) || (now.cap_bnd & ~p->creds.cap_bnd) ||
			p->creds.securebits || own_securebits))
		change_calls(p, &now, b, ret);
	arena_free(a);
	return rc;
}

int creds_verify(const struct process *p, const struct batch *b, pid_t tid,
		 const struct creds_change *change, struct err *err)
{
	struct arena *a;
	int rc;

	if (!change->any)
		return 0;
	if (batch_ret(b, change->securebits_call) != p->creds.securebits)
		return err_set(err, -EPERM, "pid %d: cannot set its securebits to %#x", p->pid,
			       p->creds.securebits);
	a = arena_new();
	if (!a)
		return err_nomem(err);
	rc = verify(p, tid, a, err);
	arena_free(a);
	return rc;
}
