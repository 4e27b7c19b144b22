# Solves random systems and sums. Usage: R -f matrices.R --args ROUNDS
rounds <- as.integer(commandArgs(trailingOnly = TRUE)[1])
set.seed(1)
sum_all <- 0
for (i in seq_len(rounds)) {
	m <- matrix(rnorm(62500), 250)
	sum_all <- sum_all + sum(solve(m)[1:3, 1:3])
	if (i %% 20 == 0)
		cat(i, format(sum_all, digits = 12), "\n")
}
cat("end", format(sum_all, digits = 12), "\n")
