#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Sockets come back: names, connections with both ends in the job, what is unread in them.

load ../lib/common

@test "sock_unix: pairs, names, connections that wait for accept, unread data, halves, threads" {
	three_generations sock_unix
}

@test "sock_flight: descriptors on their way, also those of sockets, and credentials" {
	three_generations sock_flight
}

@test "sock_tcp: connections over IPv4, more unread than there is room for, halves, accept" {
	three_generations sock_tcp 4
}

@test "sock_tcp: the same over IPv6" {
	three_generations sock_tcp 6
}

@test "sock_tcp: IPv4 to a socket of IPv6" {
	three_generations sock_tcp mapped
}

@test "sock_udp: datagrams over IPv4, with the addresses that they came from" {
	three_generations sock_udp 4
}

@test "sock_udp: the same over IPv6" {
	three_generations sock_udp 6
}

@test "sock_family: sockets between processes, which send each other descriptors" {
	three_generations sock_family
}

@test "sock_peer: who is at the other end of a unix socket, also one that has ended" {
	three_generations sock_peer
}

@test "sock_more: multicast, filters, netlink, buffers, timeouts" {
	three_generations sock_more
}

@test "sock_empty: packets and datagrams of no bytes" {
	three_generations sock_empty
}

@test "sock_outside: connections to another program come back as reset by it" {
	door server /usr/bin/python3 "$BATS_TEST_DIRNAME/../program/server.py" "$T/server"
	HOLDER=$DOOR_PID
	wait_line "$T/server.stdout" '^port '
	victim_start -- sock_outside "$(sed -n 's/^port //p' server.stdout)" "$T/server"
	victim_poke
	checkpoint
	checkpoint
	victim_poke
	victim_kill
	touch "$BASE.restarted"
	victim_restart
	checkpoint
	victim_kill
	rm "$BASE.restarted"
	victim_restart
	victim_quit
}

# relative_daemon LAUNCHER...: a job with a daemon that has bound "./d/sock" and gone away to /; it
# is found by the launcher's working directory, the daemon's environment, or ckpt-run's.
relative_daemon() {
	local round
	mkdir -p d away
	cat > daemon.py <<'PY'
import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind("./d/sock")
s.listen()
os.chdir("/")
while True:
    c = s.accept()[0]
    c.sendall(b"at " + s.getsockname().encode())
    c.close()
PY
	door run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- "$@"
	SUP_PID=$DOOR_PID
	until_true "$CKPT_TEST_WAIT" daemon_answers
	for round in 1 2; do
		checkpoint || return 1
		victim_kill || return 1
		[ -S d/sock ] && ! daemon_answers || fail "round $round: before" || return 1
		cd away || return 1 # from elsewhere
		door "restart$round" "$RESTART" "$CHAIN"
		cd ..
		SUP_PID=$DOOR_PID
		until_true "$CKPT_TEST_WAIT" daemon_answers ||
			fail "round $round: $(cat "$T/restart$round.stderr")" || return 1
	done
	kill_tree "$SUP_PID"
	rm -rf d away "$CHAIN" "$STATS"
}

daemon_answers() {
	[ "$(/usr/bin/python3 -c 'import socket
s = socket.socket(socket.AF_UNIX)
s.connect("d/sock")
print(s.recv(100).decode())' 2>/dev/null)" = "at ./d/sock" ]
}

@test "a daemon that has left the directory from which its socket's name counts has it again" {
	relative_daemon env PWD=/usr bash -c 'unset PWD; /usr/bin/python3 daemon.py; wait'
	relative_daemon env PWD="$T" /usr/bin/python3 daemon.py
}

# --- names that are taken -------------------------------------------------------------------------

# taken COMMAND REGEX: with that done between the kill and the restart nothing is started, and why
# is said.
taken() {
	victim_start -- sock_unix
	checkpoint
	victim_kill
	eval "$1"
	run fg 30 "$RESTART" "$CHAIN"
	[ "$status" -eq 125 ] || fail "status $status: $output" || return 1
	[[ $output =~ $2 ]] || fail "not so: $output" || return 1
	[ -z "$(test_processes | grep -vx "${HOLDER:-none}")" ] || fail "something was started"
}

# A program that holds an address until the test ends.
hold() {
	door hold /usr/bin/python3 -c "import socket, time
s = socket.socket($1)
$2
print('held', flush=True)
time.sleep(1000)"
	HOLDER=$DOOR_PID
	wait_line "$T/hold.stdout" held
}

@test "a name that another program has taken is an error that names it" {
	taken 'rm "$BASE.sock"; hold socket.AF_UNIX "s.bind(\"$BASE.sock\"); s.listen()"' \
		"pid [0-9]+ fd [0-9]+: the socket name '$BASE.sock' is in use by another program"
	# it was not disturbed
	[ -S "$BASE.sock" ]
	kill -9 "$HOLDER"
	wait_gone "$HOLDER"
	victim_restart
	victim_quit
}

@test "an abstract name that another program has taken is an error that names it" {
	taken 'hold "socket.AF_UNIX, socket.SOCK_SEQPACKET" \
		"s.bind(b\"\\0\" + b\"$BASE.abstract\"); s.listen()"' \
		"the socket name '@$BASE.abstract' is in use by another program"
}

@test "a file where a socket was is not touched" {
	taken 'rm "$BASE.sock"; echo precious > "$BASE.sock"' \
		"'$BASE.sock' is not a socket any more"
	[ "$(cat "$BASE.sock")" = precious ]
}

@test "a directory that is not there any more is an error that names the socket" {
	mkdir dir
	BASE=$T/dir/v
	victim_start -- sock_unix
	checkpoint
	victim_kill
	mv dir moved
	run fg 30 "$RESTART" "$CHAIN"
	[ "$status" -eq 125 ]
	[[ $output == *"$T/dir/v.sock"* ]]
	until_true 20 nothing_left
}

@test "a TCP port that another program has taken is an error that names it" {
	victim_start -- sock_tcp
	checkpoint
	victim_kill
	local port
	port=$(fg 30 "$INSPECT" --json "$CHAIN" | jq -r \
		'[.. | objects | select(.state? == 2 and .family? == 2)][0].local' | cut -c 5-8)
	hold socket.AF_INET "s.setsockopt(1, 2, 1); s.bind((\"\", 0x$port)); s.listen()"
	run fg 30 "$RESTART" "$CHAIN"
	[ "$status" -eq 125 ]
	[[ $output =~ pid\ [0-9]+\ fd\ [0-9]+:\ port\ $((0x$port))\ is\ in\ use ]]
	[ "$(test_processes)" = "$HOLDER" ]
	kill -9 "$HOLDER"
	wait_gone "$HOLDER"
	victim_restart
	victim_quit
}

# --- ports that ended connections hold ------------------------------------------------------------

# Without the right to end whatever is in the way.
plainly() {
	local as=()
	! is_root || as=(setpriv --bounding-set=-net_admin)
	door "$1" "${as[@]}" "${@:2}"
}

ask() { # ADDRESS PORT WORD: what it answers
	/usr/bin/python3 -c 'import socket, sys
s = socket.create_connection(sys.argv[1:3], 90)
s.sendall(sys.argv[3].encode() + b"\n")
print(s.recv(100).decode(), end="")' "$@"
}

# start_service ADDRESS: it is checkpointed and killed; PORT and PEER are the ended connection's.
start_service() {
	plainly run1 "$RUN" -o "$CHAIN" --stats "$STATS" -- \
		/usr/bin/python3 "$BATS_TEST_DIRNAME/../program/leftover.py" "$1"
	SUP_PID=$DOOR_PID
	wait_line run1.stdout '^port ' || return 1
	read -r _ PORT PEER < run1.stdout
	checkpoint || return 1
	kill_tree "$SUP_PID"
}

answers() {
	[ "$(ask "$1" "$PORT" hello 2>/dev/null)" = 0 ]
}

# The service is as it was, and ends when it is asked to.
end_service() {
	[ "$(ask "$1" "$PORT" end)" = 0 ] || return 1
	exit_of "$SUP_PID" 30
	[ "$STATUS" -eq 0 ]
}

@test "a port that ended connections of the job hold (TIME_WAIT) is had at once" {
	local address
	for address in 127.0.0.1 ::1; do
		/usr/bin/python3 -c 'import socket, sys
socket.create_server((sys.argv[1], 0), family=10 if ":" in sys.argv[1] else 2)' \
			"$address" 2>/dev/null || continue
		start_service "$address"
		plainly restart1 "$RESTART" "$CHAIN"
		SUP_PID=$DOOR_PID
		until_true 40 answers "$address"
		end_service "$address"
		! grep -q 'waiting for' restart1.stderr || fail "it waited"
		rm -rf "$CHAIN" "$STATS" ./*.std*
	done
}

@test "a port that they hold for a while is waited for, and Ctrl-C ends that" {
	start_service 127.0.0.1
	hold socket.AF_INET "s.bind(('127.0.0.1', $PEER))"
	plainly restart1 "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	wait_line restart1.stderr \
		"waiting for 127.0.0.1 port $PORT, at most [0-9]+ s: connections that ended"
	kill -INT "$SUP_PID"
	exit_of "$SUP_PID" 30
	[ "$STATUS" -eq 130 ]
	[ "$(test_processes)" = "$HOLDER" ]
	[ "$(grep -c waiting restart1.stderr)" -eq 1 ]
	plainly restart2 "$RESTART" "$CHAIN"
	SUP_PID=$DOOR_PID
	wait_line restart2.stderr "waiting for 127.0.0.1 port $PORT"
	kill -9 "$HOLDER"
	wait_gone "$HOLDER"
	until_true 40 answers 127.0.0.1
	end_service 127.0.0.1
}

@test "a restart that fails among the sockets leaves nothing behind and can be tried again" {
	local point
	victim_start -- sock_unix
	checkpoint
	victim_kill
	for point in sockets_make sockets_fill files_place; do
		KEEP=("CKPT_FAULT=$point")
		run fg 30 "$RESTART" "$CHAIN"
		[ "$status" -eq 125 ] || fail "$point: status $status: $output"
		[[ $output == *"$point"* ]]
		until_true 20 nothing_left
	done
	KEEP=()
	victim_restart
	victim_quit
}

@test "a checkpoint that fails among the sockets leaves them as they were" {
	KEEP=(CKPT_FAULT=sockets_survey)
	victim_start -- sock_flight
	real_attempt
	[ "$(stats_last result)" = failed ]
	victim_poke
	checkpoint
	victim_poke
	victim_quit
}

# --- connections that stay open -------------------------------------------------------------------

# door, inside of the network namespace.
net_door() {
	local name=$1
	shift
	door "$name" nsenter --net="/proc/$NETNS/ns/net" "$@"
}

step() {
	touch "$T/step.$1"
	wait_line "$T/answers" "^$(($1 * $1))\$"
}

@test "--tcp repair: a connection to another program stays open" {
	local round program=$BATS_TEST_DIRNAME/../program/count.py
	is_root || skip "needs CAP_NET_ADMIN"
	unshare -n true 2>/dev/null || skip "no network namespace here"
	door net unshare -n /usr/bin/python3 -c 'import fcntl, socket, struct, time
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))
print("up", flush=True)
time.sleep(1000)'
	wait_line net.stdout up || skip "no network in the namespace"
	NETNS=$DOOR_PID
	net_door server /usr/bin/python3 "$program" server
	wait_line server.stdout '^port '
	net_door run1 "$RUN" -o "$CHAIN" --stats "$STATS" --tcp repair --on-term checkpoint -- \
		/usr/bin/python3 "$program" client "$(sed -n 's/^port //p' server.stdout)" \
		"$T/step" "$T/answers"
	SUP_PID=$DOOR_PID
	step 1
	checkpoint
	step 2
	for round in 3 5 7; do
		kill -TERM "$SUP_PID"
		exit_of "$SUP_PID" 40
		[ "$STATUS" -eq 75 ] || fail "status $STATUS: $(cat ./*.stderr)"
		sleep 0.6 # the other end would have repeated by now what nobody acknowledged
		net_door "restart$round" "$RESTART" --tcp repair "$CHAIN"
		SUP_PID=$DOOR_PID
		step "$round"
		step $((round + 1))
	done
	[ "$(grep -c connection server.stdout)" -eq 1 ]
	! grep -q lost server.stdout
	# and without being asked to, it is reset
	kill -TERM "$SUP_PID"
	exit_of "$SUP_PID" 40
	touch step.9
	net_door restart9 "$RESTART" "$CHAIN"
	exit_of "$DOOR_PID" 40
	[ "$STATUS" -eq 1 ]
	grep -q ConnectionResetError restart9.stderr run1.stderr
}
