/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is to be told of a message queue's next message: what reading the queue's file shows,
 * mq_overview(7): "QSIZE:0 NOTIFY:0 SIGNO:0 NOTIFY_PID:0". */
#include "proc/proc.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int number_of(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? (int)strtol(at + strlen(name), NULL, 10) : 0;
}

bool proc_mq_told(int fd, struct mq_told *ret)
{
	char text[128];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	*ret = (struct mq_told){ .pid = number_of(text, " NOTIFY_PID:"),
				 .how = number_of(text, " NOTIFY:"),
				 .signo = number_of(text, " SIGNO:") };
	return ret->pid > 0;
}
