/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the test of the second reader: `mkchain DIR` writes the chain DIR and, as DIR/expected.bin,
 * the pages of its state (u64 address, 4096 bytes each); `mkchain schema` prints the tables that
 * records follow.
 */
#include "imgtest.h"

#include "image/chain.h"
#include "util/bytes.h"

#include <string.h>
#include <unistd.h>

#define IMAGES 4u
#define PAGES  300u

/* --- the tables ----------------------------------------------------------------------------------
 */

static void print_schema(const struct schema *s)
{
	static const char *const kinds[] = {
		[FIELD_U8] = "u8",         [FIELD_U16] = "u16",   [FIELD_U32] = "u32",
		[FIELD_I32] = "i32",       [FIELD_U64] = "u64",   [FIELD_I64] = "i64",
		[FIELD_STR] = "str",       [FIELD_BLOB] = "blob", [FIELD_ID] = "id",
		[FIELD_DETAIL] = "detail",
	};

	printf("%s\n", s->name);
	for (unsigned i = 0; i < s->n_fields; i++) {
		const struct field *f = &s->fields[i];

		if (f->kind == FIELD_STRUCT)
			printf("    %-20s %s\n", f->name, f->sub->name);
		else if (f->kind == FIELD_LIST)
			printf("    %-20s list of %s\n", f->name, f->sub->name);
		else
			printf("    %-20s %s\n", f->name, kinds[f->kind]);
	}
}

/* Each table once, in the order of first use. */
static void print_tables(const struct schema *s)
{
	static const struct schema *done[64];
	static unsigned n;

	for (unsigned i = 0; i < n; i++)
		if (done[i] == s)
			return;
	CHECK(n < sizeof done / sizeof done[0]);
	done[n++] = s;
	print_schema(s);
	for (unsigned i = 0; i < s->n_fields; i++) {
		if (s->fields[i].sub)
			print_tables(s->fields[i].sub);
		if (s->fields[i].kind == FIELD_DETAIL)
			for (uint32_t k = 1; k < FILE_KIND_COUNT; k++)
				if (file_kind_schema(k))
					print_tables(file_kind_schema(k));
	}
}

static void print_details(void)
{
	for (uint32_t k = 1; k < FILE_KIND_COUNT; k++)
		printf("detail %u %s\n", k, file_kind_schema(k) ? file_kind_schema(k)->name : "-");
}

/* --- the chain -----------------------------------------------------------------------------------
 */

/* A page changes in some images and not in others; what it is depends on when it last did. */
static unsigned last_change(uint64_t page, unsigned image)
{
	while (image > 1 && (page / 3 + image) % 3)
		image--;
	return image;
}

static enum content content_at(uint64_t page, unsigned image)
{
	return (enum content)((page / 5 + image) % 3);
}

static void put_space(struct image_writer *w, uint32_t space, uint64_t first, unsigned image)
{
	uint8_t data[CKPT_PAGE_SIZE];
	struct err err = { 0 };

	for (uint64_t p = 0; p < PAGES; p++) {
		if (last_change(p, image) != image) {
			OK(image_writer_run(w, space, RUN_PARENT, first + p, 1, &err), &err);
			continue;
		}
		fill_page(data, content_at(p, image), space, p, image);
		OK(put_page(w, space, first + p, data, &err), &err);
	}
}

static void expect_space(FILE *f, uint32_t space, uint64_t address)
{
	uint8_t data[8 + CKPT_PAGE_SIZE];

	for (uint64_t p = 0; p < PAGES; p++) {
		unsigned image = last_change(p, IMAGES);

		put_le64(data, address + p * CKPT_PAGE_SIZE);
		fill_page(data + 8, content_at(p, image), space, p, image);
		CHECK(fwrite(data, sizeof data, 1, f) == 1);
	}
}

static void make_chain(const char *dir)
{
	struct arena *a = arena_new();
	struct tree *t = test_tree(a);
	struct err err = { 0 };
	struct chain *c;
	FILE *f;

	OK(chain_open(dir, CHAIN_CREATE, &c, &err), &err);
	for (unsigned i = 1; i <= IMAGES; i++) {
		struct image_params params = {
			.state = test_id(i), .seq = i, .compress = i % 3, .direct = 1
		};
		struct image_writer *w;
		char name[32];

		if (i > 1)
			params.parent = test_id(i - 1);
		(void)snprintf(name, sizeof name, "%06u.img", i);
		OK(image_writer_open(chain_dirfd(c), name, &params, &w, &err), &err);
		put_space(w, 1, 0x10000, i);
		put_space(w, 2, 0, i);
		OK(image_writer_commit(w, t, NULL, &err), &err);
	}
	chain_free(c);
	CHECK(chdir(dir) == 0);
	f = fopen("expected.bin", "we");
	CHECK(f);
	expect_space(f, 1, 0x10000000);
	expect_space(f, 2, 0x7f0000000000);
	CHECK(fclose(f) == 0);
	arena_free(a);
}

int main(int argc, char **argv)
{
	CHECK(argc == 2);
	if (!strcmp(argv[1], "schema")) {
		print_tables(&tree_schema);
		print_details();
	} else {
		make_chain(argv[1]);
	}
	return 0;
}
