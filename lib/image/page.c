/* SPDX-License-Identifier: BSD-2-Clause */
/* Page lookup: process and address -> mapping -> space and page number -> run -> block. */
#include "image/page.h"

#include "image/view.h"
#include "util/cleanup.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

static const struct process *find_process(const struct tree *t, int32_t pid)
{
	for (unsigned i = 0; i < t->n_processes; i++)
		if (t->processes[i].pid == pid)
			return &t->processes[i];
	return NULL;
}

static const struct vma *find_vma(const struct process *p, uint64_t address)
{
	for (unsigned i = 0; i < p->n_vmas; i++)
		if (p->vmas[i].start <= address && address < p->vmas[i].end)
			return &p->vmas[i];
	return NULL;
}

static const struct resolved_run *find_run(const struct resolved *r, uint32_t space, uint64_t page)
{
	unsigned lo = 0, hi;
	const struct resolved_run *runs = resolved_runs(r, space, &hi);

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (page < runs[mid].run.page)
			hi = mid;
		else if (page >= runs[mid].run.page + runs[mid].run.npages)
			lo = mid + 1;
		else
			return &runs[mid];
	}
	return NULL;
}

static int read_here(const struct resolved *r, const struct resolved_run *run, uint64_t page,
		     uint8_t ret[static CKPT_PAGE_SIZE], struct err *err)
{
	const struct image_reader *reader = resolved_image(r, run->image);
	CLEANUP_FREE uint8_t *data = malloc((size_t)IMAGE_BLOCK_PAGES * CKPT_PAGE_SIZE);
	CLEANUP_FREE uint8_t *scratch = malloc(IMAGE_BLOCK_SCRATCH);
	uint32_t block, at;
	int rc;

	if (!data || !scratch)
		return err_nomem(err);
	image_reader_seek(reader, &run->run, page - run->run.page, &block, &at);
	rc = image_reader_block(reader, block, data, scratch, err);
	if (rc == 0)
		memcpy(ret, data + (size_t)at * CKPT_PAGE_SIZE, CKPT_PAGE_SIZE);
	return rc;
}

int page_read(const struct resolved *r, const struct tree *tree, int32_t pid, uint64_t address,
	      uint8_t ret[static CKPT_PAGE_SIZE], struct err *err)
{
	const struct process *p = find_process(tree, pid);
	const struct resolved_run *run;
	const struct vma *vma;
	uint64_t first, page;
	uint32_t space;

	if (!p)
		return err_set(err, -ESRCH, "there is no process %d in the image", pid);
	vma = find_vma(p, address);
	if (!vma)
		return err_set(err, -EFAULT, "process %d has nothing mapped at 0x%" PRIx64, pid,
			       address);
	space = view_vma_space(p, vma, &first);
	if (!space)
		return err_set(err, -ENODATA,
			       "the image holds no content of the %s mapping at 0x%" PRIx64,
			       vma_kind_name(vma->kind), address);
	page = first + (address - vma->start) / CKPT_PAGE_SIZE;
	run = find_run(r, space, page);
	if (run && run->run.kind == RUN_HERE)
		return read_here(r, run, page, ret, err);
	/* What a mapping of a named file has not changed, or shares with it, is read from the file
	 * on a restart. */
	if (!run && vma->kind == VMA_FILE)
		return err_set(err, -ENODATA, "the page at 0x%" PRIx64 " is as in the file '%s'",
			       address, vma->path ? vma->path : "?");
	memset(ret, 0, CKPT_PAGE_SIZE);
	return 0;
}
