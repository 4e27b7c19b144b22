# SPDX-License-Identifier: BSD-2-Clause
"""server.py NAME: says hello to whoever greets, over TCP (prints "port N") and a unix socket."""
import asyncio
import sys


async def serve(reader, writer):
    try:
        while await reader.read(100):
            writer.write(b"hello")
    except ConnectionError:
        pass
    writer.close()


async def main():
    tcp = await asyncio.start_server(serve, "127.0.0.1", 0)
    await asyncio.start_unix_server(serve, sys.argv[1])
    print("port", tcp.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(1000)


asyncio.run(main())
