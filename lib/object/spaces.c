/* SPDX-License-Identifier: BSD-2-Clause */
/* Spaces: contents that outlive a mapping or a descriptor, each recorded once however many share it. */
#include "object/object.h"

#include <stdio.h>
#include <unistd.h>

void space_key(char key[SPACE_KEY_LEN], enum space_kind kind, unsigned dev_major, unsigned dev_minor, uint64_t ino)
{
	(void)snprintf(key, SPACE_KEY_LEN, "%s:%x:%x:%llu", kind == SPACE_SHM ? "shm" : "file", dev_major, dev_minor,
		       (unsigned long long)ino);
}

uint32_t capture_space(struct capture *c, enum space_kind kind, const char *key, const char *name, uint64_t size,
		       int fd)
{
	uint32_t id = c->space_id(c->space_id_arg, key);
	struct space_source *source;
	struct space *s;

	for (unsigned i = 0; i < c->tree->n_spaces; i++) {
		if (c->tree->spaces[i].id != id)
			continue;
		if (fd >= 0)
			(void)close(fd);
		return id;
	}
	if (id) {
		s = arena_push(c->arena, &c->tree->spaces, &c->tree->n_spaces, sizeof *s);
		source = arena_push(c->arena, &c->sources, &c->n_sources, sizeof *source);
		if (s && source) {
			*s = (struct space){ .id = id, .kind = kind, .size = size, .name = arena_strdup(c->arena, name) };
			*source = (struct space_source){ .space = id, .fd = fd };
			return id;
		}
	}
	if (fd >= 0)
		(void)close(fd);
	return 0;
}

void capture_close_sources(struct capture *c)
{
	for (unsigned i = 0; i < c->n_sources; i++) {
		if (c->sources[i].fd >= 0)
			(void)close(c->sources[i].fd);
		c->sources[i].fd = -1;
	}
}
