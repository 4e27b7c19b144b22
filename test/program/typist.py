# SPDX-License-Identifier: BSD-2-Clause
"""Types into an editor on a pseudo-terminal, slowly, reads the screen, and saves.
Usage: typist.py FILE LINES"""
import os
import pty
import select
import sys
import time

path, lines = sys.argv[1], int(sys.argv[2])
pid, master = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm", HOME=os.getcwd())
    os.execvp("vim", ["vim", "-u", "NONE", "-n", "-i", "NONE", path])

seen = 0


def read_screen(seconds):
    """What the editor draws, for so long."""
    global seen
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([master], [], [], left)[0]:
            break
        try:
            seen += len(os.read(master, 65536))
        except OSError:
            break


def type_keys(text):
    for c in text:
        os.write(master, c.encode())
        read_screen(0.001)


for _ in range(90):  # on a busy machine it is not there at once
    read_screen(1)
    if seen:
        break
type_keys("i")
for i in range(lines):
    type_keys(f"line {i} is {i * i} long\r")
type_keys("\x1b")
read_screen(0.5)
type_keys(":%s/long/wide/\r")
read_screen(0.2)
type_keys(":wq\r")
read_screen(2)
_, status = os.waitpid(pid, 0)
print("editor ended:", status, "screen seen:", seen > 1000)
