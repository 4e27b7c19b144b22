/* SPDX-License-Identifier: BSD-2-Clause */
/* What the user has decided about descriptors: ckpt-run --fd and --unsupported. */
#include "object/kinds.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

enum fd_action fd_rule(const struct settings *s, int fd)
{
	for (unsigned i = s->n_fd_rules; i-- > 0;) /* the last one given holds */
		if (s->fd_rules[i].fd == fd)
			return (enum fd_action)s->fd_rules[i].action;
	return FD_KEEP;
}

/* A file that no descriptor leads to any more, and that costs nothing to make. */
static void forget(struct capture *c, struct file *f)
{
	for (unsigned i = 0; i < c->n_subjects; i++) {
		struct process *p = c->subjects[i].process;
		unsigned n = 0;

		for (unsigned k = 0; k < p->n_fds; k++)
			if (p->fds[k].file != f->id)
				p->fds[n++] = p->fds[k];
		p->n_fds = n;
	}
	*f = (struct file){ .id = f->id,
			    .kind = FILE_DEVICE,
			    .flags = O_RDONLY,
			    .mode = S_IFCHR | 0666,
			    .rdev = makedev(1, 3),
			    .path = arena_strdup(c->arena, "/dev/null") };
}

bool rules_drop(struct capture *c, struct file *f, int rc)
{
	if (rc != -EOPNOTSUPP || !c->tree->settings.close_unsupported)
		return false;
	forget(c, f);
	return f->path != NULL;
}
