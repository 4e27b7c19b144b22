# SPDX-License-Identifier: BSD-2-Clause
# ckpt-merge: what it leaves, also when it is killed; what it refuses. mkimage knows what each image
# must hold.

setup_file() {
	export PAGES=200
	export ALL="000001.img 000002.img 000003.img 000004.img 000005.img 000006.img"
	export CHAIN_SRC=$BATS_FILE_TMPDIR/job.ckpt
	"${CKPT_BUILD:-$BATS_TEST_DIRNAME/../../build}/test/fuzz/mkimage" make "$CHAIN_SRC" 6 $PAGES
}

setup() {
	build=${CKPT_BUILD:-$BATS_TEST_DIRNAME/../../build}
	merge=$build/cmd/ckpt-merge
	inspect=$build/cmd/ckpt-inspect
	mkimage=$build/test/fuzz/mkimage
	cd "$BATS_TEST_TMPDIR" || return 1
	fresh
}

fresh() {
	rm -rf c
	cp -a "$CHAIN_SRC" c
}

images() {
	(cd "${1:-c}" && echo *.img)
}

good() { # CHAIN|IMAGE NUMBER: holds the state of generation NUMBER, every page
	"$mkimage" check "$1" "$2" $PAGES
}

all_complete_good() { # every image that the chain calls complete holds its state
	local seq n=0
	for seq in $("$inspect" --json c | jq '.chain.images[] | select(.complete) | .seq'); do
		good c "$seq" || return 1
		n=$((n + 1))
	done
	[ $n -gt 0 ]
}

misuse() {
	local want=$1
	shift
	run "$merge" "$@"
	echo "$output"
	[ "$status" -eq 2 ]
	[[ ${lines[0]} == "ckpt-merge: "*"$want"* ]]
	[ "${lines[1]}" = "Try 'ckpt-merge --help'" ]
}

@test "help, version, misuse" {
	run bash -c '"$1" --help 2>/dev/null' - "$merge"
	[ "$status" -eq 0 ]
	for option in output at compress force verbose quiet help version; do
		[[ $output == *"--$option"* ]]
	done
	run "$merge" --version
	[ "$status" -eq 0 ]
	misuse "unknown option '--frob'" --frob c
	misuse "option '--output' needs an argument" c --output
	misuse "option '-o' needs an argument" c -o
	misuse "invalid lz4|none|auto 'zip' for --compress" --compress zip c
	misuse "invalid N '' for --at" --at "" c
	misuse "which CHAIN or IMAGE" -o out
	misuse "unexpected argument 'd'" c d
	misuse "--force is for --output" --force c
	[ "$(images)" = "$ALL" ]
}

@test "in place: one full image of the newest state, under the same id" {
	before=$("$inspect" --json --at 6 c | jq '.tree, .image.state, .image.seq')
	run "$merge" c
	[ "$status" -eq 0 ]
	[ -z "$output" ]
	[ "$(images)" = "000006.img" ]
	good c 6
	[ "$("$inspect" --json --at 6 c | jq '.tree, .image.state, .image.seq')" = "$before" ]
	[ "$("$inspect" --json c | jq -r .image.kind)" = full ]
	[ "$(stat -c %a c/000006.img)" = 600 ]
	"$inspect" --verify -q c
	# once more there is nothing to do
	ino=$(stat -c %i c/000006.img)
	run "$merge" -v c
	[ "$status" -eq 0 ]
	[ "$(stat -c %i c/000006.img)" = "$ino" ]
}

@test "in place --at N: the newer images stay and fit" {
	run "$merge" --at 3 c
	[ "$status" -eq 0 ]
	[ "$(images)" = "000003.img 000004.img 000005.img 000006.img" ]
	for seq in 3 4 5 6; do
		good c $seq
	done
	# and can themselves be merged into
	"$merge" --at 5 c
	[ "$(images)" = "000005.img 000006.img" ]
	good c 5
	good c 6
}

@test "in place, named by an image" {
	run "$merge" c/000003.img
	[ "$status" -eq 0 ]
	[ "$(images)" = "000003.img 000004.img 000005.img 000006.img" ]
	good c 3
	(cd c && "$merge" 000006.img)
	[ "$(images)" = "000006.img" ]
	good c 6
	cp c/000006.img other
	run "$merge" other
	[ "$status" -eq 1 ]
	[[ $output == *"'other' is not one of a chain (write the merged image with -o OUT)" ]]
}

@test "what a newer image on another branch needs stays" {
	"$mkimage" branch c 7 3 $PAGES
	good c 7
	"$merge" --at 6 c
	[ "$(images)" = "000001.img 000002.img 000003.img 000006.img 000007.img" ]
	good c 6
	good c 7
	"$merge" c
	[ "$(images)" = "000007.img" ]
	good c 7
}

@test "damaged images: the newest complete one counts, and an unreadable one is not removed" {
	truncate -s -1 c/000006.img
	truncate -s -1 c/000001.img
	run "$merge" c
	[ "$status" -eq 3 ]
	[[ $output == *"no complete image"* ]]
	cp "$CHAIN_SRC/000001.img" c/
	"$merge" c
	[ "$(images)" = "000005.img 000006.img" ]
	good c 5
	fresh
	truncate -s 100 c/000002.img
	"$mkimage" branch c 7 1 $PAGES
	"$merge" c
	[ "$(images)" = "000002.img 000007.img" ]
	good c 7
}

@test "a damaged block stops it, and the chain is as it was" {
	size=$(stat -c %s c/000001.img)
	python3 - c/000001.img <<'END'
import sys
with open(sys.argv[1], 'r+b') as f:
    f.seek(100000)
    f.write(b'damage')
END
	sums=$(cd c && sha256sum ./*.img)
	run "$merge" c
	echo "$output"
	[ "$status" -eq 3 ]
	[[ $output == *"c/000001.img"* ]]
	[ "$(cd c && sha256sum ./*.img)" = "$sums" ]
	[ -z "$(find c -name '.*tmp*')" ]
	run "$merge" -o out c
	[ "$status" -eq 3 ]
	[ ! -e out ]
	[ -z "$(find . -maxdepth 1 -name '.*tmp*')" ]
}

@test "every fault point: an error, exit 1, no temporary file, every state still there" {
	for ((n = 1; ; n++)); do
		fresh
		CKPT_FAULT=$n run "$merge" c
		[[ $output == *"injected fault"* ]] || break
		echo "$n: $output"
		[ "$status" -eq 1 ]
		[ -z "$(find c -name '.*tmp*')" ]
		good c 6
		all_complete_good
		"$merge" c
		[ "$(images)" = "000006.img" ]
		good c 6
	done
	[ "$status" -eq 0 ]
	[ "$n" -gt 12 ]
}

@test "killed at every fault point: all that is complete is good, the next merge finishes" {
	for ((n = 1; ; n++)); do
		fresh
		CKPT_FAULT=$n=kill run "$merge" c
		[ "$status" -eq 137 ] || break
		echo "$n: $(images)"
		good c 6
		all_complete_good
		# nothing older is left half: what is listed is complete
		[ "$("$inspect" --json c | jq '[.chain.images[].complete] | all')" = true ]
		"$merge" c
		[ "$(images)" = "000006.img" ]
		[ -z "$(find c -name '.*tmp*')" ]
		good c 6
	done
	[ "$status" -eq 0 ]
	[ "$n" -gt 12 ]
}

@test "killed at random moments" {
	PAGES=3000
	"$mkimage" make big 8 $PAGES
	cp -a big c2
	start=$(date +%s%N)
	"$merge" c2
	took_us=$((($(date +%s%N) - start) / 1000))
	RANDOM=${SEED:-$$}
	echo "seed ${SEED:-$$}, an uninterrupted merge takes $took_us us"
	killed=0
	for n in $(seq 15); do
		rm -rf c
		cp -a big c
		after=$(((RANDOM * 32768 + RANDOM) % took_us + 1))
		if timeout -s KILL "$((after / 1000000)).$(printf '%06d' $((after % 1000000)))" \
			"$merge" c; then
			took_us=$after # it takes less than the first one did
		else
			killed=$((killed + 1))
		fi
		good c 8 >/dev/null
		[ "$("$inspect" --json c | jq '[.chain.images[].complete] | all')" = true ]
		"$merge" c
		[ "$(images)" = "000008.img" ]
		[ -z "$(find c -name '.*tmp*')" ]
		good c 8 >/dev/null
	done
	echo "$killed of $n killed"
	[ $killed -gt 0 ]
}

@test "-o: a stand-alone image; the chain is left as it is" {
	sums=$(cd c && sha256sum ./*)
	run "$merge" -o out.img c
	[ "$status" -eq 0 ]
	good out.img 6
	[ "$("$inspect" --json out.img | jq -r .image.kind)" = full ]
	[ "$(stat -c %a out.img)" = 600 ]
	[ "$(cd c && sha256sum ./*)" = "$sums" ]
	# not over what exists, unless told so
	run "$merge" --at 2 -o out.img c
	[ "$status" -eq 1 ]
	[ "$output" = "ckpt-merge: 'out.img' exists (--force replaces it)" ]
	good out.img 6
	"$merge" --at 2 --force -o out.img c
	good out.img 2
	# of an image, with its parents beside it
	"$merge" -o third.img c/000003.img
	good third.img 3
	# pages and tree are the same
	for a in 400000 405000 410000 7f0000003000; do
		cmp <("$inspect" --page 100:$a c/000003.img) <("$inspect" --page 100:$a third.img)
	done
	diff <("$inspect" --json c/000003.img | jq .tree) <("$inspect" --json third.img | jq .tree)
}

@test "-o into the chain, onto a source, into nowhere, into a read-only folder" {
	run "$merge" -o c/000009.img c
	[ "$status" -eq 1 ]
	[[ $output == *"inside of the chain"* ]]
	run "$merge" --force -o c/000002.img c/000003.img
	[ "$status" -eq 1 ]
	[[ $output == *"is one of the images to merge"* ]]
	run "$merge" -o nowhere/out c
	[ "$status" -eq 1 ]
	[[ $output == *"cannot open folder 'nowhere/'"* ]]
	run "$merge" -o . c
	[ "$status" -eq 1 ]
	run "$merge" --force -o ./ c
	[ "$status" -eq 1 ]
	if [ "$(id -u)" -ne 0 ]; then
		mkdir -m 500 locked
		run "$merge" -o locked/out c
		[ "$status" -eq 1 ]
		[[ $output == *"Permission denied"* ]]
	fi
	good c 6
}

@test "-o -: to a pipe; a full one is an error" {
	"$merge" -o - c | cat >out.img
	good out.img 6
	run bash -c '"$1" -o - c >/dev/full' - "$merge"
	[ "$status" -eq 1 ]
	[[ $output == *"No space left"* ]]
	run bash -c '{ "$1" -o - c; echo "status $?" >&2; } | true' - "$merge"
	[[ $output == *"Broken pipe"*"status 1"* ]]
	run script -qec "$merge -o - c" /dev/null </dev/null
	[ "$status" -eq 1 ]
	[[ $output == *"is a terminal"* ]]
}

@test "disk full: an error, no partial file, the chain as it was" {
	run bash -c 'ulimit -f 500; exec "$1" c' - "$merge"
	echo "$output"
	[ "$status" -eq 1 ]
	[[ $output == *"File too large"* ]]
	[ -z "$(find c -name '.*tmp*')" ]
	[ "$(images)" = "$ALL" ]
	good c 6
	run bash -c 'ulimit -f 500; exec "$1" -o out c' - "$merge"
	[ "$status" -eq 1 ]
	[ -z "$(find . -maxdepth 1 -name '*out*')" ]
}

@test "--compress" {
	"$merge" --compress none -o raw c
	"$merge" --compress lz4 -o lz4 c
	good raw 6
	good lz4 6
	[ "$(stat -c %s raw)" -gt $(($(stat -c %s lz4) * 5 / 4)) ]
}

@test "a chain in use is left alone; -o reads it all the same" {
	exec 8<>c/lock
	flock -n 8
	run "$merge" c
	echo "$output"
	[ "$status" -eq 1 ]
	[[ $output == *"'c' is in use"* ]]
	[ "$(images)" = "$ALL" ]
	"$merge" -o out c 8>&-
	good out 6
	exec 8>&-
}

# Starts the merge so that it stops (SIGSTOP) at a fault point; sets pid.
start_stopped() { # POINT ARGUMENT...
	local point=$1 n
	shift
	CKPT_FAULT=$point=stop "$merge" "$@" >out.txt 2>&1 3>&- 4>&- &
	pid=$!
	for ((n = SECONDS; SECONDS <= n + ${CKPT_TEST_WAIT:-90}; )); do
		grep -q '^State:.*T' /proc/$pid/status && return 0
		sleep 0.02
	done
	return 1
}

@test "it works in a sandbox, all threads of it" {
	start_stopped merge-written c
	for t in /proc/$pid/task/*; do
		grep -E 'Seccomp:[[:space:]]+2' "$t/status"
	done
	kill -CONT $pid
	wait $pid
	good c 6
}

@test "SIGTERM and SIGHUP: it ends by the signal, and nothing is left behind" {
	for sig in TERM HUP; do
		fresh
		start_stopped image-open c
		kill -$sig $pid
		kill -CONT $pid
		status=0
		wait $pid || status=$?
		[ "$status" -eq $((128 + $(kill -l $sig))) ]
		[ -z "$(find c -name '.*tmp*')" ]
		[ "$(images)" = "$ALL" ]
		good c 6
	done
}

@test "nothing to merge" {
	run "$merge" nothing
	[ "$status" -eq 1 ]
	[ "$output" = "ckpt-merge: cannot open 'nothing': No such file or directory" ]
	mkdir -m 700 empty
	run "$merge" empty
	[ "$status" -eq 3 ]
	run "$merge" --at 9 c
	[ "$status" -eq 1 ]
	[ "$output" = "ckpt-merge: chain 'c' has no image number 9" ]
	rm c/000003.img
	run "$merge" --at 5 c
	[ "$status" -eq 3 ]
	[[ $output == *"parent"* ]]
	"$merge" c
	[ "$(images)" = "000002.img 000004.img 000005.img 000006.img" ]
	good c 2
}
