/* SPDX-License-Identifier: BSD-2-Clause */
/* Namespaces of the job's own: refused by name. */
#include "object/attrs.h"

int namespaces_check(struct capture *c, const struct subject *s, struct err *err)
{
	const char *what;

	if (!c->namespaces_known && c->n_subjects) /* once for a checkpoint */
		proc_namespaces_around(c->subjects[0].proc_dirfd, c->namespaces);
	c->namespaces_known = true;
	what = proc_namespace_own(s->proc_dirfd, c->namespaces);
	if (!what)
		return 0;
	(void)err_set(err, -EOPNOTSUPP, "pid %d: %s of its own is not supported", s->pid, what);
	return err_hint(err, "run ckpt-run inside of that namespace");
}
