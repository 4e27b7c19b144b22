/* SPDX-License-Identifier: BSD-2-Clause */
/* Open MPI: a ring and sums over all ranks; prints a digest that depends on every message. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define N 2048

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v;
	h *= 0x9e3779b97f4a7c15u;
	return h ^ h >> 29;
}

int main(int argc, char **argv)
{
	int rank, size, rounds = argc > 1 ? atoi(argv[1]) : 1000;
	static uint64_t out[N], in[N], sum[N], all[64];
	uint64_t digest = 1;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	for (int i = 0; i < N; i++)
		out[i] = (uint64_t)rank * 1000003u + (uint64_t)i;
	/*
	 * A word goes round first: were all to send at once, two connections between the same ranks
	 * would be made over TCP and one closed, at both ends at once, which holds their ports for
	 * a minute (TIME_WAIT).
	 */
	if (rank > 0)
		MPI_Recv(in, 1, MPI_UINT64_T, rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	MPI_Send(out, 1, MPI_UINT64_T, (rank + 1) % size, 0, MPI_COMM_WORLD);
	if (rank == 0)
		MPI_Recv(in, 1, MPI_UINT64_T, size - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	for (int r = 0; r < rounds; r++) {
		/* from a few words (sent at once) to 16 KiB (announced first, then fetched) */
		int n = r % 3 == 0 ? 8 : r % 3 == 1 ? 512 : N;

		MPI_Sendrecv(out, n, MPI_UINT64_T, (rank + 1) % size, r % 100, in, n, MPI_UINT64_T,
			     (rank + size - 1) % size, r % 100, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		for (int i = 0; i < n; i++)
			out[i] = mix(in[i], (uint64_t)r);
		MPI_Allreduce(out, sum, n, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
		for (int i = 0; i < n; i += 64)
			digest = mix(digest, sum[i]);
		if (r % 1000 == 0 && rank == 0) {
			printf("%d %016llx\n", r, (unsigned long long)digest);
			fflush(stdout);
		}
	}
	MPI_Gather(&digest, 1, MPI_UINT64_T, all, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
	for (int k = 0; rank == 0 && k < size; k++)
		printf("rank %d of %d: %016llx\n", k, size, (unsigned long long)all[k]);
	MPI_Finalize();
	return 0;
}
