# SPDX-License-Identifier: BSD-2-Clause
"""count.py server | client PORT STEPS ANSWERS: one connection that is used a step at a time.

The server prints "port N", then "connection" for each one, and answers n with its square. The
client asks once for each file STEPS.1, STEPS.2 ... that is there and appends the answer to
ANSWERS."""
import os
import socket
import sys
import time

if sys.argv[1] == "server":
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    while True:
        conn, _ = listener.accept()
        print("connection", flush=True)
        try:
            for line in conn.makefile():
                conn.sendall(b"%d\n" % int(line) ** 2)
        except OSError:
            print("lost", flush=True)
else:
    conn = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    lines = conn.makefile("rb")
    step = 1
    while True:
        while not os.path.exists("%s.%d" % (sys.argv[3], step)):
            time.sleep(0.02)
        conn.sendall(b"%d\n" % step)
        answer = lines.readline()
        with open(sys.argv[4], "ab") as f:
            f.write(answer)
        step += 1
