# SPDX-License-Identifier: BSD-2-Clause
"""A pool of processes that hash; prints the results in order. Usage: pool.py TASKS"""
import hashlib
import multiprocessing
import sys


def work(n):
    h = str(n).encode()
    for _ in range(12000):
        h = hashlib.sha256(h).digest()
    return n, h.hex()[:16]


if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        for n, digest in pool.imap(work, range(int(sys.argv[1]))):
            print(n, digest, flush=True)
    print("end")
