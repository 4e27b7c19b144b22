# SPDX-License-Identifier: BSD-2-Clause
"""pinger.py PORT: pings a redis-server for ever and counts; connects again when it has to."""
import socket
import sys
import time

count = 0
while True:
    try:
        conn = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20)
        while True:
            conn.sendall(b"PING\r\n")
            if conn.recv(100) != b"+PONG\r\n":
                break
            count += 1
            print("pong", count, flush=True)
            time.sleep(0.002)
    except OSError:
        time.sleep(0.02)
