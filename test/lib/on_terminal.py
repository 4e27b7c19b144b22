#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs a command on a terminal of its own, as the leader of a session in its foreground.

    on_terminal.py BASE ROWS COLUMNS COMMAND [ARG...]

BASE.pts names the terminal. What comes out is appended to BASE.screen; what is found in the file
BASE.type is typed, and the file removed. When the command has ended, BASE.end holds its exit status
and the modes that it left: "0 icanon echo".
"""
import fcntl
import os
import pty
import select
import struct
import sys
import termios

base, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
with open(base + ".pts", "w") as f:
    f.write(os.ttyname(slave) + "\n")
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in 0, 1, 2:
        os.dup2(slave, fd)
    os.closerange(3, 100)
    os.execvp(sys.argv[4], sys.argv[4:])
screen = open(base + ".screen", "ab", buffering=0)
status = None
while status is None:
    if select.select([master], [], [], 0.02)[0]:
        screen.write(os.read(master, 4096))
    if os.path.exists(base + ".type"):
        with open(base + ".type", "rb") as f:
            os.write(master, f.read())
        os.unlink(base + ".type")
    pid, how = os.waitpid(child, os.WNOHANG)
    if pid:
        status = os.waitstatus_to_exitcode(how)
modes = termios.tcgetattr(slave)[3]
with open(base + ".end", "w") as f:
    f.write(f"{status} {'' if modes & termios.ICANON else '-'}icanon "
            f"{'' if modes & termios.ECHO else '-'}echo\n")
