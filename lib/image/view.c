/* SPDX-License-Identifier: BSD-2-Clause */
/* Questions that both the text and the JSON form of an image ask: which pages a mapping has, full
 * or increment. */
#include "image/view.h"

#include "util/cleanup.h"

/* Index of the first run that ends after the page. */
static unsigned first_run(const struct image_view *v, uint32_t space, uint64_t page)
{
	unsigned lo = 0, hi = v->n_runs;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct page_run *r = &v->runs[mid];

		if (r->space < space || (r->space == space && r->page + r->npages <= page))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

void view_count_pages(const struct image_view *v, uint32_t space, uint64_t page, uint64_t npages,
		      struct page_counts *ret)
{
	uint64_t end = page + npages;

	*ret = (struct page_counts){ 0 };
	for (unsigned i = first_run(v, space, page); i < v->n_runs; i++) {
		const struct page_run *r = &v->runs[i];
		uint64_t n;

		if (r->space != space || r->page >= end)
			break;
		n = MIN(end, r->page + r->npages) - MAX(page, r->page);
		if (r->kind == RUN_HERE)
			ret->here += n;
		else if (r->kind == RUN_ZERO)
			ret->zero += n;
		else
			ret->parent += n;
	}
}

uint32_t view_vma_space(const struct process *p, const struct vma *vma, uint64_t *ret_page)
{
	if (vma->kind == VMA_SHM) {
		*ret_page = vma->offset / CKPT_PAGE_SIZE;
		return vma->shm_space;
	}
	*ret_page = vma->start / CKPT_PAGE_SIZE;
	return vma->kind == VMA_ANON || vma->kind == VMA_FILE ? p->space : 0;
}

const char *view_kind(const struct image_info *info)
{
	for (size_t i = 0; i < sizeof info->parent.b; i++)
		if (info->parent.b[i])
			return "incremental";
	return "full";
}
