# SPDX-License-Identifier: BSD-2-Clause
# ckpt-inspect: what it shows, what it checks, how it fails. The images are those of an invented job
# (test/fuzz/model.h).

setup_file() {
	export PAGES=200
	export CHAIN_SRC=$BATS_FILE_TMPDIR/job.ckpt
	"${CKPT_BUILD:-$BATS_TEST_DIRNAME/../../build}/test/fuzz/mkimage" make "$CHAIN_SRC" 4 $PAGES
}

setup() {
	build=${CKPT_BUILD:-$BATS_TEST_DIRNAME/../../build}
	inspect=$build/cmd/ckpt-inspect
	mkimage=$build/test/fuzz/mkimage
	reader=$BATS_TEST_DIRNAME/../image_reader.py
	cd "$BATS_TEST_TMPDIR" || return 1
	cp -a "$CHAIN_SRC" c
}

# the byte at an offset of a file becomes another one
flip() {
	python3 - "$1" "$2" <<'END'
import sys
with open(sys.argv[1], 'r+b') as f:
    f.seek(int(sys.argv[2]))
    b = f.read(1)
    f.seek(int(sys.argv[2]))
    f.write(bytes([b[0] ^ 0x40]))
END
}

count() { # LIST: how many elements in all processes
	jq --arg list "$1" '[.tree.processes[][$list][]] | length' all.json
}

misuse() { # EXPECTED-TEXT ARGUMENT...
	local want=$1
	shift
	run "$inspect" "$@"
	echo "$output"
	[ "$status" -eq 2 ]
	[[ ${lines[0]} == "ckpt-inspect: "*"$want"* ]]
	[ "${lines[1]}" = "Try 'ckpt-inspect --help'" ]
	[ "${#lines[@]}" -eq 2 ]
}

@test "--help and --version go to standard output" {
	run bash -c '"$1" --help 2>/dev/null' - "$inspect"
	[ "$status" -eq 0 ]
	[[ ${lines[0]} == "Usage: ckpt-inspect [OPTIONS] CHAIN|IMAGE" ]]
	for option in processes threads segments files json at verify page verbose quiet help; do
		[[ $output == *"--$option"* ]]
	done
	while IFS= read -r line; do [ "${#line}" -le 80 ]; done <<<"$output"
	run bash -c '"$1" --version 2>/dev/null' - "$inspect"
	[ "$status" -eq 0 ]
	[[ $output =~ ^ckpt-inspect\ [0-9]+\.[0-9]+ ]]
	[ "$("$inspect" --help c extra)" = "$("$inspect" -h)" ]
}

@test "misuse names the bad argument and exits 2" {
	misuse "unknown option '--frob'" --frob c
	misuse "unknown option '-Z'" -pZ c
	misuse "option '--at' needs an argument" --at
	misuse "option '--json' takes no argument" --json=yes c
	misuse "option '--ver' is ambiguous" --ver c
	misuse "invalid N 'x' for --at" --at x c
	misuse "invalid N '3x' for --at" --at 3x c
	misuse "invalid PID:ADDRESS '12' for --page" --page 12 c
	misuse "invalid PID:ADDRESS '12:' for --page" --page 12: c
	misuse "invalid PID:ADDRESS '12:-1' for --page" --page 12:-1 c
	misuse "invalid PID:ADDRESS 'x:1' for --page" --page x:1 c
	misuse "invalid PID:ADDRESS '12:1g' for --page" --page 12:1g c
	misuse "one at a time" --json --verify c
	misuse "which CHAIN or IMAGE" --json
	misuse "unexpected argument 'd'" c d
}

@test "a chain: its list, and a summary of the newest complete image" {
	run "$inspect" c
	echo "$output"
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ ^chain\ +c$ ]]
	[[ ${lines[1]} =~ ^images\ +4$ ]]
	[[ ${lines[2]} =~ ^job\ +not\ finished$ ]]
	[[ $output =~ \ 1\ \ full\ .*complete ]]
	[[ $output =~ \ 4\ \ incremental\ .*complete ]]
	[[ $output =~ image\ +c/000004.img ]]
	[[ $output =~ job\ +job\ two\ words ]]
	[[ $output =~ processes\ +3 ]]
	[[ $output =~ threads\ +9 ]]
}

@test "a finished chain says how the job ended" {
	echo "exit 7" >c/finished
	run "$inspect" c
	[ "$status" -eq 0 ]
	[[ $output =~ finished:\ exit\ 7 ]]
	[ "$("$inspect" --json c | jq -r .chain.finished)" = "exit 7" ]
}

@test "an image by itself, and --at" {
	run "$inspect" c/000002.img
	[ "$status" -eq 0 ]
	[[ ${lines[0]} =~ ^image\ +c/000002.img$ ]]
	[[ $output == *"number     2, incremental"* ]]
	run "$inspect" --at 2 c
	[ "$status" -eq 0 ]
	[[ $output == *"number     2, incremental"* ]]
	run "$inspect" --at 9 c
	[ "$status" -eq 1 ]
	[ "$output" = "ckpt-inspect: chain 'c' has no image number 9" ]
	run "$inspect" --at 2 c/000002.img
	[ "$status" -eq 1 ]
	[[ $output == *"--at needs a chain"* ]]
}

@test "the sections list every process, thread, segment and descriptor" {
	"$inspect" --json c >all.json
	run "$inspect" --processes c
	[ "$(grep -c /usr/bin/job <<<"$output")" -eq 3 ]
	[[ $output == *"101"*"(stopped)"* ]]
	run "$inspect" --threads c
	[ "$(grep -c worker <<<"$output")" -eq "$(count threads)" ]
	run "$inspect" --segments c
	[ "$(grep -cE '^ *[0-9a-f]+-[0-9a-f]+ ' <<<"$output")" -eq "$(count vmas)" ]
	run "$inspect" --files c
	[ "$(grep -cE '^ +[0-9]+ +[0-9]+ ' <<<"$output")" -eq "$(count fds)" ]
	[[ $output == *"pipe 4711, 11 bytes unread"* ]]
	run "$inspect" -ptsf c
	[ "$status" -eq 0 ]
	for title in Processes Threads Segments Files; do
		[[ $output == *"$title:"* ]]
	done
}

@test "names from the image cannot drive the terminal" {
	for option in --files --segments --processes; do
		"$inspect" $option c >out
		run grep -cP '[\x00-\x08\x0b-\x1f\x7f]' out
		[ "$output" = 0 ]
	done
	"$inspect" c >out
	run grep -cP '[\x00-\x08\x0b-\x1f\x7f]' out
	[ "$output" = 0 ]
	"$inspect" --files c | grep -qF '\x1b[31m'
	"$inspect" --files c | grep -qF '\xff'
	"$inspect" --files c | grep -qF '\xc2\x9b'
}

@test "--json has every field, and every byte of a name comes back from it" {
	"$inspect" --json c >all.json
	python3 - <<'END'
import json, os
d = json.load(open('all.json'))
assert [i['seq'] for i in d['chain']['images']] == [1, 2, 3, 4]
assert all(i['complete'] and i['why'] is None for i in d['chain']['images'])
assert d['image']['kind'] == 'incremental' and d['image']['seq'] == 4
assert d['image']['parent'] == d['chain']['images'][2]['state']
t = d['tree']
assert t['settings']['argv'] == [{'s': 'job'}, {'s': 'two words'}]
assert t['settings']['stats'] is None
files = {f['id']: f for f in t['files']}
assert os.fsencode(files[4]['path']) == b'/tmp/\xff\xc3\xa9\xe2\x82\xac\xc2\x9b'
assert os.fsencode(files[3]['path']) == b'/tmp/a "b"\t\x1b[31m\\c'
assert files[6]['detail']['packets'][0]['data'].startswith('040b12')
assert files[8]['detail']['count'] == 2**64 - 2
assert files[1]['detail'] is None and files[1]['mtime_ns'] == -1
assert files[13]['kind_name'] == 'memfd' and files[1]['mode'] == '0100644'
p = t['processes'][0]
assert p['pid'] == 100 and len(p['threads']) == 3 and p['oom_score_adj'] == -7
assert p['vmas'][0]['start'] == '0x400000'
assert p['vmas'][0]['guards'] == [{'start': '0x400000', 'end': '0x401000'}]
assert len(p['threads'][0]['gregs']) == 27 * 16 and len(p['threads'][0]['xstate']) == 832 * 2
assert p['rlimits'][0]['hard'] == 2**64 - 1
END
}

@test "--json knows every field of the schema tables" {
	"$inspect" --json c >all.json
	python3 - "$BATS_TEST_DIRNAME"/../../lib/state/schema*.c <<'END'
import json, re, sys
names = set()
def walk(v):
    if isinstance(v, dict):
        names.update(v)
        for x in v.values():
            walk(x)
    elif isinstance(v, list):
        for x in v:
            walk(x)
walk(json.load(open('all.json'))['tree'])
tables = ''.join(open(name).read() for name in sys.argv[1:])
fields = set(re.findall(r'\b(?:VAL|HEX|OCT|SUB|LIST)\(T, (\w+)', tables))
assert len(fields) > 100, len(fields)
missing = fields - names
assert not missing, missing
END
}

@test "standard output that cannot be written to is an error" {
	for option in --json --segments --help; do
		run bash -c '"$1" "$2" c >/dev/full' - "$inspect" $option
		[ "$status" -eq 1 ]
		[[ $output == "ckpt-inspect: cannot write to standard output: No space left"* ]]
	done
	# the reader has gone before anything is written
	run bash -c 'exec 4> >(:); wait $!; "$1" --json c >&4; echo "status $?"' - "$inspect"
	[[ $output == *"cannot write to standard output: Broken pipe"*"status 1" ]]
}

@test "--verify: good images, one line each; -q says nothing" {
	run "$inspect" --verify c
	[ "$status" -eq 0 ]
	[ "${#lines[@]}" -eq 4 ]
	for i in 0 1 2 3; do
		[[ ${lines[i]} == "c/00000$((i + 1)).img: good ("* ]]
	done
	run "$inspect" --verify -q c
	[ "$status" -eq 0 ]
	[ -z "$output" ]
	run "$inspect" --verify --at 2 c
	[ "$status" -eq 0 ]
	[ "${#lines[@]}" -eq 2 ]
	run "$inspect" --verify c/000003.img
	[ "$status" -eq 0 ]
	[ "${#lines[@]}" -eq 1 ]
}

@test "--verify finds a flipped bit wherever it is, and names the image" {
	size=$(stat -c %s c/000002.img)
	RANDOM=4711
	for n in 0 9 24 56 63 64 4096 $((size - 1)) $((size - 60)) $((size - 200)) \
		$((size - 5000)) $((RANDOM * 32768 % size)) $((RANDOM * 7 % size)) \
		$((RANDOM * 11 % size)); do
		cp "$CHAIN_SRC/000002.img" c/000002.img
		flip c/000002.img $n
		run "$inspect" --verify -q c
		echo "offset $n: $status $output"
		[ "$status" -eq 3 ]
		[[ $output == *"c/000002.img"* ]]
		run "$inspect" --verify c/000002.img
		[ "$status" -eq 3 ]
		[[ ${lines[-1]} == "ckpt-inspect: "*"000002.img"* ]]
		# the images beside it are looked at all the same, and are good
		run "$inspect" --verify c
		[ "$status" -eq 3 ]
		[[ $output == *"c/000001.img: good"* ]]
	done
}

@test "a truncated image, one with a missing parent, and a chain that has only such" {
	truncate -s -1 c/000004.img
	run "$inspect" --verify c
	[ "$status" -eq 3 ]
	[[ $output == *"000004.img"* ]]
	run "$inspect" c
	[ "$status" -eq 0 ]
	[[ $output == *"number     3, incremental"* ]]
	cp "$CHAIN_SRC/000004.img" c/
	rm c/000002.img
	run "$inspect" --verify c
	[ "$status" -eq 3 ]
	[[ $output == *"000003.img"*"parent"* ]]
	run "$inspect" c
	[ "$status" -eq 0 ]
	[[ $output == *"number     1, full"* ]]
	rm c/000001.img
	run "$inspect" c
	[ "$status" -eq 3 ]
	[[ $output == *"chain 'c' holds no complete image"* ]]
	[ "$("$inspect" --json c 2>/dev/null | jq '[.chain.images[].complete] | any')" = false ]
	# its tree can be looked at by number
	run "$inspect" --at 4 --processes c
	[ "$status" -eq 0 ]
}

@test "what is no image or no chain" {
	run "$inspect" nothing
	[ "$status" -eq 1 ]
	[ "$output" = "ckpt-inspect: cannot open 'nothing': No such file or directory" ]
	mkdir empty
	run "$inspect" empty
	[ "$status" -eq 3 ]
	head -c 100000 /dev/urandom >noise
	run "$inspect" noise
	[ "$status" -eq 3 ]
	[[ $output == *"'noise'"*"not a ckpt image"* ]]
	: >nil
	run "$inspect" nil
	[ "$status" -eq 3 ]
	run "$inspect" /dev/null
	[ "$status" -ne 0 ]
	mkfifo c/000005.img
	run timeout 90 "$inspect" c
	[ "$status" -eq 0 ]
	[[ $output == *"number     4, incremental"* ]]
	run timeout 90 "$inspect" --verify c
	[ "$status" -ne 0 ]
	[ "$status" -ne 124 ]
	rm c/000005.img
	ln -s 000004.img c/000005.img
	run "$inspect" c
	[ "$status" -eq 0 ]
	[[ $output == *"number     4, incremental"* ]]
}

@test "--page gives the bytes of a page, wherever in the chain they lie" {
	python3 - "$inspect" "$PAGES" <<'END'
import json, subprocess, sys
inspect, pages = sys.argv[1], int(sys.argv[2])
d = json.loads(subprocess.check_output([inspect, '--json', 'c']))
seen = set()
for p in d['tree']['processes']:
    for v in p['vmas']:
        if v['kind_name'] not in ('anonymous', 'shared'):
            continue
        start, end = int(v['start'], 16), int(v['end'], 16)
        for a in list(range(start, end, 4096))[::9]:
            out = subprocess.check_output([inspect, '--page', '%d:%x' % (p['pid'], a + 5), 'c'])
            assert len(out) == 4096
            seen.add(out)
            if p['pid'] == 101 and v['kind_name'] == 'shared':
                other = subprocess.check_output([inspect, '--page', '100:0x%x' % a, 'c'])
                assert other == out
assert len(seen) > 50 and bytes(4096) in seen, len(seen)
END
}

@test "--page says why there is none" {
	run "$inspect" --page 4711:400000 c
	[ "$status" -eq 1 ]
	[[ $output == *"no process 4711"* ]]
	run "$inspect" --page 100:1000 c
	[ "$status" -eq 1 ]
	[[ $output == *"nothing mapped at 0x1000"* ]]
	run "$inspect" --page 100:7f8000000000 c
	[ "$status" -eq 1 ]
	[[ $output == *"as in the file '/lib/libc.so.6'"* ]]
	run script -qec "$inspect --page 100:400000 c" /dev/null </dev/null
	[ "$status" -eq 1 ]
	[[ $output == *"standard output is a terminal"* ]]
	rm c/000001.img
	run "$inspect" --at 4 --page 100:400000 c
	[ "$status" -eq 3 ]
}

@test "the reader in Python agrees: segments and pages" {
	[ -f "$reader" ] || skip "no $reader"
	python3 - "$inspect" "$reader" <<'END'
import json, subprocess, sys
inspect, reader = sys.argv[1:]
d = json.loads(subprocess.check_output([inspect, '--json', 'c']))
lines = subprocess.check_output([sys.executable, reader, 'segments', 'c/000004.img']).splitlines()
vmas = [v for p in d['tree']['processes'] for v in p['vmas']]
seen = [l.split() for l in lines if len(l.split()) >= 4]
assert len(vmas) <= len(seen), (len(vmas), len(seen))
starts = [int(l[0], 16) for l in seen if l[0].strip(b'0123456789abcdefx') == b'']
assert starts == [int(v['start'], 16) for v in vmas], starts
n = 0
for a in [base + i * 4096 for base in (0x400000, 0x7f0000000000) for i in range(0, 100, 7)]:
    one = subprocess.check_output([inspect, '--page', '100:%x' % a, 'c'])
    other = subprocess.check_output([sys.executable, reader, 'page', 'c/000004.img', '100',
                                     '0x%x' % a])
    assert one == other, hex(a)
    n += 1
assert n > 20
END
}

@test "it reads in a sandbox" {
	mkfifo pipe
	exec 9<>pipe
	python3 -c 'import fcntl; fcntl.fcntl(9, 1031, 4096)' # F_SETPIPE_SZ
	"$inspect" --json c >pipe 3>&- 4>&- 9>&- &
	pid=$!
	read -r -N 1 -u 9 first # it is printing now, and blocks on the full pipe
	run grep Seccomp: /proc/$pid/status
	kill $pid
	exec 9>&-
	wait $pid || true
	[ "$first" = "{" ]
	[[ $output =~ Seccomp:[[:space:]]+2 ]]
}
