/* SPDX-License-Identifier: BSD-2-Clause */
/* Two MPI ranks pass numbers to and fro and sum them. Usage: ring ROUNDS */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	static double v[4096], w[4096];
	int rank, size, rounds = argc > 1 ? atoi(argv[1]) : 1000;
	double sum = 0, all;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	for (int i = 0; i < 4096; i++)
		v[i] = rank * 1000 + i;
	for (int r = 0; r < rounds; r++) {
		MPI_Sendrecv(v, 4096, MPI_DOUBLE, (rank + 1) % size, 1, w, 4096, MPI_DOUBLE,
			     (rank + size - 1) % size, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		for (int i = 0; i < 4096; i++)
			v[i] = w[i] * 0.999 + rank + r % 7;
		for (int k = 0; k < 40; k++)
			for (int i = 0; i < 4096; i++)
				sum += v[i] / (k + 1);
		if (r % 100 == 0) {
			MPI_Allreduce(&sum, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
			if (rank == 0) {
				printf("%d %.6e\n", r, all);
				(void)fflush(stdout);
			}
		}
	}
	if (rank == 0)
		printf("end %.6e\n", sum);
	MPI_Finalize();
	return 0;
}
