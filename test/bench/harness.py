# SPDX-License-Identifier: BSD-2-Clause
"""What the rows stand on: a place on a disk, programs in it, and a job under ckpt-run."""
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import time

NOBODY = 65534
DIRTY_10, DIRTY_1, VERIFY, DIRTY_50, DIRTY_ALL = 1, 2, 3, 4, 5  # the orders of gap.h
PR_SET_CHILD_SUBREAPER = 36
MIB = 1 << 20
PROGRAMS = ["cmd/ckpt-run", "cmd/ckpt-restart", "cmd/ckpt-inspect", "cmd/ckpt-merge"] + [
    "test/bench/bench-" + name for name in ("loop", "many", "memory", "threads", "tree", "work")]


class Unmeasured(Exception):
    """Why a figure cannot be had."""


def wait_until(what, found, seconds=120.0):
    end = time.monotonic() + seconds
    while True:
        answer = found()
        if answer is not None:
            return answer
        if time.monotonic() > end:
            raise Unmeasured(f"{what}: nothing came in {seconds:.0f} s")
        time.sleep(0.001)


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def status_kib(pid, field):
    m = re.search(rf"^{field}:\s+(\d+) kB", read(f"/proc/{pid}/status"), re.M)
    return int(m.group(1)) if m else None


def gone(pid):
    state = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return True if not state or state[0] == "Z" else None


# --- the place and the programs -------------------------------------------------------------------


def install(base, build):
    """The programs, where the unprivileged user can run them."""
    place = os.path.join(base, "bin")
    os.mkdir(place)
    os.chmod(base, 0o755)
    os.chmod(place, 0o755)
    for program in PROGRAMS:
        shutil.copy(os.path.join(build, program), place)


def adopt_orphans():
    """What outlives its parent comes to us: then its end is ours to see."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Room:
    """A row's directory on a real disk, and programs started from it as an unprivileged user."""

    def __init__(self, base, name):
        self.base, self.bin = base, os.path.join(base, "bin")
        self.dir = os.path.join(base, name)
        os.mkdir(self.dir)
        self.as_user = []
        if os.getuid() == 0:
            self.as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            os.chown(self.dir, NOBODY, NOBODY)
        self.n = 0
        adopt_orphans()

    def path(self, name):
        return os.path.join(self.dir, name)

    def fresh(self, name):
        self.n += 1
        return self.path(f"{name}-{self.n}")

    def program(self, name):
        return os.path.join(self.bin, name)

    def file(self, name):
        """A new file that belongs to the user, open for writing."""
        f = open(self.fresh(name), "w", encoding="utf-8")
        if self.as_user:
            os.fchown(f.fileno(), NOBODY, NOBODY)
        return f

    def popen(self, argv, **more):
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "CKPT_BENCH_ID": self.dir}
        return subprocess.Popen(self.as_user + argv, env=env, cwd=self.dir, close_fds=True,
                                stdin=subprocess.DEVNULL, **more)

    def run(self, argv, **more):
        p = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        try:
            out, err = p.communicate(timeout=300)
        except subprocess.TimeoutExpired as e:
            p.kill()
            raise Unmeasured(f"{os.path.basename(argv[0])} did not end") from e
        if p.returncode != 0:
            said = (err or out).strip().splitlines() or ["no message"]
            raise Unmeasured(f"{os.path.basename(argv[0])} ended with {p.returncode}: {said[-1]}")
        return out

    def option(self, program, word):
        """Does the program's --help name it? What comes later is measured once it is there."""
        return word in self.run([self.program(program), "--help"])

    def close(self):
        end_marked(self.dir)
        shutil.rmtree(self.dir, ignore_errors=True)


def marked(place):
    """The processes that were started in the place, or below it."""
    mark = b"CKPT_BENCH_ID=" + place.encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as f:
                env = f.read().split(b"\0")
        except OSError:
            continue
        if any(v == mark or v.startswith(mark + b"/") for v in env) and not gone(int(entry)):
            yield int(entry)


def end_marked(place):
    for _ in range(40):
        left = list(marked(place))
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        reap()
        if not left:
            return
        time.sleep(0.05)


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


class Job:
    """A benchmark program, alone or under ckpt-run."""

    def __init__(self, room, argv, ckpt_run=None):
        self.room, self.seen = room, 0
        self.log, self.stats, self.chain = (room.fresh(n) for n in ("log", "stats", "chain"))
        command = [room.program(argv[0]), self.log] + [str(a) for a in argv[1:]]
        if ckpt_run is not None:
            command = [room.program("ckpt-run"), "-o", self.chain, "--stats", self.stats,
                       *ckpt_run, "--", *command]
        self.err = room.file("err")
        self.proc = room.popen(command, stdout=self.err, stderr=self.err)
        self.pid = int(self.await_line(r"^ready (\d+)$").group(1))

    def said(self):
        return (read(self.err.name).strip().splitlines() or ["no message"])[-1]

    def await_line(self, pattern, start=0):
        def found():
            m = re.search(pattern, read(self.log)[start:], re.M)
            if not m and self.proc.poll() is not None:
                raise Unmeasured(f"the job ended early: {self.said()}")
            return m
        return wait_until("the job", found)

    def order(self, number, pid=None):
        """Tells the program to do something; returns when it is done."""
        start = len(read(self.log))
        os.kill(pid or self.pid, signal.SIGRTMIN + number)
        answer = wait_until("the order", lambda: re.search(
            rf"^(done {number}|bad: .*)$", read(self.log)[start:], re.M))
        if answer.group(1).startswith("bad"):
            raise Unmeasured(f"the program says: {answer.group(1)}")

    def next_line(self):
        """The next line of --stats."""
        def found():
            lines = read(self.stats).splitlines(keepends=True)
            if len(lines) > self.seen and lines[self.seen].endswith("\n"):
                return lines[self.seen]
            if self.proc.poll() is not None:
                raise Unmeasured(f"ckpt-run ended early: {self.said()}")
            return None
        line = json.loads(wait_until("the checkpoint", found))
        self.seen += 1
        return line

    def checkpoint(self):
        """One checkpoint on demand: its --stats, the time until durable and the longest gap."""
        begin = time.time_ns()
        os.kill(self.proc.pid, signal.SIGUSR1)
        line = self.next_line()
        while line["result"] == "skipped":  # it could not be stopped just then, and is tried again
            begin = time.time_ns()
            line = self.next_line()
        end = time.time_ns()
        if line["result"] != "ok":
            raise Unmeasured(f"the checkpoint {line['result']}: {line['error']}")
        time.sleep(0.02)  # the log's last line
        line["durable_s"] = (end - begin) / 1e9
        line["felt_us"] = max((e - s for s, e in self.gaps() if e > begin and s < end),
                              default=0) / 1e3
        return line

    def gaps(self):
        return [(int(s), int(e)) for s, e in re.findall(r"^gap (\d+) (\d+)$", read(self.log), re.M)]

    def peak_kib(self):
        return status_kib(self.proc.pid, "VmHWM")

    def crash(self):
        """SIGKILL for ckpt-run and the program."""
        for pid in {self.proc.pid, self.pid}:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.proc.wait()
        wait_until("the end of the job", lambda: gone(self.pid))
        reap()

    def restart(self, *options, at_end=None):
        """Seconds from the start of ckpt-restart to the first instruction, and to when every page
        has been looked at. at_end: called with the pid then."""
        begin = time.time_ns()
        pidfile = self.room.fresh("pid")
        # No pipe: the job may take over what stands for its streams, and then nobody sees the end.
        p = self.room.popen([self.room.program("ckpt-restart"), "-d", "--no-checkpoint", "-q",
                             "--pidfile", pidfile, *options, self.chain],
                            stdout=self.err, stderr=self.err)
        try:
            p.wait(timeout=120)
        except subprocess.TimeoutExpired as e:
            p.kill()
            raise Unmeasured("ckpt-restart did not end") from e
        if p.returncode != 0:
            raise Unmeasured(f"ckpt-restart ended with {p.returncode}: {self.said()}")
        started = time.time_ns()
        pid = int(read(pidfile))
        try:
            gap = wait_until("the restarted program", lambda: next(
                ((s, e) for s, e in self.gaps() if s < begin < e), None))
            self.order(VERIFY, pid)
            last = time.time_ns()
            if at_end:
                at_end(pid)
        finally:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
            wait_until("the end of the restarted job", lambda: gone(pid))
            reap()
        return (gap[1] - begin) / 1e9, max(last, started) / 1e9 - begin / 1e9

    def images(self):
        return sorted(os.path.join(self.chain, n) for n in os.listdir(self.chain)
                      if n.endswith(".img"))

    def discard(self):
        self.crash()
        self.err.close()
        shutil.rmtree(self.chain, ignore_errors=True)
