# SPDX-License-Identifier: BSD-2-Clause
# Usage: project.sh DIR FILES [FUNCTIONS]   writes a C project with a Makefile, which gives an
# object its name when it is whole, and runs the program
dir=$1 files=$2 functions=${3:-60}
{
	echo 'CFLAGS = -O2 -pipe'
	printf 'objects ='
	for ((i = 1; i <= files; i++)); do printf ' part%d.o' "$i"; done
	cat <<'MAKE'

program.out: program
	./program > $@.part
	ln -f $@.part $@
program: main.o $(objects)
	$(CC) -o $@.part $^
	ln -f $@.part $@
%.o: %.c
	@echo $<
	$(CC) $(CFLAGS) -c -o $@.part $<
	ln -f $@.part $@
MAKE
} > "$dir/Makefile"
for ((i = 1; i <= files; i++)); do
	awk -v i="$i" -v n="$functions" 'BEGIN {
		for (k = 0; k < n; k++) {
			printf "static unsigned f%d_%d(unsigned x)\n{\n\tunsigned y = x;\n", i, k
			printf "\tfor (int a = 0; a < %d; a++)\n", k % 9 + 2
			printf "\t\tswitch (y %% %d) {\n", k % 5 + 3
			for (c = 0; c < k % 5 + 3; c++)
				printf "\t\tcase %d: y = y * %du + %du; break;\n", c, 2 * c + 3, k * 7 + c
			printf "\t\t}\n\treturn y;\n}\n"
		}
		printf "unsigned part%d(unsigned x)\n{\n", i
		for (k = 0; k < n; k++)
			printf "\tx ^= f%d_%d(x);\n", i, k
		printf "\treturn x;\n}\n"
	}' > "$dir/part$i.c"
done
{
	echo '#include <stdio.h>'
	for ((i = 1; i <= files; i++)); do echo "unsigned part$i(unsigned);"; done
	printf 'int main(void)\n{\n\tunsigned x = 1;\n'
	for ((i = 1; i <= files; i++)); do echo "	x += part$i(x);"; done
	printf '\tprintf("%%u\\n", x);\n\treturn 0;\n}\n'
} > "$dir/main.c"
