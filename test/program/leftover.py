# SPDX-License-Identifier: BSD-2-Clause
# A service whose listening port (without SO_REUSEADDR) is held by connections that have ended on
# its side (TIME_WAIT) too. Says "port PORT PEER", the last being the other end's; then answers
# whoever connects with the value of SO_REUSEADDR, until asked to end.
# Usage: leftover.py ADDRESS
import socket
import sys

address = sys.argv[1]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.socket(family)
listener.bind((address, 0))
listener.listen()
client = socket.create_connection(listener.getsockname()[:2])
accepted = listener.accept()[0]
port, peer = client.getpeername()[1], client.getsockname()[1]
accepted.close()
client.close()
print("port", port, peer, flush=True)
while True:
    connection = listener.accept()[0]
    asked = connection.recv(100)
    connection.sendall(b"%d\n" % listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))
    connection.recv(1)  # the other end closes first
    connection.close()
    if asked == b"end\n":
        sys.exit(0)
