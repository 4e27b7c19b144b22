/* SPDX-License-Identifier: BSD-2-Clause */
/* The labelled lines below a mapping in /proc/PID/smaps, VmFlags above all. */
#include "proc/smaps.h"

#include "proc/text.h"
#include "util/cleanup.h"

#define CODE(a, b) ((unsigned)(a) << 8 | (unsigned)(b))

/* proc_pid_smaps(5), "VmFlags"; those that a restart need not bring back are left out. */
static const struct {
	unsigned code;
	uint32_t advice;
} codes[] = {
	{ CODE('d', 'c'), ADVICE_DONTFORK },     { CODE('d', 'd'), ADVICE_DONTDUMP },
	{ CODE('h', 'g'), ADVICE_HUGEPAGE },     { CODE('n', 'h'), ADVICE_NOHUGEPAGE },
	{ CODE('m', 'g'), ADVICE_MERGEABLE },    { CODE('w', 'f'), ADVICE_WIPEONFORK },
	{ CODE('l', 'o'), ADVICE_LOCKED },       { CODE('l', 'f'), ADVICE_LOCKONFAULT },
	{ CODE('s', 'r'), ADVICE_SEQUENTIAL },   { CODE('r', 'r'), ADVICE_RANDOM },
	{ CODE('n', 'r'), ADVICE_NORESERVE },    { CODE('g', 'd'), ADVICE_GROWSDOWN },
	{ CODE('s', 'l'), ADVICE_SEALED },       { CODE('d', 'p'), ADVICE_DROPPABLE },
	{ CODE('h', 't'), ADVICE_HUGETLB },      { CODE('s', 'f'), ADVICE_SYNC },
	{ CODE('u', 'm'), ADVICE_UFFD_MISSING }, { CODE('u', 'w'), ADVICE_UFFD_WP },
	{ CODE('u', 'i'), ADVICE_UFFD_MISSING }, /* minor faults: a userfaultfd of the program's own
						    as well */
	{ CODE('a', 'c'), ADVICE_ACCOUNT },      { CODE('m', 'w'), ADVICE_MAYWRITE },
	{ CODE('i', 'o'), ADVICE_IO },           { CODE('p', 'f'), ADVICE_IO },
};

static uint32_t read_flags(const char *p)
{
	uint32_t advice = 0;

	for (p = text_blanks(p); p[0] && p[1]; p = text_blanks(p + 2)) {
		unsigned code = CODE((unsigned char)p[0], (unsigned char)p[1]);

		for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
			if (codes[i].code == code)
				advice |= codes[i].advice;
	}
	return advice;
}

static uint64_t read_kb(const char *p)
{
	uint64_t kb;

	return text_u64(p, 10, &kb) && kb <= UINT64_MAX / 1024 ? kb * 1024 : 0;
}

void smaps_line(char *line, struct proc_map *m)
{
	uint64_t key;
	char *p;

	switch (line[0]) { /* 25 lines a mapping, and four that matter */
	case 'R':
		if ((p = text_after(line, "Rss:")))
			m->rss_bytes = read_kb(p);
		break;
	case 'S':
		if ((p = text_after(line, "Swap:")))
			m->swap_bytes = read_kb(p);
		break;
	case 'P':
		if ((p = text_after(line, "ProtectionKey:")) && text_u64(p, 10, &key))
			m->pkey = (uint32_t)key;
		break;
	case 'V':
		if ((p = text_after(line, "VmFlags:"))) {
			m->advice = read_flags(p);
			m->has_flags = true;
		}
		break;
	}
}
