# SPDX-License-Identifier: BSD-2-Clause
"""chat.py threads|processes ROUNDS: an asyncio server on a port of its own, with clients in threads
or other processes that ask it for sums, over one connection each and a new one now and then."""
import asyncio
import hashlib
import os
import socket
import sys
import threading

CLIENTS = 4


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            n = int(line)
            text = hashlib.sha256(b"%d" % n).hexdigest()
            writer.write(b"%d %s\n" % (n * n, text.encode()))
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


def client(port, number, rounds):
    total = hashlib.sha256()
    for i in range(rounds):
        if i % 400 == 0:
            conn = socket.create_connection(("127.0.0.1", port))
            lines = conn.makefile("rb")
        conn.sendall(b"%d\n" % (number * 1000003 + i))
        answer = lines.readline()
        assert answer.endswith(b"\n"), answer
        total.update(answer)
    with open("answer.%d" % number, "w") as f:
        print(number, total.hexdigest(), file=f)


async def main(how, rounds):
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if how == "threads":
        threads = [threading.Thread(target=client, args=(port, i, rounds)) for i in range(CLIENTS)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            await asyncio.sleep(0.05)
        return
    pids = []
    for i in range(CLIENTS):
        pid = os.fork()
        if pid == 0:
            client(port, i, rounds)
            os._exit(0)
        pids.append(pid)
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            assert status == 0, status
            pids.remove(pid)
        else:
            await asyncio.sleep(0.05)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
with open("out", "w") as out:
    for n in range(CLIENTS):
        with open("answer.%d" % n) as part:
            out.write(part.read())
