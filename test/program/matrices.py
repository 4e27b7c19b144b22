# SPDX-License-Identifier: BSD-2-Clause
# A real numpy program with a threaded BLAS: products of matrices of whole numbers, which any order
# of adding leaves exact.
import sys

import numpy

rng = numpy.random.default_rng(5)
n, rounds = 600, int(sys.argv[1])
a = rng.integers(-8, 8, (n, n)).astype(float)
x = rng.integers(-8, 8, (n, n)).astype(float)
for r in range(rounds):
    x = numpy.mod(a @ x, 1009)
    if r % 20 == 0:
        print(r, int(x.sum()), int((x * x).sum()), flush=True)
print('end', numpy.linalg.matrix_rank(numpy.eye(5)))
