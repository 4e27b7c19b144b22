/* SPDX-License-Identifier: BSD-2-Clause */
/* /proc/PID/stat (proc_pid_stat(5)): fields by number, behind a name that may hold anything. */
#include "proc/proc.h"

#include "proc/text.h"
#include "util/cleanup.h"

#include <signal.h>

/* Numbers as in proc_pid_stat(5). */
enum field_number {
	FIRST = 4,
	PPID = 4,
	PGRP = 5,
	SESSION = 6,
	TTY_NR = 7,
	TPGID = 8,
	NICE = 19,
	STARTTIME = 22,
	STARTCODE = 26,
	ENDCODE = 27,
	STARTSTACK = 28,
	EXIT_SIGNAL = 38,
	RT_PRIORITY = 40,
	POLICY = 41,
	START_DATA = 45,
	END_DATA = 46,
	START_BRK = 47,
	ARG_START = 48,
	ARG_END = 49,
	ENV_START = 50,
	ENV_END = 51,
	EXIT_CODE = 52,
	COUNT = 53,
};

static int bad(struct err *err)
{
	return err_set(err, -EBADMSG, "cannot read '/proc/PID/stat': not in the expected form");
}

int proc_stat_parse(const char *text, struct proc_stat *ret, struct err *err)
{
	const char *p = strrchr(text, ')'); /* a name may hold ") R 1": the last one ends it */
	uint64_t v[COUNT] = { 0 };
	char state;

	if (!p || p[1] != ' ' || !p[2] || p[3] != ' ')
		return bad(err);
	state = p[2];
	p += 3;
	for (unsigned i = FIRST; i < COUNT; i++) {
		int64_t negative;

		p = text_blanks(p);
		if (*p == '-') {
			p = text_i64(p, &negative);
			v[i] = (uint64_t)negative;
		} else {
			p = text_u64(p, 10, &v[i]);
		}
		if (!p)
			return bad(err);
	}
	*ret = (struct proc_stat){
		.state = state,
		.ppid = (int32_t)v[PPID],
		.pgrp = (int32_t)v[PGRP],
		.session = (int32_t)v[SESSION],
		.tty_nr = (int32_t)v[TTY_NR],
		.tpgid = (int32_t)v[TPGID],
		.nice = (int32_t)v[NICE],
		.exit_signal = (int32_t)v[EXIT_SIGNAL],
		.start_time = v[STARTTIME],
		.rt_priority = (uint32_t)v[RT_PRIORITY],
		.policy = (uint32_t)v[POLICY],
		.start_code = v[STARTCODE],
		.end_code = v[ENDCODE],
		.start_stack = v[STARTSTACK],
		.start_data = v[START_DATA],
		.end_data = v[END_DATA],
		.start_brk = v[START_BRK],
		.arg_start = v[ARG_START],
		.arg_end = v[ARG_END],
		.env_start = v[ENV_START],
		.env_end = v[ENV_END],
		.exit_code = (int32_t)v[EXIT_CODE],
	};
	return 0;
}

static int read_stat(int dirfd, const char *name, struct proc_stat *ret, struct err *err)
{
	CLEANUP_FREE char *text = NULL;
	int rc = text_read(dirfd, name, &text, NULL, err);

	return rc < 0 ? rc : proc_stat_parse(text, ret, err);
}

int proc_stat_read(int dirfd, struct proc_stat *ret, struct err *err)
{
	return read_stat(dirfd, "stat", ret, err);
}

int proc_stat_of(int all, pid_t pid, struct proc_stat *ret, struct err *err)
{
	char name[32];

	(void)snprintf(name, sizeof name, "%d/stat", pid);
	return read_stat(all, name, ret, err);
}
