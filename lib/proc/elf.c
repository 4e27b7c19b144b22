/* SPDX-License-Identifier: BSD-2-Clause */
/* The GNU build id of an ELF file, from its PT_NOTE segments (elf(5)); the file is not trusted. */
#include "proc/elf.h"

#include "util/cleanup.h"
#include "util/io.h"

#include <elf.h>
#include <stdbool.h>
#include <string.h>

#define MAX_NOTES_BYTES 65536
#define MAX_PHDRS       256

static bool find_in_notes(const uint8_t *p, size_t len, struct arena *a, struct blob *ret)
{
	while (len >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		size_t name, desc;

		memcpy(&n, p, sizeof n);
		name = ((size_t)n.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)n.n_descsz + 3) & ~(size_t)3;
		if (name > len - sizeof n || desc > len - sizeof n - name)
			return false;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 &&
		    !memcmp(p + sizeof n, "GNU", 4)) {
			ret->data = arena_memdup(a, p + sizeof n + name, n.n_descsz);
			ret->len = ret->data ? n.n_descsz : 0;
			return true;
		}
		p += sizeof n + name + desc;
		len -= sizeof n + name + desc;
	}
	return false;
}

void proc_build_id(int fd, struct arena *a, struct blob *ret)
{
	CLEANUP_FREE uint8_t *notes = NULL;
	Elf64_Ehdr eh;

	*ret = (struct blob){ 0 };
	if (io_pread_full(fd, &eh, sizeof eh, 0) != (ssize_t)sizeof eh ||
	    memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_phentsize != sizeof(Elf64_Phdr))
		return;
	for (unsigned i = 0; i < eh.e_phnum && i < MAX_PHDRS; i++) {
		Elf64_Phdr ph;
		ssize_t n;

		if (io_pread_full(fd, &ph, sizeof ph, eh.e_phoff + i * sizeof ph) !=
		    (ssize_t)sizeof ph)
			return;
		if (ph.p_type != PT_NOTE)
			continue;
		free(notes);
		notes = malloc(MAX_NOTES_BYTES);
		if (!notes)
			return;
		n = io_pread_full(fd, notes, MIN(ph.p_filesz, MAX_NOTES_BYTES), ph.p_offset);
		if (n > 0 && find_in_notes(notes, (size_t)n, a, ret))
			return;
	}
}
