/* SPDX-License-Identifier: BSD-2-Clause */
/* /proc/PID/status (proc_pid_status(5)): a table of labels, how to read each, where to put it. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>

enum value {
	VALUE_I32,
	VALUE_U32,
	VALUE_OCT32,
	VALUE_HEX64,
	VALUE_IDS,       /* four of them */
	VALUE_INNERMOST, /* one number a pid namespace, outermost first: the last counts */
};

static const struct label {
	const char *name;
	enum value value;
	size_t offset;
} labels[] = {
#define LABEL(name, value, member)                                                                 \
	{                                                                                          \
		name, value, offsetof(struct proc_status, member)                                  \
	}
	LABEL("Umask:", VALUE_OCT32, umask),
	LABEL("Tgid:", VALUE_I32, tgid),
	LABEL("Pid:", VALUE_I32, pid),
	LABEL("PPid:", VALUE_I32, ppid),
	LABEL("TracerPid:", VALUE_I32, tracer),
	LABEL("Uid:", VALUE_IDS, uid),
	LABEL("Gid:", VALUE_IDS, gid),
	LABEL("NStgid:", VALUE_INNERMOST, ns_tgid),
	LABEL("NSpid:", VALUE_INNERMOST, ns_pid),
	LABEL("NSpgid:", VALUE_INNERMOST, ns_pgid),
	LABEL("NSsid:", VALUE_INNERMOST, ns_sid),
	LABEL("VmLck:", VALUE_U32, locked_kib),
	LABEL("THP_enabled:", VALUE_U32, thp_enabled),
	LABEL("Threads:", VALUE_U32, threads),
	LABEL("SigPnd:", VALUE_HEX64, sig_pending),
	LABEL("ShdPnd:", VALUE_HEX64, shared_pending),
	LABEL("SigBlk:", VALUE_HEX64, sig_blocked),
	LABEL("SigIgn:", VALUE_HEX64, sig_ignored),
	LABEL("SigCgt:", VALUE_HEX64, sig_caught),
	LABEL("CapInh:", VALUE_HEX64, cap_inh),
	LABEL("CapPrm:", VALUE_HEX64, cap_prm),
	LABEL("CapEff:", VALUE_HEX64, cap_eff),
	LABEL("CapBnd:", VALUE_HEX64, cap_bnd),
	LABEL("CapAmb:", VALUE_HEX64, cap_amb),
	LABEL("NoNewPrivs:", VALUE_U32, no_new_privs),
	LABEL("Seccomp:", VALUE_U32, seccomp),
	LABEL("Seccomp_filters:", VALUE_U32, seccomp_filters),
#undef LABEL
};

static bool read_u32(const char *p, unsigned base, uint32_t *to, const char **ret_end)
{
	uint64_t v;

	p = text_u64(p, base, &v);
	if (!p || v > UINT32_MAX)
		return false;
	*to = (uint32_t)v;
	*ret_end = p;
	return true;
}

static bool read_i32(const char *p, int32_t *to, const char **ret_end)
{
	int64_t v;

	p = text_i64(p, &v);
	if (!p || v < INT32_MIN || v > INT32_MAX)
		return false;
	*to = (int32_t)v;
	*ret_end = p;
	return true;
}

static bool read_innermost(const char *p, int32_t *to, unsigned *ret_count)
{
	unsigned count = 0;

	do {
		if (!read_i32(p, to, &p))
			return false;
		count++;
		p = text_blanks(p);
	} while (*p);
	*ret_count = count;
	return true;
}

static bool read_value(const struct label *label, const char *p, struct proc_status *s)
{
	void *to = (char *)s + label->offset;
	uint32_t *ids = to;
	unsigned depth;

	switch (label->value) {
	case VALUE_I32:
		return read_i32(p, to, &p);
	case VALUE_U32:
		return read_u32(p, 10, to, &p);
	case VALUE_OCT32:
		return read_u32(p, 8, to, &p);
	case VALUE_HEX64:
		return text_u64(p, 16, to);
	case VALUE_IDS:
		for (unsigned i = 0; i < 4; i++)
			if (!read_u32(text_blanks(p), 10, &ids[i], &p))
				return false;
		return true;
	case VALUE_INNERMOST:
		if (!read_innermost(p, to, &depth))
			return false;
		s->ns_depth = depth;
		return true;
	}
	return false;
}

static int read_groups(const char *p, struct arena *a, struct proc_status *s, struct err *err)
{
	uint32_t id;

	while (*(p = text_blanks(p))) {
		struct cred_id *slot;

		if (!read_u32(p, 10, &id, &p))
			return err_set(err, -EBADMSG,
				       "cannot read '/proc/PID/status': bad line 'Groups:'");
		slot = arena_push(a, &s->groups, &s->n_groups, sizeof *slot);
		if (!slot)
			return err_nomem(err);
		slot->id = id;
	}
	return 0;
}

/* In a task's name the kernel writes a newline as \n and a backslash as \\. */
static void unescape_name(char *name)
{
	char *out = name;

	for (char *in = name; *in; in++) {
		if (in[0] == '\\' && (in[1] == 'n' || in[1] == '\\')) {
			in++;
			*out++ = *in == 'n' ? '\n' : '\\';
		} else {
			*out++ = *in;
		}
	}
	*out = '\0';
}

static int read_line(char *line, struct arena *a, struct proc_status *s, struct err *err)
{
	char *p;

	if (!strncmp(line, "Name:\t", 6)) { /* the name itself may begin with blanks */
		unescape_name(line + 6);
		s->name = arena_strdup(a, line + 6);
		return s->name ? 0 : err_nomem(err);
	}
	if ((p = text_after(line, "State:")))
		s->state = *p;
	else if ((p = text_after(line, "Groups:")))
		return read_groups(p, a, s, err);
	else if (text_after(line, "VmSize:"))
		s->has_vm = true;
	else if ((p = text_after(line, "x86_Thread_features:")))
		s->shadow_stack = strstr(p, "shstk") != NULL;
	for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
		if (line[0] != labels[i].name[0] || line[1] != labels[i].name[1] ||
		    line[2] != labels[i].name[2])
			continue; /* most lines are for nobody: strncmp for each costs more than
				     reading the file */
		p = text_after(line, labels[i].name);
		if (p && !read_value(&labels[i], p, s))
			return err_set(err, -EBADMSG,
				       "cannot read '/proc/PID/status': bad line '%s'",
				       labels[i].name);
	}
	return 0;
}

int proc_status_parse(char *text, struct arena *a, struct proc_status *ret, struct err *err)
{
	struct proc_status s = { .thp_enabled = 1 };
	char *line;
	int rc;

	while ((line = text_line(&text))) {
		rc = read_line(line, a, &s, err);
		if (rc < 0)
			return rc;
	}
	if (!s.state || s.tgid <= 0 || s.pid <= 0 || !s.name)
		return err_set(err, -EBADMSG, "cannot read '/proc/PID/status': a line is missing");
	if (!s.ns_depth) { /* a kernel without pid namespaces */
		s.ns_tgid = s.tgid;
		s.ns_pid = s.pid;
	}
	*ret = s;
	return 0;
}

static int read_status(int dirfd, const char *name, struct arena *a, struct proc_status *ret,
		       struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	struct proc_stat stat;
	int rc;

	rc = io_read_records(dirfd, name, &text, NULL);
	if (rc < 0)
		return text_fail(dirfd, name, rc, err);
	rc = proc_status_parse(text, a, ret, err);
	if (rc < 0 || ret->ns_depth)
		return rc;
	rc = proc_stat_read(dirfd, &stat, err);
	if (rc < 0)
		return rc;
	ret->ns_depth = 1;
	ret->ns_pgid = stat.pgrp;
	ret->ns_sid = stat.session;
	return 0;
}

int proc_status_read(int dirfd, struct arena *a, struct proc_status *ret, struct err *err)
{
	return read_status(dirfd, "status", a, ret, err);
}

int proc_thread_status_read(int dirfd, pid_t tid, struct arena *a, struct proc_status *ret,
			    struct err *err)
{
	char name[32];

	(void)snprintf(name, sizeof name, "task/%d/status", tid);
	return read_status(dirfd, name, a, ret, err);
}

/* --- credentials ------------------------------------------------------------------------------ */

uint64_t proc_known_caps(void)
{
	static uint64_t known;
	int64_t last = CAP_LAST_CAP;
	CLEANUP_FREE char *text = NULL;

	if (known)
		return known;
	if (io_read_file(-1, "/proc/sys/kernel/cap_last_cap", &text, NULL) == 0)
		last = strtol(text, NULL, 10);
	if (last < 0 || last > 63)
		last = CAP_LAST_CAP;
	known = last == 63 ? ~0ULL : (1ULL << (last + 1)) - 1;
	return known;
}

bool proc_same_creds(const struct proc_status *a, const struct proc_status *b)
{
	uint64_t known = proc_known_caps();

	/* the kernel keeps groups sorted; /proc shows them so */
	return !memcmp(a->uid, b->uid, sizeof a->uid) && !memcmp(a->gid, b->gid, sizeof a->gid) &&
	       a->n_groups == b->n_groups &&
	       (!a->n_groups || !memcmp(a->groups, b->groups, a->n_groups * sizeof *a->groups)) &&
	       !(known & ((a->cap_inh ^ b->cap_inh) | (a->cap_prm ^ b->cap_prm) |
			  (a->cap_eff ^ b->cap_eff) | (a->cap_amb ^ b->cap_amb))) &&
	       a->cap_bnd == b->cap_bnd && a->no_new_privs == b->no_new_privs;
}
