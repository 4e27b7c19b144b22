# SPDX-License-Identifier: BSD-2-Clause
"""Rows: writing, sizes, restarting and merging, beside dd and lz4 on the same disk."""
import os
import re
import time

from harness import DIRTY_10, Job, MIB, Unmeasured, marked, read, wait_until
from rows_pause import add_pause, checkpoints, memory_job, values


def dd(room, source, target, *flags):
    begin = time.monotonic()
    room.run(["dd", f"if={source}", f"of={target}", "bs=4M", "status=none", *flags])
    return time.monotonic() - begin


def random_file(room, mib):
    path = room.path("random")
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(MIB))
        f.flush()
        os.fsync(f.fileno())
    os.chmod(path, 0o644)
    return path


def evict(paths):
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def warm(paths):
    for path in paths:
        with open(path, "rb") as f:
            while f.read(MIB):
                pass


def row_write(room, report, q):
    """Full images of random memory, beside dd of as many random bytes to the same disk."""
    source = random_file(room, q.mib)
    direct, synced = [], []

    def dd_once():
        copy = room.path("copy")
        direct.append(dd(room, source, copy, "oflag=direct"))
        synced.append(dd(room, source, copy, "oflag=direct", "conv=fsync"))
        os.unlink(copy)

    for compress in ("none", "lz4", "auto"):
        job = memory_job(room, q.mib, 0, "4K", ["--no-incremental", "--compress", compress])
        job.checkpoint()  # the first one warms up both
        dd_once()
        del direct[:], synced[:]
        lines = checkpoints(job, q.runs, dd_once)
        raw = compress == "none"
        report.add(f"full {q.mib} MiB, {compress}: durable", "s", values(lines, "durable_s"),
                   2.5 if compress == "lz4" else None, ("dd direct", list(direct)),
                   1.25 if raw else None)
        if raw:
            report.add("  beside dd that syncs", "s", values(lines, "durable_s"), None,
                       ("dd direct+fsync", list(synced)))
        report.add("  throughput", "MiB/s", [q.mib / x for x in values(lines, "durable_s")], None,
                   ("dd direct", [q.mib / x for x in direct]))
        add_pause(report, "  pause as felt", lines)
        report.add("  peak memory of ckpt-run", "MiB", [job.peak_kib() / 1024], 64)
        job.discard()
    os.unlink(source)


def row_writing(room, report, q):
    """The same under a program that goes on rewriting 100 MB a second."""
    for name, options in (("full", ["--no-incremental"]), ("increment", ["--full-every", "1000"])):
        job = memory_job(room, q.mib, 100, "4K", options)
        job.checkpoint()
        lines = checkpoints(job, q.runs, lambda: time.sleep(q.between_s))
        report.add(f"{name} of {q.mib} MiB, 100 MiB/s rewritten: durable", "s",
                   values(lines, "durable_s"))
        add_pause(report, f"  pause as felt ({lines[-1]['mode']})", lines)
        report.add("  peak memory of ckpt-run", "MiB", [job.peak_kib() / 1024], 64)
        job.discard()


def memory_file(room, job):
    """The job's private memory as one file, as lz4 would be given it."""
    path = room.path("memory")
    with open(f"/proc/{job.pid}/maps", encoding="ascii") as maps, \
            open(f"/proc/{job.pid}/mem", "rb") as mem, open(path, "wb") as out:
        for line in maps:
            span, prot, _, _, inode, *name = line.split()
            start, end = (int(x, 16) for x in span.split("-"))
            # anonymous memory may be read-only by now, and is in the image all the same
            mine = prot.startswith("rw") or (prot.startswith("r-") and inode == "0")
            if not mine or prot[3] != "p" or (name and name[0].startswith(("[v", "[u"))):
                continue
            mem.seek(start)
            while start < end:
                data = mem.read(min(MIB, end - start))
                if not data:
                    break
                out.write(data)
                start += len(data)
    os.chmod(path, 0o644)
    return path


def row_size(room, report, q):
    """An image's size beside the raw memory and what `lz4 -1` makes of it."""
    for kind, argv in (("random memory", ["bench-memory", q.mib // 4, 0]),
                       ("many small mappings", ["bench-many", q.mappings, 10])):
        for compress in ("none", "lz4"):
            job = Job(room, argv, ["--no-incremental", "--compress", compress, "--keep", "1"])
            line = job.checkpoint()
            path = memory_file(room, job)
            raw = os.path.getsize(path) / MIB
            if compress == "lz4":
                room.run(["lz4", "-1", "-q", "-f", path, path + ".lz4"])
                raw = os.path.getsize(path + ".lz4") / MIB
                os.unlink(path + ".lz4")
            os.unlink(path)
            report.add(f"image of {kind}, {compress}", "MiB", [line["bytes_stored"] / MIB], None,
                       ("raw" if compress == "none" else "lz4 -1", [raw]))
            job.discard()


def restarts(job, n, prepare, *options):
    first, last = [], []
    for _ in range(n):
        prepare(job.images())
        a, b = job.restart(*options)
        first.append(a)
        last.append(b)
    return first, last


def add_restart(room, report, q, job, compress, state, prepare):
    reading = []

    def before(images):
        prepare(images)
        begin = time.monotonic()
        warm(images)
        reading.append(time.monotonic() - begin)
        prepare(images)
    target = {"none": 0.25, "lz4": 0.45}[compress] if state == "warm" else None
    name = f"restart {q.mib} MiB, {compress}, {state}"
    first, last = restarts(job, q.runs, before)
    report.add(f"{name}: first instruction", "s", first, target, ("read image", reading))
    report.add("  last page", "s", last)
    if not room.option("ckpt-restart", "--lazy"):
        return
    try:
        first, last = restarts(job, q.runs, prepare, "--lazy")
    except Unmeasured as e:
        report.add(f"  --lazy: not here ({e})"[:48], "", [0])
        return
    report.add("  --lazy: first instruction", "s", first, 0.02)
    report.add("  --lazy: last page", "s", last)


def row_restart(room, report, q):
    """Back to the first instruction and the last page, the image in the page cache or not."""
    for compress in ("none", "lz4"):
        job = memory_job(room, q.mib, 0, "4K", ["--no-incremental", "--compress", compress])
        job.checkpoint()
        job.crash()
        for state, prepare in (("warm", warm), ("cold", evict)):
            add_restart(room, report, q, job, compress, state, prepare)
        job.discard()
    restart_huge(room, report, q)
    restart_shared(room, report, q)


def huge_mib(pid):
    found = re.search(r"^AnonHugePages:\s+(\d+) kB", read(f"/proc/{pid}/smaps_rollup"), re.M)
    return int(found.group(1)) / 1024 if found else 0


def is_untraced(pid):
    return "TracerPid:\t0\n" in read(f"/proc/{pid}/status")


def restart_huge(room, report, q):
    """Transparent huge pages: how many are there again, beside how many there were."""
    job = memory_job(room, q.mib, 0, "huge", ["--no-incremental", "--compress", "none"])
    before = huge_mib(job.pid)
    job.checkpoint()
    job.crash()
    for options in ((), ("--lazy",)):
        first, last, after = [], [], []

        def count(pid):
            wait_until("ckpt-keeper", lambda: is_untraced(pid) or None)
            # they are joined from then on, by a process of ckpt-restart's
            wait_until("the mender", lambda: None if any(
                "ckpt-mender" in read(f"/proc/{p}/comm") for p in marked(room.dir)) else True)
            after.append(huge_mib(pid))

        for _ in range(q.runs):
            warm(job.images())
            a, b = job.restart(*options, at_end=count)
            first.append(a)
            last.append(b)
        name = f"restart {q.mib} MiB, huge pages{', ' + options[0] if options else ''}"
        report.add(f"{name}: first instruction", "s", first)
        report.add("  last page", "s", last)
        report.add("  AnonHugePages", "MiB", after, None, ("before", [before]))
    job.discard()


def restart_shared(room, report, q):
    """--lazy with shared memory: what only mappings lead to comes late, an open memfd first."""
    for kind in ("shared", "memfd"):
        job = memory_job(room, q.mib, 0, kind, ["--no-incremental", "--compress", "none"])
        job.checkpoint()
        job.crash()
        first, last = restarts(job, q.runs, warm, "--lazy")
        name = "shared anonymous memory" if kind == "shared" else "an open memfd"
        report.add(f"restart --lazy, {q.mib} MiB of {name}: first instruction", "s", first)
        report.add("  last page", "s", last)
        job.discard()


def row_merge(room, report, q):
    """A full image and increments of 10 % merged into one, beside dd of the result's size."""
    for compress in ("none", "lz4"):
        times, copies, size = [], [], 0
        job = memory_job(room, q.mib, 0, "4K",
                         ["--full-every", "1000000", "--compress", compress])
        job.checkpoint()
        checkpoints(job, 5, lambda: job.order(DIRTY_10))
        job.crash()
        for _ in range(q.runs):
            merged, copy = room.fresh("merged"), room.fresh("copy")
            begin = time.monotonic()
            room.run([room.program("ckpt-merge"), "-q", "-o", merged, job.chain])
            times.append(time.monotonic() - begin)
            size = os.path.getsize(merged) / MIB
            copies.append(dd(room, merged, copy, "iflag=direct", "oflag=direct", "conv=fsync"))
            os.unlink(merged)
            os.unlink(copy)
        report.add(f"merge of 6 images, {q.mib} MiB, {compress}", "MiB/s",
                   [size / t for t in times], None, ("dd", [size / t for t in copies]))
        report.add("  time", "s", times, None, ("dd", copies), 1 / 0.7)
        job.discard()


ROWS = {"write": row_write, "writing": row_writing, "size": row_size, "restart": row_restart,
        "merge": row_merge}
