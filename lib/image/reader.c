/* SPDX-License-Identifier: BSD-2-Clause */
/* The image reader: bytes of the file, opening it (header, trailer, sections), and the tree. */
#include "image/check.h"
#include "image/reader_int.h"
#include "image/record.h"

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/hash.h"
#include "util/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* --- bytes ---------------------------------------------------------------------------------------
 */

static int truncated(const struct image_reader *r, const char *why, struct err *err)
{
	return err_image(err, -EBADMSG, "image '%s' is truncated (%s)", r->name, why);
}

int reader_read(const struct image_reader *r, uint64_t off, void *buf, size_t len, struct err *err)
{
	ssize_t n;

	if (off > r->size || len > r->size - off)
		return truncated(r, "a part lies beyond its end", err);
	if (r->mem) {
		memcpy(buf, r->mem + off, len);
		return 0;
	}
	n = io_pread_full(r->fd, buf, len, off);
	if (n < 0)
		return err_set(err, (int)n, "cannot read image '%s' at offset %llu: %m", r->name,
			       (unsigned long long)off);
	return (size_t)n == len ? 0 : truncated(r, "it became shorter while being read", err);
}

int reader_damaged(const struct image_reader *r, const char *what, uint64_t off, const char *why,
		   struct err *err)
{
	return err_image(err, -EBADMSG, "image '%s': %s at offset %llu is damaged (%s)", r->name,
			 what, (unsigned long long)off, why);
}

bool reader_sum_ok(const void *p, size_t len, uint64_t sum)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
	(void)p, (void)len, (void)sum;
	return true;
#else
	return hash64(p, len) == sum;
#endif
}

int reader_check_gap(const struct image_reader *r, uint64_t from, uint64_t to, struct err *err)
{
	uint8_t pad[IMAGE_MAX_GAP];
	int rc;

	if (to < from || to - from >= sizeof pad)
		return reader_damaged(r, "padding", from, "too long", err);
	rc = reader_read(r, from, pad, (size_t)(to - from), err);
	for (uint64_t i = 0; rc == 0 && i < to - from; i++)
		if (pad[i])
			return reader_damaged(r, "padding", from + i, "not zero", err);
	return rc;
}

/* --- opening -------------------------------------------------------------------------------------
 */

/* What it is comes before whether it is whole: a text file is "not an image", not "damaged". */
static int read_header(struct image_reader *r, struct err *err)
{
	uint8_t h[IMAGE_HEADER_BYTES] = { 0 };
	size_t have = (size_t)MIN(r->size, sizeof h);
	int rc = reader_read(r, 0, h, have, err);

	if (rc < 0)
		return rc;
	if (memcmp(h, IMAGE_MAGIC, MIN(have, 8u)))
		return err_image(err, -EBADMSG, "'%s' is not a ckpt image (wrong magic)", r->name);
	if (have < sizeof h)
		return truncated(r, "shorter than its header", err);
	r->info.version = get_le16(h + 8);
	r->info.arch = get_le16(h + 10);
	if (r->info.version != IMAGE_VERSION)
		return err_image(err, -EPROTONOSUPPORT,
				 "image '%s' has version %u, this program reads version %u",
				 r->name, r->info.version, IMAGE_VERSION);
	if (r->info.arch != IMAGE_ARCH_X86_64)
		return err_image(
			err, -EPROTONOSUPPORT,
			"image '%s' was made on another architecture (ELF machine %u, this is %u)",
			r->name, r->info.arch, IMAGE_ARCH_X86_64);
	if (!reader_sum_ok(h, 56, get_le64(h + 56)))
		return reader_damaged(r, "header", 0, "checksum", err);
	if (h[12] != IMAGE_PAGE_SHIFT)
		return err_image(err, -EPROTONOSUPPORT,
				 "image '%s' has pages of 2^%u bytes, this program reads 2^%u",
				 r->name, h[12], IMAGE_PAGE_SHIFT);
	if (h[13] | h[14] | h[15])
		return reader_damaged(r, "header", 13, "reserved bytes are not zero", err);
	memcpy(r->info.state.b, h + 16, 16);
	memcpy(r->info.parent.b, h + 32, 16);
	r->info.seq = get_le64(h + 48);
	return 0;
}

static int read_trailer(struct image_reader *r, struct err *err)
{
	uint8_t t[IMAGE_TRAILER_BYTES];
	uint64_t at = r->size - sizeof t, off, len;
	int rc;

	if (r->size < IMAGE_HEADER_BYTES + sizeof t)
		return truncated(r, "it has no end", err);
	rc = reader_read(r, at, t, sizeof t, err);
	if (rc < 0)
		return rc;
	if (memcmp(t + 56, IMAGE_END_MAGIC, 8))
		return truncated(r, "it has no end mark", err);
	if (!reader_sum_ok(t, 48, get_le64(t + 48)))
		return reader_damaged(r, "trailer", at, "checksum", err);
	off = get_le64(t);
	len = get_le64(t + 8);
	if (get_le64(t + 24) != r->size)
		return truncated(r, "its length is not the recorded one", err);
	if (memcmp(t + 32, r->info.state.b, 16))
		return reader_damaged(r, "trailer", at, "belongs to another image", err);
	if (off < IMAGE_HEADER_BYTES || off > at || len != at - off || off % IMAGE_SECTION_ALIGN)
		return reader_damaged(r, "trailer", at, "directory out of place", err);
	return reader_load_sections(r, off, len, get_le64(t + 16), err);
}

static int open_common(struct image_reader *r, const char *name, struct image_reader **ret,
		       struct err *err)
{
	int rc;

	r->name = strdup(name);
	if (!r->name)
		rc = err_nomem(err);
	else
		rc = read_header(r, err);
	r->info.file_bytes = r->size;
	if (rc == 0)
		rc = read_trailer(r, err);
	if (rc < 0) {
		r->fd = -1; /* stays the caller's */
		image_reader_free(r);
		return rc;
	}
	*ret = r;
	return 0;
}

static struct image_reader *reader_new(void)
{
	struct image_reader *r = calloc(1, sizeof *r);

	if (r)
		r->fd = r->direct = -1;
	return r;
}

int image_reader_open_fd(int fd, const char *name, struct image_reader **ret, struct err *err)
{
	struct image_reader *r;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot look at '%s': %m", name);
	if (!S_ISREG(st.st_mode))
		return err_image(err, -EBADMSG, "'%s' is not a ckpt image (not a regular file)",
				 name);
	r = reader_new();
	if (!r)
		return err_nomem(err);
	r->fd = fd;
	r->size = (uint64_t)st.st_size;
	return open_common(r, name, ret, err);
}

int image_reader_open_mem(const void *data, size_t len, struct image_reader **ret, struct err *err)
{
	static const uint8_t nothing[1];
	struct image_reader *r = reader_new();

	if (!r)
		return err_nomem(err);
	r->mem = len ? data : nothing;
	r->size = len;
	return open_common(r, "memory", ret, err);
}

int image_reader_open_as(int dirfd, const char *path, const char *name, struct image_reader **ret,
			 struct err *err)
{
	/* O_NONBLOCK: a FIFO under that name must not hang us before fstat tells */
	CLEANUP_FD int fd =
		openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int rc;

	if (fd < 0) {
		rc = err_set(err, -errno, "cannot open image '%s': %m", name);
		if (rc == -ELOOP)
			err_hint(err, "symbolic links are not followed; name the file itself");
		return rc;
	}
	rc = image_reader_open_fd(fd, name, ret, err);
	if (rc == 0)
		(void)fd_take(&fd);
	return rc;
}

int image_reader_open(int dirfd, const char *path, struct image_reader **ret, struct err *err)
{
	return image_reader_open_as(dirfd, path, path, ret, err);
}

int image_reader_peek(int dirfd, const char *path, struct image_info *ret, struct err *err)
{
	CLEANUP_FD int fd =
		openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct image_reader r = { .fd = fd };
	CLEANUP_FREE char *name = strdup(path);
	struct stat st;
	int rc;

	if (!name)
		return err_nomem(err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot open image '%s': %m", path);
	if (!S_ISREG(st.st_mode))
		return err_image(err, -EBADMSG, "'%s' is not a ckpt image (not a regular file)",
				 path);
	r.name = name;
	r.size = (uint64_t)st.st_size;
	r.info.file_bytes = r.size;
	rc = read_header(&r, err);
	if (rc == 0)
		*ret = r.info;
	return rc;
}

void image_reader_free(struct image_reader *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		(void)close(r->fd);
	if (r->direct >= 0)
		(void)close(r->direct);
	free(r->sections);
	free(r->blocks);
	free(r->runs);
	free(r->tree);
	free(r->name);
	free(r);
}

const struct image_info *image_reader_info(const struct image_reader *r)
{
	return &r->info;
}

const char *image_reader_name(const struct image_reader *r)
{
	return r->name;
}

int image_reader_fd(const struct image_reader *r)
{
	return r->fd;
}

/* --- the tree ------------------------------------------------------------------------------------
 */

static int by_id(const void *a, const void *b)
{
	const struct space *const *x = a, *const *y = b;

	return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

/* Every run belongs to a space of the tree and lies inside it. Both lists ascend by id. */
static int check_runs(const struct image_reader *r, const struct tree *t, struct err *err)
{
	CLEANUP_FREE const struct space **s =
		calloc(MAX(t->n_spaces, 1u), sizeof(const struct space *));
	unsigned at = 0, n_runs;

	if (!s)
		return err_nomem(err);
	for (unsigned i = 0; i < t->n_spaces; i++)
		s[i] = &t->spaces[i];
	qsort(s, t->n_spaces, sizeof *s, by_id);
	(void)image_reader_runs(r, &n_runs);
	for (unsigned i = 0; i < n_runs; i++) {
		const struct page_run *run = &r->runs[i];
		uint64_t pages = IMAGE_MAX_PAGE;

		while (at < t->n_spaces && s[at]->id < run->space)
			at++;
		if (at == t->n_spaces || s[at]->id != run->space)
			return err_image(err, -EBADMSG,
					 "image '%s': pages of space %u, which is not in its tree",
					 r->name, run->space);
		if (s[at]->kind != SPACE_MM)
			pages = s[at]->size / CKPT_PAGE_SIZE + !!(s[at]->size % CKPT_PAGE_SIZE);
		if (run->page + run->npages > pages)
			return err_image(err, -EBADMSG,
					 "image '%s': pages beyond the end of space %u", r->name,
					 run->space);
	}
	return 0;
}

int image_reader_tree(struct image_reader *r, struct arena *arena, struct tree **ret,
		      struct err *err)
{
	struct tree *t = NULL;
	void *obj = NULL;
	int rc = record_decode(r->tree, r->tree_len, &tree_schema, arena, &obj, err);

	if (rc == 0) {
		t = obj;
		rc = tree_check(t, err);
	}
	if (rc < 0)
		return err_wrap(err, rc, "image '%s': section 'tree' at offset %llu", r->name,
				(unsigned long long)r->tree_offset);
	rc = check_runs(r, t, err);
	if (rc == 0)
		*ret = t;
	return rc;
}
