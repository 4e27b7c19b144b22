# SPDX-License-Identifier: BSD-2-Clause
# Usage: numbers.sh N   prints N lines, with a little work between them, to a terminal
[ -t 1 ] || echo "no terminal"
for ((i = 1; i <= $1; i++)); do
	echo "$i $(seq "$i" $((i + 2000)) | cksum)"
done
stty -a | grep -o 'rows [0-9]*; columns [0-9]*'
