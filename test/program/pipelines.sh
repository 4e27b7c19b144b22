# SPDX-License-Identifier: BSD-2-Clause
# Usage: pipelines.sh ROUNDS   what shells are used for; prints the same every time
rounds=$1
caught=0
trap 'caught=$((caught + 1))' USR1
trap 'echo "end: $caught signals"' EXIT

work() { # a little work and an exit status
	(seq "$1" $(($1 + 40000)) | sort -rn | md5sum) > "part$1.$2"
	return $(($2 % 7))
}

for ((i = 1; i <= rounds; i++)); do
	pids=()
	for j in 1 2 3; do
		work $((i * j)) $j &
		pids+=($!)
	done
	kill -USR1 $$
	seq 1 20000 | awk '{ s += $1 * '$i' } END { print s }' | while read -r sum; do
		echo "$i: sum $sum"
	done
	for j in 1 2 3; do
		wait "${pids[j - 1]}"
		echo "$i: job $j status $? $(cut -c 1-8 "part$((i * j)).$j")"
	done
	echo "$i: $(cat < <(seq 3 | tac | tr '\n' ' ')) $(wc -c <<< "$i here")"
done
