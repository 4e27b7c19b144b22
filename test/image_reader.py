#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A second reader of ckpt images, written from ckpt-image(5) alone; standard library only.

    image_reader.py segments IMAGE             start end kind prot path, a line for each mapping
    image_reader.py page CHAIN|IMAGE PID ADDR  the 4096 bytes of that page on standard output
    image_reader.py tree IMAGE                 the whole tree as JSON
"""
import bisect
import json
import os
import struct
import sys

PAGE = 4096
HERE, ZERO, PARENT = 1, 2, 3
TREE, BLOCKS, RUNS = 1, 2, 3
NULL = 0xFFFFFFFF
SPACE_MM, SPACE_SHM, SPACE_FILE = 1, 2, 3
VMA_ANON, VMA_FILE, VMA_SHM, VMA_VDSO, VMA_VSYSCALL = 1, 2, 3, 4, 5
VMA_KINDS = {VMA_ANON: "anonymous", VMA_FILE: "file", VMA_SHM: "shared", VMA_VDSO: "vdso",
             VMA_VSYSCALL: "vsyscall"}
MAP_SHARED = 1

# The record tables of ckpt-image(5): a name and a type for each field, in order.
RANGE = [("start", "u64"), ("end", "u64")]
SPACE = [("id", "u32"), ("kind", "u32"), ("size", "u64"), ("name", "str"), ("path", "str"),
         ("file_size", "u64"), ("mode", "u32"), ("uid", "u32"), ("gid", "u32"), ("mapped", "u32")]
VMA = [("start", "u64"), ("end", "u64"), ("kind", "u32"), ("prot", "u32"), ("flags", "u32"),
       ("advice", "u32"), ("offset", "u64"), ("path", "str"), ("dev", "u64"), ("ino", "u64"),
       ("file_size", "u64"), ("file_mtime_ns", "i64"), ("build_id", "blob"), ("shm_space", "u32"),
       ("file", "u32"), ("pkey", "u32"), ("guards", [RANGE]), ("anon_name", "str")]
MM = [(n, "u64") for n in ("start_code end_code start_data end_data start_brk brk start_stack "
                           "arg_start arg_end env_start env_end").split()] + [("auxv", "blob")]
PENDING = [("siginfo", "blob")]
THREAD = [("tid", "i32"), ("gregs", "blob"), ("xstate", "blob"), ("syscall_nr", "i64"),
          ("sigmask", "u64"), ("altstack_sp", "u64"), ("altstack_size", "u64"),
          ("altstack_flags", "u32"), ("robust_list", "u64"), ("robust_list_len", "u64"),
          ("clear_child_tid", "u64"), ("rseq_ptr", "u64"), ("rseq_len", "u32"), ("rseq_sig", "u32"),
          ("rseq_flags", "u32"), ("comm", "str"), ("sched_policy", "u32"),
          ("sched_priority", "u32"), ("sched_flags", "u32"), ("nice", "i32"),
          ("sched_runtime", "u64"), ("sched_deadline", "u64"), ("sched_period", "u64"),
          ("affinity", "blob"), ("timer_slack_ns", "u64"), ("parent_death_signal", "i32"),
          ("ioprio", "u32"), ("pending", [PENDING]), ("personality", "u64")]
SIGACTION = [("signo", "u32"), ("handler", "u64"), ("flags", "u64"), ("restorer", "u64"),
             ("mask", "u64")]
ITIMER = [("which", "u32"), ("value_us", "u64"), ("interval_us", "u64")]
TIMER = [("id", "i32"), ("clockid", "i32"), ("notify", "i32"), ("signo", "i32"), ("sigval", "u64"),
         ("notify_tid", "i32"), ("value_ns", "u64"), ("interval_ns", "u64"), ("overrun", "u32")]
RLIMIT = [("resource", "u32"), ("soft", "u64"), ("hard", "u64")]
LOCK = [("type", "u32"), ("write", "u32"), ("start", "u64"), ("len", "u64")]
POSIX_LOCK = [("file", "u32"), ("write", "u32"), ("start", "u64"), ("len", "u64")]
CONTENT = [("space", "u32"), ("seals", "u32"), ("memfd_flags", "u32"), ("nlink_was_zero", "u32")]
PACKET = [("data", "blob")]
PIPE = [("pipe", "u64"), ("capacity", "u32"), ("has_content", "u32"), ("no_readers", "u32"),
        ("no_writers", "u32"), ("packets", [PACKET]), ("deleted", "u32")]
EVENTFD = [("count", "u64"), ("semaphore", "u32")]
TIMERFD = [("clockid", "i32"), ("settime_flags", "u32"), ("ticks", "u64"), ("value_ns", "u64"),
           ("interval_ns", "u64")]
SIGNALFD = [("mask", "u64")]
EPOLL = [("watches", [[("fd", "i32"), ("events", "u32"), ("data", "u64"), ("file", "u32")]])]
INOTIFY = [("watches", [[("wd", "i32"), ("mask", "u32"), ("path", "str"), ("ino", "u64"),
           ("dev", "u64")]]), ("queued", "blob"), ("unread", "u32")]
OUTSIDE = [("stream", "u32"), ("what", "str")]
PTY = [("index", "u32"), ("master", "u32"), ("hung_up", "u32"), ("locked", "u32"),
       ("packet", "u32"), ("exclusive", "u32"), ("stopped", "u32"), ("termios", "blob"),
       ("rows", "u32"), ("columns", "u32"), ("xpixel", "u32"), ("ypixel", "u32"),
       ("session", "i32"), ("group", "i32"), ("slave_mode", "u32"), ("input", "blob"),
       ("output", "blob"), ("input_marks", "u32")]
RIGHT = [("file", "u32")]
TCP = [(n, "u32") for n in ("known send_seq recv_seq unsent options mss snd_wscale rcv_wscale "
                            "timestamp snd_wl1 snd_wnd max_window rcv_wnd rcv_wup").split()] + \
      [("queued", "blob")]
SOCKET = [(n, "u32") for n in "family type protocol state traits".split()] + \
         [("local", "blob"), ("peer", "blob"), ("peer_file", "u32"), ("backlog", "u32"),
          ("mode", "u32"),
          ("options", [[("level", "u32"), ("name", "u32"), ("value", "blob")]]),
          ("messages", [[("data", "blob"), ("from", "blob"), ("rights", [RIGHT]),
                         ("has_creds", "u32"), ("pid", "i32"), ("uid", "u32"),
                         ("gid", "u32")]]),
          ("waiting", [RIGHT]), ("groups", "blob"), ("tcp", TCP), ("peer_pid", "i32"),
          ("peer_uid", "u32"), ("peer_gid", "u32"),
          ("owner_uid", "u32"), ("owner_gid", "u32"), ("moved", "str")]
DETAILS = {2: CONTENT, 6: PIPE, 7: PIPE, 8: EVENTFD, 9: TIMERFD, 10: SIGNALFD, 11: EPOLL,
           12: INOTIFY, 13: CONTENT,
           14: OUTSIDE, 18: SOCKET, 17: [("pid", "i32")], 19: PTY,
           20: [("max_messages", "u64"), ("message_size", "u64"),
                ("messages", [[("priority", "u32"), ("data", "blob")]]), ("removed", "u32"),
                ("notify_pid", "i32"), ("notify", "u32"), ("notify_signo", "u32")]}
FILE = [("id", "u32"), ("kind", "u32"), ("flags", "u32"), ("mode", "u32"), ("pos", "u64"),
        ("path", "str"), ("dev", "u64"), ("ino", "u64"), ("rdev", "u64"), ("size", "u64"),
        ("mtime_ns", "i64"), ("owner_type", "i32"), ("owner_pid", "i32"), ("owner_sig", "i32"),
        ("locks", [LOCK]), ("detail", "detail"), ("content", "u32"),
        ("lease", "u32")]
FD = [("fd", "i32"), ("cloexec", "u32"), ("file", "u32")]
CREDS = [(n, "u32") for n in "ruid euid suid fsuid rgid egid sgid fsgid".split()] + \
        [("groups", [[("id", "u32")]])] + [(n,
        "u64") for n in "cap_inh cap_prm cap_eff cap_bnd cap_amb".split()] + \
        [("securebits", "u32"), ("no_new_privs", "u32")]
PROCESS = [("pid", "i32"), ("ppid", "i32"), ("pgid", "i32"), ("sid", "i32"), ("space", "u32"),
           ("exe", "str"), ("cwd", "str"), ("root", "str"), ("exe_size", "u64"),
           ("exe_mtime_ns", "i64"), ("umask", "u32"), ("dumpable", "u32"),
           ("child_subreaper", "u32"), ("thp_disable", "u32"), ("oom_score_adj", "i32"),
           ("creds", CREDS), ("mm", MM), ("vmas", [VMA]), ("threads", [THREAD]), ("fds", [FD]),
           ("sigactions", [SIGACTION]), ("pending", [PENDING]), ("itimers", [ITIMER]),
           ("timers", [TIMER]), ("rlimits", [RLIMIT]), ("posix_locks", [POSIX_LOCK]),
           ("stopped", "u32"), ("next_timer_id", "i32"),
           ("coredump_filter", "u32"), ("exit_signal", "i32"), ("files_of", "i32"),
           ("fs_of", "i32"), ("sighand_of", "i32"), ("stop_seen", "u32"),
           ("xfeatures_asked", "u64"), ("cgroup", "str"),
           ("sem_undos", [[("id", "i32"), ("num", "u32"), ("adjust", "i32")]]),
           ("leader_ended", "u32"), ("leader_status", "i32"), ("huge", [RANGE]),
           ("mlock_future", "u32"), ("continued", "u32")]
ZOMBIE = [("pid", "i32"), ("ppid", "i32"), ("pgid", "i32"), ("sid", "i32"), ("status", "i32"),
          ("exit_signal", "i32"), ("comm", "str")]
HOST = [("release", "str"), ("version", "str"), ("machine", "str"), ("nodename", "str"),
        ("boot_id", "str"), ("cpu_model", "str"), ("xfeatures", "u64"), ("xsave_size", "u32"),
        ("realtime_ns", "u64"), ("monotonic_ns", "u64"), ("boottime_ns", "u64"), ("vdso", "blob")]
SETTINGS = [("name", "str"), ("argv", [[("s", "str")]]), ("interval_ns", "u64"),
            ("full_every", "u32"), ("incremental", "u32"), ("keep", "u32"), ("compress", "u32"),
            ("snapshot", "u32"), ("on_term", "u32"), ("tracker", "str"), ("stats", "str"),
            ("mtbf_ns", "u64"), ("max_overhead", "u32"),
            ("fd_rules", [[("fd", "i32"), ("action", "u32")]]), ("close_unsupported", "u32"),
            ("deny_io_uring", "u32"), ("tcp_repair", "u32")]
TERMINAL = [("path", "str"), ("termios", "blob"), ("rows", "u32"), ("columns", "u32"),
            ("group", "i32")]
SHM = [("id", "i32"), ("key", "i32"), ("mode", "u32"), ("uid", "u32"), ("gid", "u32"),
       ("size", "u64"), ("space", "u32"), ("removed", "u32")]
SEM = [("id", "i32"), ("key", "i32"), ("mode", "u32"), ("uid", "u32"), ("gid", "u32"),
       ("values", "blob")]
QUEUE = [("id", "i32"), ("key", "i32"), ("mode", "u32"), ("uid", "u32"), ("gid", "u32"),
         ("max_bytes", "u64"), ("messages", [[("type", "i64"), ("data", "blob")]])]
TREE_RECORD = [("seq", "u64"), ("host", HOST), ("settings", SETTINGS), ("spaces", [SPACE]),
               ("files", [FILE]), ("processes", [PROCESS]), ("terminal", TERMINAL),
               ("zombies", [ZOMBIE]), ("shms", [SHM]), ("sems", [SEM]),
               ("queues", [QUEUE])]

NUMBERS = {"u8": "<B", "u16": "<H", "u32": "<I", "i32": "<i", "u64": "<Q", "i64": "<q"}


class Bad(Exception):
    pass


class Span:
    """Bytes that are taken from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def take(self, n):
        if n > self.left():
            raise Bad("a record is cut short")
        self.at += n
        return self.data[self.at - n:self.at]

    def u32(self):
        return struct.unpack("<I", self.take(4))[0]


def decode_field(span, kind, obj):
    if isinstance(kind, list) and kind and isinstance(kind[0], list):
        return [decode_record(span, kind[0]) for _ in range(span.u32())]
    if isinstance(kind, list):
        return decode_record(span, kind)
    if kind in NUMBERS:
        return struct.unpack(NUMBERS[kind], span.take(struct.calcsize(NUMBERS[kind])))[0]
    if kind == "detail":
        fields = DETAILS.get(obj["kind"])
        mark = span.at
        n = span.u32()
        if n == NULL:
            return None
        if fields is None:
            span.take(n)
            return None
        span.at = mark
        return decode_record(span, fields)
    n = span.u32()
    if kind == "str":
        return None if n == NULL else span.take(n).decode("utf-8", "surrogateescape")
    return span.take(n).hex()


def decode_record(span, fields):
    """A u32 length and the fields: a shorter record lacks the last, a longer one has more."""
    rec = Span(span.take(span.u32()))
    obj = {}
    for name, kind in fields:
        if not rec.left():
            break
        obj[name] = decode_field(rec, kind, obj)
    return obj


def lz4_block(src, size):
    """The LZ4 block format: token, literals, then a copy of what came before."""
    out = bytearray()
    i = 0

    def extended(n, i):
        if n == 15:
            while True:
                n += src[i]
                i += 1
                if src[i - 1] != 255:
                    break
        return n, i

    while i < len(src):
        token = src[i]
        n, i = extended(token >> 4, i + 1)
        out += src[i:i + n]
        i += n
        if i >= len(src):
            break
        back = src[i] | src[i + 1] << 8
        n, i = extended(token & 15, i + 2)
        n += 4
        if not 0 < back <= len(out):
            raise Bad("a compressed block refers to before its beginning")
        if back >= n:
            out += out[len(out) - back:len(out) - back + n]
        else:
            piece = bytes(out[-back:])
            out += (piece * (n // back + 1))[:n]
    if len(out) != size:
        raise Bad("a compressed block has the wrong size")
    return bytes(out)


class Image:
    def __init__(self, path):
        self.path = path
        self.file = open(path, "rb")
        self.size = os.fstat(self.file.fileno()).st_size
        head = self.read(0, 64)
        if head[:8] != b"CKPTIMG\n":
            raise Bad(f"'{path}' is not a ckpt image")
        version, arch, shift = struct.unpack_from("<HHB", head, 8)
        if (version, arch, shift) != (1, 62, 12):
            raise Bad(f"'{path}': version {version}, machine {arch}, pages of 2^{shift} bytes")
        self.state, self.parent = head[16:32], head[32:48]
        self.seq = struct.unpack_from("<Q", head, 48)[0]
        end = self.read(self.size - 64, 64)
        if end[56:] != b"CKPTEND\n":
            raise Bad(f"'{path}' is truncated")
        dir_at, dir_len, _, length = struct.unpack_from("<QQQQ", end)
        if length != self.size or end[32:48] != self.state:
            raise Bad(f"'{path}' is truncated")
        self.sections = {}
        for entry in struct.iter_unpack("<IHHQQQ", self.read(dir_at, dir_len)):
            kind, version, flags, at, n, _ = entry
            if kind in (TREE, BLOCKS, RUNS) and version == 1:
                self.sections[kind] = (at, n)
            elif flags & 1:
                raise Bad(f"'{path}': section {kind} version {version} is required")
        self.blocks = list(struct.iter_unpack("<QIHBxQ", self.section(BLOCKS)))
        self.runs = list(struct.iter_unpack("<IIQQII", self.section(RUNS)))
        self.starts = [(r[0], r[2]) for r in self.runs]

    def read(self, at, n):
        if at < 0 or at + n > self.size:
            raise Bad(f"'{self.path}' is truncated")
        self.file.seek(at)
        return self.file.read(n)

    def section(self, kind):
        if kind not in self.sections:
            raise Bad(f"'{self.path}': section {kind} is missing")
        return self.read(*self.sections[kind])

    def full(self):
        return not any(self.parent)

    def tree(self):
        return decode_record(Span(self.section(TREE)), TREE_RECORD)

    def block(self, number):
        at, stored, npages, codec, _ = self.blocks[number]
        data = self.read(at, stored)
        if codec == 1:
            return lz4_block(data, npages * PAGE)
        if codec == 0:
            return data
        raise Bad(f"'{self.path}': codec {codec}")

    def page(self, space, page):
        """(kind, bytes); kind None: absent."""
        i = bisect.bisect_right(self.starts, (space, page)) - 1
        if i < 0:
            return None, None
        run_space, kind, first, npages, block, at = self.runs[i]
        if run_space != space or page >= first + npages:
            return None, None
        if kind != HERE:
            return kind, None
        at += page - first
        while at >= self.blocks[block][2]:
            at -= self.blocks[block][2]
            block += 1
        return HERE, self.block(block)[at * PAGE:(at + 1) * PAGE]


def newest(chain):
    names = [n for n in os.listdir(chain) if n.endswith(".img") and n[:-4].isdigit()]
    names.sort(key=lambda n: int(n[:-4]))
    if not names:
        raise Bad(f"'{chain}' holds no image")
    return os.path.join(chain, names[-1])


def parent_of(image):
    where = os.path.dirname(image.path) or "."
    for name in sorted(os.listdir(where)):
        if not name.endswith(".img") or name.startswith("."):
            continue
        with open(os.path.join(where, name), "rb") as f:
            head = f.read(64)
        if head[:8] == b"CKPTIMG\n" and head[16:32] == image.parent:
            return Image(os.path.join(where, name))
    raise Bad(f"'{image.path}': its parent is missing")


def find_page(image, space, page):
    """The page's bytes; None where the image that should say has none."""
    seen = set()
    while True:
        kind, data = image.page(space, page)
        if kind == HERE:
            return data
        if kind != PARENT:
            return bytes(PAGE) if kind == ZERO else None
        if image.state in seen:
            raise Bad("the parents form a circle")
        seen.add(image.state)
        image = parent_of(image)


def page_of(image, pid, address):
    for process in image.tree()["processes"]:
        if process["pid"] != pid:
            continue
        for vma in process["vmas"]:
            if not vma["start"] <= address < vma["end"]:
                continue
            if vma["kind"] == VMA_SHM:
                space, page = vma["shm_space"], (address - vma["start"] + vma["offset"]) // PAGE
            elif vma["kind"] in (VMA_ANON, VMA_FILE) and not vma["flags"] & MAP_SHARED:
                space, page = process["space"], address // PAGE
            else:
                raise Bad(f"{address:#x} lies in a mapping whose content is not in the image")
            data = find_page(image, space, page)
            if data is None and vma["kind"] == VMA_FILE:
                raise Bad(f"{address:#x} is as in the file {vma['path']}")
            return data or bytes(PAGE)  # never touched
        raise Bad(f"pid {pid} has nothing at {address:#x}")
    raise Bad(f"no process {pid}")


def segments(image):
    for process in image.tree()["processes"]:
        for vma in process["vmas"]:
            prot = "".join(c if vma["prot"] & 1 << i else "-" for i, c in enumerate("rwx"))
            prot += "s" if vma["flags"] & MAP_SHARED else "p"
            kind = VMA_KINDS.get(vma["kind"], str(vma["kind"]))
            print(f"{vma['start']:x} {vma['end']:x} {kind} {prot} {vma['path'] or '-'}")


def main(argv):
    sys.stdout.reconfigure(errors="surrogateescape")
    if len(argv) == 3 and argv[1] == "segments":
        segments(Image(argv[2]))
    elif len(argv) == 3 and argv[1] == "tree":
        json.dump(Image(argv[2]).tree(), sys.stdout, indent=1)
        print()
    elif len(argv) == 5 and argv[1] == "page":
        path = newest(argv[2]) if os.path.isdir(argv[2]) else argv[2]
        sys.stdout.buffer.write(page_of(Image(path), int(argv[3]), int(argv[4], 0)))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except (Bad, OSError, struct.error, IndexError) as e:
        print(f"image_reader.py: {e}", file=sys.stderr)
        sys.exit(3)
