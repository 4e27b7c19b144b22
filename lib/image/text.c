/* SPDX-License-Identifier: BSD-2-Clause */
/* Summary, processes, threads, segments, files and chain listing for people. */
#include "image/text.h"

#include "image/utf8.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/idmap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* --- words and numbers ---------------------------------------------------------------------------
 */

static void put_name(FILE *f, const char *s)
{
	for (s = s ? s : "-"; *s;) {
		uint32_t c = 0;
		unsigned len = utf8_sequence(s, &c);

		if (len == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0)) {
			/* the bytes of a control character beyond ASCII are shown one by one */
			for (len = len ? len : 1; len > 0; len--)
				fprintf(f, "\\x%02x", (uint8_t)*s++);
			continue;
		}
		fwrite(s, 1, len, f);
		s += len;
	}
}

const char *text_size(char buf[static 16], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned u = 0;

	while (v >= 1024 && u + 1 < ARRAY_SIZE(units)) {
		v /= 1024;
		u++;
	}
	(void)snprintf(buf, 16, u > 0 && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return buf;
}

const char *text_duration(char buf[static 16], int64_t ns)
{
	int64_t s = ns / 1000000000;

	if (s < 0)
		(void)snprintf(buf, 16, "-");
	else if (s < 60)
		(void)snprintf(buf, 16, "%ds", (int)s);
	else if (s < 3600)
		(void)snprintf(buf, 16, "%dm%02ds", (int)(s / 60), (int)(s % 60));
	else if (s < 86400)
		(void)snprintf(buf, 16, "%dh%02dm", (int)(s / 3600), (int)(s / 60 % 60));
	else
		(void)snprintf(buf, 16, "%" PRId64 "d%02dh", s / 86400, (int)(s / 3600 % 24));
	return buf;
}

/* From a time in the past to now; the image may say anything, so no signed overflow here. */
static const char *text_age(char buf[static 16], int64_t now_ns, int64_t then_ns)
{
	return text_duration(buf, (int64_t)((uint64_t)now_ns - (uint64_t)then_ns));
}

static void put_id(FILE *f, const struct id128 *id)
{
	for (size_t i = 0; i < sizeof id->b; i++)
		fprintf(f, "%02x", id->b[i]);
}

static void put_time(FILE *f, uint64_t realtime_ns)
{
	time_t t = (time_t)(realtime_ns / 1000000000);
	char text[64];
	struct tm tm;

	if (localtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %z", &tm) > 0)
		fputs(text, f);
	else
		fprintf(f, "%" PRIu64 " ns after 1970", realtime_ns);
}

/* --- the summary ---------------------------------------------------------------------------------
 */

static void put_job(FILE *f, const struct settings *s)
{
	if (s->n_argv == 0)
		put_name(f, s->name);
	for (unsigned i = 0; i < s->n_argv; i++) {
		if (i > 0)
			putc(' ', f);
		put_name(f, s->argv[i].s);
	}
	putc('\n', f);
}

static void put_image_lines(FILE *f, const struct image_view *v)
{
	const struct image_info *info = v->info;
	char size[16];

	fputs("image      ", f);
	put_name(f, v->name);
	fprintf(f, "\nnumber     %" PRIu64 ", %s, format version %u\n", info->seq, view_kind(info),
		info->version);
	fputs("state      ", f);
	put_id(f, &info->state);
	if (view_kind(info)[0] == 'i') {
		fputs("\nparent     ", f);
		put_id(f, &info->parent);
	}
	fprintf(f, "\nsize       %s\n", text_size(size, info->file_bytes));
}

static void put_page_line(FILE *f, const struct image_view *v)
{
	struct page_counts sum = { 0 };
	char here[16], zero[16], parent[16];

	for (unsigned i = 0; i < v->n_runs; i++) {
		uint64_t n = v->runs[i].npages;

		sum.here += v->runs[i].kind == RUN_HERE ? n : 0;
		sum.zero += v->runs[i].kind == RUN_ZERO ? n : 0;
		sum.parent += v->runs[i].kind == RUN_PARENT ? n : 0;
	}
	fprintf(f, "memory     %s in this image, %s as in the parent, %s zero\n",
		text_size(here, sum.here * CKPT_PAGE_SIZE),
		text_size(parent, sum.parent * CKPT_PAGE_SIZE),
		text_size(zero, sum.zero * CKPT_PAGE_SIZE));
}

static void put_settings_line(FILE *f, const struct settings *s)
{
	static const char *const compress[] = { "auto", "lz4", "none" };
	char interval[32] = "on demand";

	if (s->mtbf_ns)
		(void)snprintf(interval, sizeof interval, "as often as pays");
	else if (s->interval_ns)
		(void)snprintf(interval, sizeof interval, "every %g s",
			       (double)s->interval_ns / 1e9);
	fprintf(f, "settings   checkpoints %s, %s, keep %u, compress %s, tracker ", interval,
		s->incremental ? "incremental" : "always full", s->keep,
		s->compress < ARRAY_SIZE(compress) ? compress[s->compress] : "?");
	put_name(f, s->tracker);
	putc('\n', f);
}

/* Where it was, for the record: those of the root, and whether others were elsewhere. */
static void put_cgroup_line(FILE *f, const struct tree *t)
{
	const char *first = t->n_processes ? t->processes[0].cgroup : NULL;
	unsigned elsewhere = 0;

	if (!first || !first[0])
		return;
	for (unsigned i = 1; i < t->n_processes; i++)
		elsewhere += t->processes[i].cgroup && strcmp(t->processes[i].cgroup, first);
	fputs("cgroup     ", f);
	put_name(f, first);
	if (elsewhere)
		fprintf(f, " (%u processes in others)", elsewhere);
	fputs(" (not restored)\n", f);
}

void text_summary(FILE *f, const struct image_view *v, int64_t now_ns)
{
	const struct tree *t = v->tree;
	uint64_t threads = 0, segments = 0, fds = 0, mapped = 0;
	char age[16], size[16];

	for (unsigned i = 0; i < t->n_processes; i++) {
		const struct process *p = &t->processes[i];

		threads += p->n_threads;
		segments += p->n_vmas;
		fds += p->n_fds;
		for (unsigned k = 0; k < p->n_vmas; k++)
			mapped += p->vmas[k].end - p->vmas[k].start;
	}
	put_image_lines(f, v);
	fputs("job        ", f);
	put_job(f, &t->settings);
	fputs("taken      ", f);
	put_time(f, t->host.realtime_ns);
	fprintf(f, " (%s ago) on ", text_age(age, now_ns, (int64_t)t->host.realtime_ns));
	put_name(f, t->host.nodename);
	fputs(", Linux ", f);
	put_name(f, t->host.release);
	putc('\n', f);
	put_settings_line(f, &t->settings);
	put_page_line(f, v);
	fprintf(f, "processes  %u\nthreads    %" PRIu64 "\n", t->n_processes, threads);
	fprintf(f, "segments   %" PRIu64 ", %s mapped\n", segments, text_size(size, mapped));
	fprintf(f, "files      %u, %" PRIu64 " descriptors\n", t->n_files, fds);
	put_cgroup_line(f, t);
}

/* --- processes and threads -----------------------------------------------------------------------
 */

void text_processes(FILE *f, const struct image_view *v)
{
	struct idmap first = { 0 };

	fprintf(f, "%7s %7s %7s %7s %7s %8s %5s %9s  %s\n", "PID", "PPID", "PGID", "SID", "THREADS",
		"SEGMENTS", "FDS", "MEMORY", "PROGRAM");
	for (unsigned i = 0; i < v->tree->n_processes; i++) {
		const struct process *p = &v->tree->processes[i];
		uint32_t memory = i;
		struct page_counts n;
		char size[16];

		/* the first with this memory has it */
		if (!idmap_get(&first, (int32_t)p->space, &memory))
			(void)idmap_put(&first, (int32_t)p->space, i);
		view_count_pages(v, p->space, 0, UINT64_MAX / CKPT_PAGE_SIZE, &n);
		fprintf(f, "%7d %7d %7d %7d %7u %8u %5u %9s  ", p->pid, p->ppid, p->pgid, p->sid,
			p->n_threads, p->n_vmas, p->n_fds,
			text_size(size, (n.here + n.parent) * CKPT_PAGE_SIZE));
		put_name(f, p->exe);
		if (memory != i)
			fprintf(f, " (memory of %d)", v->tree->processes[memory].pid);
		fputs(p->stopped ? " (stopped)\n" : "\n", f);
	}
	idmap_fini(&first);
}

/* Register number n of struct user_regs_struct; 0 when the image holds fewer. */
static uint64_t greg(const struct thread *t, unsigned n)
{
	return t->gregs.len >= (n + 1) * 8 ? get_le64(t->gregs.data + n * 8) : 0;
}

void text_threads(FILE *f, const struct image_view *v)
{
	enum { REG_IP = 16, REG_SP = 19 };

	fprintf(f, "%7s %7s %-11s %16s %16s %16s %4s  %s\n", "PID", "TID", "IN", "INSTRUCTION",
		"STACK", "SIGMASK", "NICE", "NAME");
	for (unsigned i = 0; i < v->tree->n_processes; i++) {
		const struct process *p = &v->tree->processes[i];

		for (unsigned k = 0; k < p->n_threads; k++) {
			const struct thread *t = &p->threads[k];
			char in[32] = "user code";

			if (p->leader_ended && k == 0)
				(void)snprintf(in, sizeof in, "has ended");
			else if (t->syscall_nr >= 0)
				(void)snprintf(in, sizeof in, "syscall %" PRId64, t->syscall_nr);
			fprintf(f, "%7d %7d %-11s %16" PRIx64 " %16" PRIx64 " %016" PRIx64 " %4d  ",
				p->pid, t->tid, in, greg(t, REG_IP), greg(t, REG_SP), t->sigmask,
				t->nice);
			put_name(f, t->comm);
			putc('\n', f);
		}
	}
}

/* --- segments ------------------------------------------------------------------------------------
 */

static void put_process_heading(FILE *f, const struct process *p, unsigned i)
{
	fprintf(f, "%sprocess %d (", i > 0 ? "\n" : "", p->pid);
	put_name(f, p->exe);
	fputs(")\n", f);
}

static void put_segment(FILE *f, const struct image_view *v, const struct process *p,
			const struct vma *vma)
{
	struct page_counts n = { 0 };
	char size[16], present[16];
	uint64_t page;
	uint32_t space = view_vma_space(p, vma, &page);

	if (space)
		view_count_pages(v, space, page, (vma->end - vma->start) / CKPT_PAGE_SIZE, &n);
	fprintf(f, "%12" PRIx64 "-%-12" PRIx64 " %c%c%c%c %-9s %9s %9s  ", vma->start, vma->end,
		vma->prot & PROT_READ ? 'r' : '-', vma->prot & PROT_WRITE ? 'w' : '-',
		vma->prot & PROT_EXEC ? 'x' : '-', vma->flags & MAP_SHARED ? 's' : 'p',
		vma_kind_name(vma->kind), text_size(size, vma->end - vma->start),
		text_size(present, (n.here + n.parent) * CKPT_PAGE_SIZE));
	put_name(f, vma->path ? vma->path : vma->anon_name);
	if (vma->kind == VMA_SHM)
		fprintf(f, " (space %u)", vma->shm_space);
	if (vma->offset && vma->kind != VMA_ANON)
		fprintf(f, " +0x%" PRIx64, vma->offset);
	putc('\n', f);
}

void text_segments(FILE *f, const struct image_view *v)
{
	for (unsigned i = 0; i < v->tree->n_processes; i++) {
		const struct process *p = &v->tree->processes[i];

		put_process_heading(f, p, i);
		fprintf(f, "%12s-%-12s %-4s %-9s %9s %9s  %s\n", "START", "END", "PERM", "KIND",
			"SIZE", "STORED", "NAME");
		for (unsigned k = 0; k < p->n_vmas; k++)
			put_segment(f, v, p, &p->vmas[k]);
	}
}

/* --- files ---------------------------------------------------------------------------------------
 */

static void put_open_flags(FILE *f, uint32_t flags, uint32_t cloexec)
{
	static const char *const access[] = { "r", "w", "rw", "-" };
	char text[64];

	(void)snprintf(text, sizeof text, "%s%s%s%s", access[flags & O_ACCMODE],
		       flags & O_APPEND ? ",append" : "", flags & O_NONBLOCK ? ",nonblock" : "",
		       cloexec ? ",cloexec" : "");
	fprintf(f, "%-18s", text);
}

static void put_socket(FILE *f, const struct file_socket *s)
{
	static const char *const states[] = { "?",
					      "not connected",
					      "listening",
					      "connected",
					      "not accepted yet",
					      "closed by its peer",
					      "leads outside",
					      "connecting",
					      "reset" };
	static const char *const types[] = { "?", "stream", "datagram", "raw", "?", "packet" };
	uint64_t unread = 0;

	for (unsigned i = 0; i < s->n_messages; i++)
		unread += s->messages[i].data.len;
	fprintf(f, " [%s %s, %s",
		s->family == 1    ? "unix"
		: s->family == 2  ? "IPv4"
		: s->family == 10 ? "IPv6"
		: s->family == 16 ? "netlink"
				  : "?",
		types[s->type < 6 ? s->type : 0], states[s->state < 9 ? s->state : 0]);
	if (s->n_messages)
		fprintf(f, ", %" PRIu64 " bytes unread", unread);
	if (s->n_waiting)
		fprintf(f, ", %u waiting", s->n_waiting);
	fputs("]", f);
}

static void put_detail(FILE *f, const struct file *file)
{
	const struct file_pipe *pipe = file->detail;
	const struct file_outside *outside = file->detail;
	const struct file_epoll *epoll = file->detail;
	uint64_t unread = 0;

	if (!file->detail)
		return;
	switch (file->kind) {
	case FILE_PIPE:
	case FILE_FIFO:
		for (unsigned i = 0; i < pipe->n_packets; i++)
			unread += pipe->packets[i].data.len;
		fprintf(f, " [pipe %" PRIu64 ", %" PRIu64 " bytes unread]", pipe->pipe, unread);
		break;
	case FILE_EPOLL:
		fprintf(f, " [%u watched]", epoll->n_watches);
		break;
	case FILE_OUTSIDE:
		fputs(" [", f);
		put_name(f, outside->what);
		fprintf(f, ", stands for descriptor %u]", outside->stream);
		break;
	case FILE_SOCKET:
		put_socket(f, file->detail);
		break;
	default:
		break;
	}
}

static void put_fd(FILE *f, const struct tree *t, const struct fd *fd)
{
	const struct file *file = tree_file(t, fd->file);

	fprintf(f, "%5d %5u ", fd->fd, fd->file);
	if (!file) {
		fputs("?\n", f);
		return;
	}
	fprintf(f, "%-18s ", file_kind_name(file->kind));
	put_open_flags(f, file->flags, fd->cloexec);
	fprintf(f, " %12" PRIu64 "  ", file->pos);
	put_name(f, file->path);
	put_detail(f, file);
	putc('\n', f);
}

void text_files(FILE *f, const struct image_view *v)
{
	for (unsigned i = 0; i < v->tree->n_processes; i++) {
		const struct process *p = &v->tree->processes[i];

		put_process_heading(f, p, i);
		fprintf(f, "%5s %5s %-18s %-18s %12s  %s\n", "FD", "FILE", "KIND", "FLAGS",
			"POSITION", "NAME");
		for (unsigned k = 0; k < p->n_fds; k++)
			put_fd(f, v->tree, &p->fds[k]);
	}
}

/* --- a chain -------------------------------------------------------------------------------------
 */

static void put_entry(FILE *f, const struct chain_entry *e, int64_t now_ns)
{
	static const struct id128 none;
	char size[16], age[16];
	const char *kind = !e->readable                              ? "-"
			   : !memcmp(&e->parent, &none, sizeof none) ? "full"
								     : "incremental";

	fprintf(f, "%8" PRIu64 "  %-11s %9s %8s  ", e->seq, kind, text_size(size, e->file_bytes),
		text_age(age, now_ns, e->mtime_ns));
	if (e->complete)
		fputs("complete", f);
	else if (e->why.msg[0])
		put_name(f, e->why.msg);
	else
		fputs(e->readable ? "not complete" : "not readable", f);
	putc('\n', f);
}

void text_chain(FILE *f, const struct chain_view *c)
{
	fputs("chain      ", f);
	put_name(f, c->path);
	fprintf(f, "\nimages     %u\njob        ", c->n_entries);
	if (c->finished) {
		fputs("finished: ", f);
		put_name(f, c->finished);
		putc('\n', f);
	} else {
		fputs("not finished\n", f);
	}
	if (c->n_entries > 0)
		fprintf(f, "\n%8s  %-11s %9s %8s  %s\n", "NUMBER", "KIND", "SIZE", "AGE", "STATE");
	for (unsigned i = 0; i < c->n_entries; i++)
		put_entry(f, c->entries[i], c->now_ns);
}
