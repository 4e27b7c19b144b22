# SPDX-License-Identifier: BSD-2-Clause
"""Rows: what a job feels of a checkpoint, by size, kind of page, what it has changed, and mode."""
import time

from harness import DIRTY_1, DIRTY_10, DIRTY_50, DIRTY_ALL, Job, MIB, Unmeasured

PARTS = ("freeze_us", "scan_us", "snapshot_us", "thaw_us")


def checkpoints(job, n, between=lambda: None):
    lines = []
    for _ in range(n):
        between()
        lines.append(job.checkpoint())
    return lines


def values(lines, key, scale=1.0):
    return [line[key] * scale for line in lines]


def ms(lines, key):
    return values(lines, key, 1e-3)


def modes(room):
    """Those that this ckpt-run has."""
    text = room.run([room.program("ckpt-run"), "--help"])
    return [m for m in ("stop", "snapshot", "precopy") if m in text]


def add_pause(report, name, lines, target=None, plot=None):
    report.add(name, "ms", ms(lines, "felt_us"), target, ("--stats", ms(lines, "pause_us")),
               parts={k.removesuffix("_us"): ms(lines, k) for k in PARTS}, plot=plot)


def memory_job(room, mib, rate, pages, options):
    argv = ["bench-memory", mib, rate] + ([] if pages == "4K" else [pages])
    return Job(room, argv, ["--keep", "1", *options])


def full_pauses(room, report, q, mib, pages):
    """Full images while the job rewrites 100 MiB/s, in each mode."""
    for mode in modes(room):
        job = memory_job(room, mib, 100, pages, ["--no-incremental", "--mode", mode])
        job.checkpoint()
        lines = checkpoints(job, q.runs, lambda: time.sleep(q.between_s))
        used = {line["mode"] for line in lines}
        target = {"snapshot": 40, "precopy": 5}.get(mode) if (mib, pages) == (1024, "4K") else None
        add_pause(report, f"{mib} MiB, {pages}, full, {mode}: pause as felt", lines, target,
                  (f"full, {mode}, {pages}", mib))
        if used != {mode}:
            report.add(f"  (done by {', '.join(sorted(used))} instead)", "", [len(lines)])
        job.discard()


def increments_only(room):
    """Also where nearly all has changed; by the best tracker."""
    job = Job(room, ["bench-memory", 8, 0], [])
    tracker = job.checkpoint()["tracker"]
    job.discard()
    return ["--full-every", "1000000", "--tracker", tracker]


def increment_pauses(room, report, q, mib, pages):
    """Increments after a known part of the pages was changed."""
    felt = {}
    job = memory_job(room, mib, 0, pages, increments_only(room))
    job.checkpoint()
    for what, order in (("0 %", None), ("1 %", DIRTY_1), ("10 %", DIRTY_10), ("50 %", DIRTY_50),
                        ("all", DIRTY_ALL)):
        lines = checkpoints(job, q.runs, lambda o=order: o and job.order(o))
        if any(line["kind"] != "incremental" for line in lines):
            raise Unmeasured("a full image came instead of an increment")
        at_gib = (mib, pages) == (1024, "4K")
        target = {"0 %": 3, "10 %": 10}.get(what) if at_gib else None
        add_pause(report, f"{mib} MiB, {pages}, {what} dirty: pause as felt", lines, target,
                  (f"{what} dirty, {pages}", mib) if what in ("0 %", "10 %") else None)
        felt[what] = ms(lines, "felt_us")
    job.discard()
    return felt["0 %"]


def pauses(room, report, q, pages):
    clean = {}
    for mib in q.sizes:
        full_pauses(room, report, q, mib, pages)
        clean[mib] = increment_pauses(room, report, q, mib, pages)
    small, big = q.sizes[-2:]
    gib = (big - small) / 1024
    report.add(f"growth for each further GiB that is not dirty, {pages}", "ms",
               [(b - a) / gib for a, b in zip(sorted(clean[small]), sorted(clean[big]))],
               2 if pages == "4K" else None)


def row_pause(room, report, q):
    """Pause in 4 KiB pages: full by each mode, and increments, for each size."""
    pauses(room, report, q, "4K")


def row_pause_huge(room, report, q):
    """The same in huge pages."""
    pauses(room, report, q, "huge")


def row_increments(room, report, q):
    """Increments by each tracker: until durable, and stored."""
    for tracker in ("auto", "hash"):
        job = memory_job(room, q.mib, 0, "4K", ["--tracker", tracker, "--full-every", "1000000"])
        full = job.checkpoint()
        for what, order in (("10 %", DIRTY_10), ("1 %", DIRTY_1), ("0 %", None)):
            lines = checkpoints(job, q.runs, lambda o=order: o and job.order(o))
            name = f"{what} of {q.mib} MiB, {lines[-1]['tracker']}"
            report.add(f"{name}: durable", "s", values(lines, "durable_s"), None,
                       ("full", [full["durable_s"]]))
            add_pause(report, "  pause as felt", lines)
            report.add("  stored", "MiB", values(lines, "bytes_stored", 1 / MIB))
        report.add("  peak memory of ckpt-run", "MiB", [job.peak_kib() / 1024], 64)
        job.discard()


ROWS = {"pause": row_pause, "pause-huge": row_pause_huge, "increments": row_increments}
