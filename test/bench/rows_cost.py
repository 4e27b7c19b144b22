# SPDX-License-Identifier: BSD-2-Clause
"""Rows: what ckpt costs a whole run, and how its costs grow with threads, mappings and chains."""
import json
import os
import signal
import statistics
import time

from harness import DIRTY_1, Job, Unmeasured, read
from rows_image import restarts, warm
from rows_pause import add_pause, checkpoints, memory_job, ms, values

WORKLOADS = ("matmul", "stencil", "solver", "automaton")
WAYS = {"plain": ["--no-incremental", "--mode", "stop"],
        "incremental": ["--mode", "stop"],
        "snapshot": ["--no-incremental", "--mode", "snapshot"],
        "both": ["--mode", "snapshot"],
        "auto": []}


def row_slowdown(room, report, q):
    """A loop's own time: bare, between checkpoints, and with one every second."""
    for kind in ("compute", "memory", "call"):
        loop = [room.program("bench-loop"), kind]
        once, ten = (int(room.run(loop + [n])) for n in ("4000000", "40000000"))
        # nine tenths of the longer one; less where others kept the shorter one waiting
        loop.append(str(int(36e6 * q.loop_s * 1e9 / max(ten - once, ten / 2)) + 1))
        ways = {"bare": [], "between": [], "interval": []}
        for turn in range(q.runs):
            order = list(ways)
            for way in order[turn % 3:] + order[:turn % 3]:  # no way is always the first
                under = []
                if way != "bare":
                    under = [room.program("ckpt-run"), "-o", room.fresh("chain")]
                    under += ["--interval", "1"] if way == "interval" else []
                    under += ["--"]
                ways[way].append(int(room.run(under + loop)) / 1e9)
        bare = ("bare", ways["bare"])
        report.add(f"{kind} loop, between checkpoints", "s", ways["between"], None, bare, 1.002)
        report.add(f"{kind} loop, a checkpoint every second", "s", ways["interval"], None, bare)


def work_once(room, under, argv):
    """Seconds, those in the kernel, and the answer's sum."""
    ns, system_ns, answer = room.run(under + argv).split()
    return int(ns) / 1e9, int(system_ns) / 1e9, answer


def stopped_s(stats):
    """What the pauses of a run make together; and how many checkpoints there were."""
    lines = [json.loads(line) for line in read(stats).splitlines()]
    return sum(line["pause_us"] for line in lines) / 1e6, sum(
        line["result"] == "ok" for line in lines)


def overhead_of(room, report, q, kind, interval, seconds):
    argv = [room.program("bench-work"), kind, str(q.work_mib)]
    units = 500
    while True:  # as many units as take that long
        took, _, _ = work_once(room, [], argv + [str(units)])
        if took > 0.2:
            break
        units *= 4
    argv.append(str(int(units * seconds / took) + 1))
    ways = {"bare": [], **{w: [] for w in q.ways}}
    lost = {w: [] for w in ways}  # in the kernel and stopped
    answers = set()
    for turn in range(q.runs):
        order = list(ways)
        for way in order[turn % len(order):] + order[:turn % len(order)]:
            under, stats = [], room.fresh("stats")
            if way != "bare":
                under = [room.program("ckpt-run"), "-o", room.path("chain"), "--overwrite",
                         "--stats", stats, "--interval", str(interval), *WAYS[way], "--"]
            took, system, answer = work_once(room, under, argv)
            ways[way].append(took)
            lost[way].append(system + (stopped_s(stats)[0] if way != "bare" else 0))
            answers.add(answer)
    if len(answers) != 1:
        raise Unmeasured(f"{kind} gave different answers: {answers}")
    bare = statistics.median(lost["bare"])
    for way in q.ways:
        auto = way == "auto" and interval == 10
        report.add(f"{kind} {q.work_mib} MiB, every {interval:g} s, {way}", "s", ways[way], None,
                   ("bare", ways["bare"]), 1.01 if auto else None)
        report.add("  stopped, or in the kernel more than bare", "%",
                   [(x - bare) / took * 100 for x, took in zip(lost[way], ways[way])],
                   1 if auto else None)


def row_overhead_10(room, report, q):
    """Whole runs of libckpt's workloads with a checkpoint every 10 s."""
    for kind in q.workloads:
        overhead_of(room, report, q, kind, q.intervals[0], q.work_s[0])


def row_overhead_60(room, report, q):
    """The same every 60 s."""
    for kind in q.workloads:
        overhead_of(room, report, q, kind, q.intervals[1], q.work_s[1])


def stop_and_continue(job):
    """What SIGSTOP and SIGCONT take for the same program, in ms."""
    begin = time.monotonic()
    os.kill(job.pid, signal.SIGSTOP)
    os.waitpid(job.pid, os.WUNTRACED)
    os.kill(job.pid, signal.SIGCONT)
    return (time.monotonic() - begin) * 1e3


def add_cost(report, q, job, name, baseline=None, pause=None, restart=None):
    lines = checkpoints(job, q.runs)
    add_pause(report, f"{name}: pause as felt", lines, pause)
    report.add("  pause in --stats", "ms", ms(lines, "pause_us"), None, baseline)
    report.add("  durable", "s", values(lines, "durable_s"))
    report.add("  peak memory of ckpt-run", "MiB", [job.peak_kib() / 1024], 64)
    job.crash()
    report.add("  restart: first instruction", "s", restarts(job, q.runs, warm)[0], restart)
    return lines


def stop_and_resume(lines):
    return [(line["freeze_us"] + line["thaw_us"]) * 1e-3 for line in lines]


def row_threads(room, report, q):
    """1 to 1000 threads."""
    for n in q.threads:
        plain = Job(room, ["bench-threads", n])
        stops = [stop_and_continue(plain) for _ in range(q.runs)]
        plain.discard()
        job = Job(room, ["bench-threads", n], ["--no-incremental"])
        job.checkpoint()
        lines = add_cost(report, q, job, f"{n} threads")
        report.add("  of it, to stop and to resume", "ms", stop_and_resume(lines),
                   60 if n == 1000 else None, ("SIGSTOP", stops))
        job.discard()


def row_tree(room, report, q):
    """Trees of 1 to 1000 processes, with threads and descriptors."""
    for processes, threads, fds in q.trees:
        job = Job(room, ["bench-tree", processes, threads, fds], [])
        job.checkpoint()
        add_cost(report, q, job, f"{processes} processes of {threads} threads, {fds} descriptors",
                 pause=150 if processes == 100 else None,
                 restart=0.5 if processes == 100 else None)
        job.discard()


def row_mappings(room, report, q):
    """10 to 20,000 mappings."""
    for n in q.mappings_all:
        job = Job(room, ["bench-many", n, 10], ["--no-incremental"])
        job.checkpoint()
        smaps = []
        for _ in range(q.runs):
            begin = time.monotonic()
            read(f"/proc/{job.pid}/smaps")
            smaps.append((time.monotonic() - begin) * 1e3)
        add_cost(report, q, job, f"{n} mappings", ("reading smaps", smaps))
        job.discard()


def row_descriptors(room, report, q):
    """1000 descriptors."""
    job = Job(room, ["bench-many", 10, q.fds], ["--no-incremental"])
    job.checkpoint()
    add_cost(report, q, job, f"{q.fds} descriptors", None)
    job.discard()


def row_chain(room, report, q):
    """A checkpoint and a restart at the end of chains of 1 to 200 images."""
    job = memory_job(room, q.chain_mib, 0, "4K", ["--full-every", "1000000"])
    length, alone = 0, None
    for n in q.chains:
        lines = checkpoints(job, n - length, lambda: job.order(DIRTY_1))[-q.runs:]
        length = n
        add_pause(report, f"chain of {n}, {q.chain_mib} MiB, 1 % each: pause as felt", lines)
        report.add("  durable", "s", values(lines, "durable_s"))
        first = restart_copy(room, q, job)
        alone = alone or first
        report.add("  restart: first instruction", "s", first, None, ("chain of 1", alone))
    job.discard()


def restart_copy(room, q, job):
    """Restarts of the chain as it is now, while the job goes on: from a copy."""
    twin = object.__new__(Job)
    twin.__dict__.update(job.__dict__)
    twin.chain = room.fresh("twin")
    room.run(["cp", "-r", "--reflink=auto", job.chain, twin.chain])
    os.kill(job.pid, signal.SIGSTOP)  # its log must not have the other's gaps
    try:
        return restarts(twin, q.runs, warm)[0]
    finally:
        os.kill(job.pid, signal.SIGCONT)
        room.run(["rm", "-rf", twin.chain])


ROWS = {"slowdown": row_slowdown, "overhead-10": row_overhead_10, "overhead-60": row_overhead_60,
        "threads": row_threads, "tree": row_tree, "mappings": row_mappings,
        "descriptors": row_descriptors, "chain": row_chain}
