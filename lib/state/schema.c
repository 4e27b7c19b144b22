/* SPDX-License-Identifier: BSD-2-Clause */
/* The field tables of every struct in state/tree.h: with schema_files.c, for those of
 * state/files.h, the one place that lists what an image records.
 */
#include "state/tree.h"

#include "state/schema_rows.h"

#define T struct range
static const struct field range_schema_fields[] = { HEX(T, start), HEX(T, end) };
static SCHEMA(range_schema, "range", T);
#undef T

#define T struct space
static const struct field space_schema_fields[] = { VAL(T, id),    VAL(T, kind), VAL(T, size),
						    VAL(T, name),  VAL(T, path), VAL(T, file_size),
						    OCT(T, mode),  VAL(T, uid),  VAL(T, gid),
						    VAL(T, mapped) };
static SCHEMA(space_schema, "space", T);
#undef T

#define T struct vma
static const struct field vma_schema_fields[] = {
	HEX(T, start),
	HEX(T, end),
	VAL(T, kind),
	HEX(T, prot),
	HEX(T, flags),
	HEX(T, advice),
	HEX(T, offset),
	VAL(T, path),
	HEX(T, dev),
	VAL(T, ino),
	VAL(T, file_size),
	VAL(T, file_mtime_ns),
	VAL(T, build_id),
	VAL(T, shm_space),
	VAL(T, file),
	VAL(T, pkey),
	LIST(T, guards, range_schema),
	VAL(T, anon_name),
};
static SCHEMA(vma_schema, "vma", T);
#undef T

#define T struct mm_layout
static const struct field mm_schema_fields[] = {
	HEX(T, start_code), HEX(T, end_code),  HEX(T, start_data),  HEX(T, end_data),
	HEX(T, start_brk),  HEX(T, brk),       HEX(T, start_stack), HEX(T, arg_start),
	HEX(T, arg_end),    HEX(T, env_start), HEX(T, env_end),     VAL(T, auxv),
};
static SCHEMA(mm_schema, "mm", T);
#undef T

#define T struct pending_signal
static const struct field pending_schema_fields[] = { VAL(T, siginfo) };
static SCHEMA(pending_schema, "pending", T);
#undef T

#define T struct thread
static const struct field thread_schema_fields[] = {
	VAL(T, tid),
	VAL(T, gregs),
	VAL(T, xstate),
	VAL(T, syscall_nr),
	HEX(T, sigmask),
	HEX(T, altstack_sp),
	VAL(T, altstack_size),
	HEX(T, altstack_flags),
	HEX(T, robust_list),
	VAL(T, robust_list_len),
	HEX(T, clear_child_tid),
	HEX(T, rseq_ptr),
	VAL(T, rseq_len),
	HEX(T, rseq_sig),
	HEX(T, rseq_flags),
	VAL(T, comm),
	VAL(T, sched_policy),
	VAL(T, sched_priority),
	HEX(T, sched_flags),
	VAL(T, nice),
	VAL(T, sched_runtime),
	VAL(T, sched_deadline),
	VAL(T, sched_period),
	VAL(T, affinity),
	VAL(T, timer_slack_ns),
	VAL(T, parent_death_signal),
	HEX(T, ioprio),
	LIST(T, pending, pending_schema),
	HEX(T, personality),
};
static SCHEMA(thread_schema, "thread", T);
#undef T

#define T struct sigaction_state
static const struct field sigaction_schema_fields[] = {
	VAL(T, signo), HEX(T, handler), HEX(T, flags), HEX(T, restorer), HEX(T, mask),
};
static SCHEMA(sigaction_schema, "sigaction", T);
#undef T

#define T struct itimer_state
static const struct field itimer_schema_fields[] = { VAL(T, which), VAL(T, value_us),
						     VAL(T, interval_us) };
static SCHEMA(itimer_schema, "itimer", T);
#undef T

#define T struct posix_timer
static const struct field timer_schema_fields[] = {
	VAL(T, id),         VAL(T, clockid),  VAL(T, notify),      VAL(T, signo),   HEX(T, sigval),
	VAL(T, notify_tid), VAL(T, value_ns), VAL(T, interval_ns), VAL(T, overrun),
};
static SCHEMA(timer_schema, "timer", T);
#undef T

#define T struct rlimit_state
static const struct field rlimit_schema_fields[] = { VAL(T, resource), VAL(T, soft), VAL(T, hard) };
static SCHEMA(rlimit_schema, "rlimit", T);
#undef T

#define T struct posix_lock
static const struct field posix_lock_schema_fields[] = { VAL(T, file), VAL(T, write), VAL(T, start),
							 VAL(T, len) };
static SCHEMA(posix_lock_schema, "posix_lock", T);
#undef T

#define T struct fd
static const struct field fd_schema_fields[] = { VAL(T, fd), VAL(T, cloexec), VAL(T, file) };
static SCHEMA(fd_schema, "fd", T);
#undef T

#define T struct cred_id
static const struct field cred_id_schema_fields[] = { VAL(T, id) };
static SCHEMA(cred_id_schema, "id", T);
#undef T

#define T struct credentials
static const struct field creds_schema_fields[] = {
	VAL(T, ruid),         VAL(T, euid),    VAL(T, suid),
	VAL(T, fsuid),        VAL(T, rgid),    VAL(T, egid),
	VAL(T, sgid),         VAL(T, fsgid),   LIST(T, groups, cred_id_schema),
	HEX(T, cap_inh),      HEX(T, cap_prm), HEX(T, cap_eff),
	HEX(T, cap_bnd),      HEX(T, cap_amb), HEX(T, securebits),
	VAL(T, no_new_privs),
};
static SCHEMA(creds_schema, "creds", T);
#undef T

#define T struct sem_undo
static const struct field sem_undo_schema_fields[] = { VAL(T, id), VAL(T, num), VAL(T, adjust) };
static SCHEMA(sem_undo_schema, "sem_undo", T);
#undef T

#define T struct process
static const struct field process_schema_fields[] = {
	VAL(T, pid),
	VAL(T, ppid),
	VAL(T, pgid),
	VAL(T, sid),
	VAL(T, space),
	VAL(T, exe),
	VAL(T, cwd),
	VAL(T, root),
	VAL(T, exe_size),
	VAL(T, exe_mtime_ns),
	OCT(T, umask),
	VAL(T, dumpable),
	VAL(T, child_subreaper),
	VAL(T, thp_disable),
	VAL(T, oom_score_adj),
	SUB(T, creds, creds_schema),
	SUB(T, mm, mm_schema),
	LIST(T, vmas, vma_schema),
	LIST(T, threads, thread_schema),
	LIST(T, fds, fd_schema),
	LIST(T, sigactions, sigaction_schema),
	LIST(T, pending, pending_schema),
	LIST(T, itimers, itimer_schema),
	LIST(T, timers, timer_schema),
	LIST(T, rlimits, rlimit_schema),
	LIST(T, posix_locks, posix_lock_schema),
	VAL(T, stopped),
	VAL(T, next_timer_id),
	HEX(T, coredump_filter),
	VAL(T, exit_signal),
	VAL(T, files_of),
	VAL(T, fs_of),
	VAL(T, sighand_of),
	VAL(T, stop_seen),
	HEX(T, xfeatures_asked),
	VAL(T, cgroup),
	LIST(T, sem_undos, sem_undo_schema),
	VAL(T, leader_ended),
	VAL(T, leader_status),
	LIST(T, huge, range_schema),
	HEX(T, mlock_future),
	VAL(T, continued),
};
static SCHEMA(process_schema, "process", T);
#undef T

#define T struct zombie
static const struct field zombie_schema_fields[] = {
	VAL(T, pid),    VAL(T, ppid),        VAL(T, pgid), VAL(T, sid),
	VAL(T, status), VAL(T, exit_signal), VAL(T, comm),
};
static SCHEMA(zombie_schema, "zombie", T);
#undef T

#define T struct host
static const struct field host_schema_fields[] = {
	VAL(T, release),     VAL(T, version),      VAL(T, machine),     VAL(T, nodename),
	VAL(T, boot_id),     VAL(T, cpu_model),    HEX(T, xfeatures),   VAL(T, xsave_size),
	VAL(T, realtime_ns), VAL(T, monotonic_ns), VAL(T, boottime_ns), VAL(T, vdso),
};
static SCHEMA(host_schema, "host", T);
#undef T

#define T struct string
static const struct field string_schema_fields[] = { VAL(T, s) };
static SCHEMA(string_schema, "string", T);
#undef T

#define T struct fd_rule
static const struct field fd_rule_schema_fields[] = { VAL(T, fd), VAL(T, action) };
static SCHEMA(fd_rule_schema, "fd_rule", T);
#undef T

#define T struct settings
static const struct field settings_schema_fields[] = {
	VAL(T, name),
	LIST(T, argv, string_schema),
	VAL(T, interval_ns),
	VAL(T, full_every),
	VAL(T, incremental),
	VAL(T, keep),
	VAL(T, compress),
	VAL(T, snapshot),
	VAL(T, on_term),
	VAL(T, tracker),
	VAL(T, stats),
	VAL(T, mtbf_ns),
	VAL(T, max_overhead),
	LIST(T, fd_rules, fd_rule_schema),
	VAL(T, close_unsupported),
	VAL(T, deny_io_uring),
	VAL(T, tcp_repair),
};
static SCHEMA(settings_schema, "settings", T);
#undef T

#define T struct terminal_state
static const struct field terminal_schema_fields[] = { VAL(T, path), VAL(T, termios), VAL(T, rows),
						       VAL(T, columns), VAL(T, group) };
static SCHEMA(terminal_schema, "terminal", T);
#undef T

#define T struct sysv_shm
static const struct field shm_schema_fields[] = {
	VAL(T, id),  VAL(T, key),  OCT(T, mode),  VAL(T, uid),
	VAL(T, gid), VAL(T, size), VAL(T, space), VAL(T, removed),
};
static SCHEMA(shm_schema, "shm", T);
#undef T

#define T struct sysv_sem
static const struct field sem_schema_fields[] = { VAL(T, id),  VAL(T, key), OCT(T, mode),
						  VAL(T, uid), VAL(T, gid), VAL(T, values) };
static SCHEMA(sem_schema, "sem", T);
#undef T

#define T struct sysv_message
static const struct field message_schema_fields[] = { VAL(T, type), VAL(T, data) };
static SCHEMA(message_schema, "message", T);
#undef T

#define T struct sysv_msg
static const struct field queue_schema_fields[] = {
	VAL(T, id),
	VAL(T, key),
	OCT(T, mode),
	VAL(T, uid),
	VAL(T, gid),
	VAL(T, max_bytes),
	LIST(T, messages, message_schema),
};
static SCHEMA(queue_schema, "queue", T);
#undef T

#define T struct tree
static const struct field tree_schema_fields[] = {
	VAL(T, seq),
	SUB(T, host, host_schema),
	SUB(T, settings, settings_schema),
	LIST(T, spaces, space_schema),
	LIST(T, files, file_schema),
	LIST(T, processes, process_schema),
	SUB(T, terminal, terminal_schema),
	LIST(T, zombies, zombie_schema),
	LIST(T, shms, shm_schema),
	LIST(T, sems, sem_schema),
	LIST(T, queues, queue_schema),
};
SCHEMA(tree_schema, "tree", T);
#undef T

const char *vma_kind_name(uint32_t kind)
{
	static const char *const names[] = { "unknown", "anonymous", "file",
					     "shared",  "vdso",      "vsyscall" };

	return kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

const struct file *tree_file(const struct tree *t, uint32_t id)
{
	for (unsigned i = 0; i < t->n_files; i++)
		if (t->files[i].id == id)
			return &t->files[i];
	return NULL;
}

const struct space *tree_space(const struct tree *t, uint32_t id)
{
	for (unsigned i = 0; i < t->n_spaces; i++)
		if (t->spaces[i].id == id)
			return &t->spaces[i];
	return NULL;
}
