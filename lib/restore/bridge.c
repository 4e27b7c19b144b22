/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Under another kernel the vdso is another one, and its data pages ([vvar]) have another layout.
 * The job keeps pointers to the old functions. So the old vdso comes back as ordinary memory at its
 * old place, with the entry of each function patched to jump to the new vdso's function of the same
 * name, or to the system call where there is none.
 */
#include "restore/internal.h"

#include "trace/poke.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <elf.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/user.h>

#define JUMP_BYTES 13

struct vdso_image {
	const uint8_t *data;
	size_t len;
	const Elf64_Sym *syms;
	size_t n_syms;
	const char *strings;
	size_t strings_len;
};

/* Section headers are kept in the kernel's vdso images; an image from disk is checked at every
 * step. */
static bool parse(const uint8_t *data, size_t len, struct vdso_image *ret)
{
	const Elf64_Ehdr *eh = (const void *)data;
	const Elf64_Shdr *sh, *str;

	*ret = (struct vdso_image){ .data = data, .len = len };
	if (len < sizeof *eh || memcmp(eh->e_ident, ELFMAG, SELFMAG) ||
	    eh->e_shentsize != sizeof *sh || eh->e_shoff % 8 || eh->e_shoff > len ||
	    (len - eh->e_shoff) / sizeof *sh < eh->e_shnum)
		return false;
	sh = (const void *)(data + eh->e_shoff);
	for (unsigned i = 0; i < eh->e_shnum; i++) {
		if (sh[i].sh_type != SHT_DYNSYM || sh[i].sh_link >= eh->e_shnum)
			continue;
		str = &sh[sh[i].sh_link];
		if (sh[i].sh_offset % 8 || sh[i].sh_offset > len ||
		    sh[i].sh_size > len - sh[i].sh_offset || str->sh_offset > len ||
		    str->sh_size > len - str->sh_offset || str->sh_size == 0 ||
		    data[str->sh_offset + str->sh_size - 1] != 0)
			return false;
		ret->syms = (const void *)(data + sh[i].sh_offset);
		ret->n_syms = sh[i].sh_size / sizeof *ret->syms;
		ret->strings = (const char *)data + str->sh_offset;
		ret->strings_len = str->sh_size;
		return true;
	}
	return false;
}

static bool is_function(const struct vdso_image *v, size_t i)
{
	const Elf64_Sym *s = &v->syms[i];

	return ELF64_ST_TYPE(s->st_info) == STT_FUNC && s->st_shndx != SHN_UNDEF &&
	       s->st_name < v->strings_len && s->st_value <= v->len - JUMP_BYTES;
}

static uint64_t find(const struct vdso_image *v, const char *name)
{
	for (size_t i = 0; i < v->n_syms; i++)
		if (is_function(v, i) && !strcmp(v->strings + v->syms[i].st_name, name))
			return v->syms[i].st_value;
	return 0;
}

static long syscall_for(const char *name)
{
	static const struct {
		const char *name;
		long nr;
	} table[] = {
		{ "clock_gettime", SYS_clock_gettime },
		{ "gettimeofday", SYS_gettimeofday },
		{ "time", SYS_time },
		{ "getcpu", SYS_getcpu },
		{ "clock_getres", SYS_clock_getres },
		{ "getrandom", SYS_getrandom },
	};

	if (!strncmp(name, "__vdso_", 7))
		name += 7;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(name, table[i].name))
			return table[i].nr;
	return -1;
}

/* movabs $target, %r11; jmp *%r11   or   mov $nr, %eax; syscall; ret */
static void patch(uint8_t *at, uint64_t target, long nr)
{
	if (target) {
		at[0] = 0x49;
		at[1] = 0xbb;
		memcpy(at + 2, &target, sizeof target);
		at[10] = 0x41;
		at[11] = 0xff;
		at[12] = 0xe3;
	} else {
		uint32_t n = (uint32_t)nr;

		at[0] = 0xb8;
		memcpy(at + 1, &n, sizeof n);
		at[5] = 0x0f;
		at[6] = 0x05;
		at[7] = 0xc3;
	}
}

static int patch_all(uint8_t *copy, const struct vdso_image *was, const struct vdso_image *now,
		     uint64_t now_at, struct err *err)
{
	for (size_t i = 0; i < was->n_syms; i++) {
		const char *name;
		uint64_t offset;
		long nr;

		if (!is_function(was, i))
			continue;
		name = was->strings + was->syms[i].st_name;
		offset = find(now, name);
		nr = syscall_for(name);
		if (!offset && nr < 0)
			return err_set(err, -EOPNOTSUPP,
				       "this kernel's vdso has no %s, which the job may use", name);
		patch(copy + was->syms[i].st_value, offset ? now_at + offset : 0, nr);
	}
	return 0;
}

static const struct vma *recorded_vdso(const struct process *p)
{
	for (unsigned i = 0; i < p->n_vmas; i++)
		if (p->vmas[i].kind == VMA_VDSO && p->vmas[i].path &&
		    !strcmp(p->vmas[i].path, "[vdso]"))
			return &p->vmas[i];
	return NULL;
}

/* Code inside of the old functions reads data pages that are no more. */
static int nobody_inside(const struct process *p, const struct vma *v, struct err *err)
{
	for (unsigned i = 0; i < p->n_threads; i++) {
		struct user_regs_struct gp;

		memcpy(&gp, p->threads[i].gregs.data, sizeof gp);
		if (gp.rip >= v->start && gp.rip < v->end) {
			err_set(err, -EOPNOTSUPP,
				"thread %d was inside the vdso of another kernel at the checkpoint",
				p->threads[i].tid);
			return err_hint(err, "try an earlier image with --at, or boot that kernel");
		}
	}
	return 0;
}

int vdso_bridge(struct restoring *r, struct build_process *bp, struct err *err)
{
	const struct blob *blob = &r->tree->host.vdso;
	const struct vma *v = recorded_vdso(bp->state);
	const uint8_t *ours = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
	uint64_t park = bp->ws.end + (1u << 20); /* plan_workspace left room there */
	struct vdso_image was, now;
	CLEANUP_FREE uint8_t *copy = malloc(blob->len + 1);
	uint64_t now_at = 0;
	size_t now_len = 0;
	int rc;

	if (!copy)
		return err_nomem(err);
	if (!v || v->end - v->start != blob->len)
		return err_image(err, -EINVAL,
				 "the image does not hold the vdso that it was made with");
	rc = nobody_inside(bp->state, v, err);
	if (rc == 0)
		rc = vdso_move_ours(r, bp, park, &now_at, &now_len, err);
	if (rc < 0)
		return rc;
	memcpy(copy, blob->data, blob->len);
	if (!ours || !parse(copy, blob->len, &was) || !parse(ours, now_len, &now))
		return err_set(err, -EOPNOTSUPP, "cannot read the symbols of the vdso");
	rc = patch_all(copy, &was, &now, now_at, err);
	if (rc < 0)
		return rc;
	batch_start(bp->batch);
	(void)batch_call(bp->batch, "map the old vdso", SYS_mmap, v->start, blob->len,
			 PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			 -1, 0);
	rc = batch_run(bp->batch, bp->pid, err);
	if (rc == 0 &&
	    poke_write(bp->pid, build_remote_mem(bp->remote), copy, blob->len, v->start) < 0)
		rc = err_set(err, -EFAULT, "cannot write the old vdso");
	return rc;
}
