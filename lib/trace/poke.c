/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to a tracee's memory where it may not write itself. */
#include "trace/poke.h"

#include "proc/probe.h"
#include "util/cleanup.h"
#include "util/io.h"

#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* The bytes of one word, the others of which stay. */
static int poke_word(pid_t tid, const uint8_t *p, size_t len, uint64_t word_addr, size_t at)
{
	void *addr = (void *)(uintptr_t)word_addr;
	long word = 0;

	if (len < sizeof word) {
		errno = 0;
		word = ptrace(PTRACE_PEEKDATA, tid, addr, NULL);
		if (word == -1 && errno)
			return -errno;
	}
	memcpy((uint8_t *)&word + at, p, len);
	return ptrace(PTRACE_POKEDATA, tid, addr, word) < 0 ? -errno : 0;
}

static int poke_all(pid_t tid, const uint8_t *p, size_t len, uint64_t addr)
{
	int rc = 0;

	while (rc == 0 && len > 0) {
		size_t at = addr % sizeof(long);
		size_t n = MIN(len, sizeof(long) - at);

		rc = poke_word(tid, p, n, addr - at, at);
		p += n;
		addr += n;
		len -= n;
	}
	return rc;
}

/* CKPT_WITHOUT=proc_mem: what is left is what the process itself may do. */
static int write_unforced(pid_t tid, const void *p, size_t len, uint64_t addr)
{
	struct iovec from = { (void *)(uintptr_t)p, len };
	struct iovec to = { (void *)(uintptr_t)addr, len };

	return process_vm_writev(tid, &from, 1, &to, 1, 0) == (ssize_t)len ? 0 : -EIO;
}

int poke_write(pid_t tid, int mem_fd, const void *p, size_t len, uint64_t addr)
{
	int rc = probe_without("proc_mem") ? write_unforced(tid, p, len, addr)
					   : io_pwrite_full(mem_fd, p, len, addr);

	return rc == -EIO || rc == -EFAULT ? poke_all(tid, p, len, addr) : rc;
}
