# SPDX-License-Identifier: BSD-2-Clause
# A real Python program: reads nothing, writes its result file line by line, with a bit of
# everything in memory.
import collections
import hashlib
import sys
import threading

n = int(sys.argv[1])
counts = collections.Counter()
seen = {}
result = open('result', 'w', buffering=1)


def background(out):
    x = 1
    for i in range(n // 2):
        x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
    out.append(x)


out = []
thread = threading.Thread(target=background, args=(out,))
thread.start()
h = hashlib.sha256()
for i in range(n):
    h.update(b'%d' % i)
    digest = h.copy().hexdigest()
    counts[digest[0]] += 1
    seen[digest[:4]] = i
    if i % 500 == 0:
        result.write('%d %s %d\n' % (i, digest, len(seen)))
thread.join()
result.write('%s\n%d\n' % (sorted(counts.items()), out[0]))
result.close()
