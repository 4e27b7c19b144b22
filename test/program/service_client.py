# SPDX-License-Identifier: BSD-2-Clause
"""service_client.py PORT FILE: is service.js the one that it was, with all that was put, and do its
timers and workers go on? FILE is what the client remembers."""
import json
import sys
import time
import urllib.request


def ask(body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/", data=body)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return json.load(answer)


def is_right(worker):
    x = worker["first"]
    for i in range(worker["n"]):
        x = (x * 16807 + i) % 2147483647
    return x == worker["x"]


state = ask()
try:
    with open(sys.argv[2]) as file:
        before = json.load(file)
except FileNotFoundError:
    before = {"id": state["id"], "put": [f"value {i} " + "x" * 5000 for i in range(20)]}
    for value in before["put"]:
        state = ask(value.encode())
    with open(sys.argv[2], "w") as file:
        json.dump(before, file)
assert state["id"] == before["id"], "another server"
assert state["put"] == before["put"], "what was put is not there"
assert all(map(is_right, state["workers"])), state["workers"]
deadline = time.monotonic() + 90
while True:  # everything goes on
    now = ask()
    if all(now["ticks"][k] > state["ticks"][k] for k in now["ticks"]) and all(
            a["n"] > b["n"] for a, b in zip(now["workers"], state["workers"])):
        break
    assert time.monotonic() < deadline, (state, now)
    time.sleep(0.01)
assert all(map(is_right, now["workers"])), now["workers"]
