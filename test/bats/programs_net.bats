#!/usr/bin/env bats
# SPDX-License-Identifier: BSD-2-Clause
# Programs that talk over sockets: killed and restarted three times at random moments; the answer or
# the service must be as before.

load ../lib/common
load ../lib/program

# has_later_ok THAN: a checkpoint that began when there were so many. The first new one may have
# begun before.
has_later_ok() {
	[ "$(tail -n +"$(($1 + 2))" "$STATS" 2>/dev/null | grep -c '"result": *"ok"')" -ge 1 ]
}

# serve_through COMMAND CHECK: a server under ckpt-run, killed and restarted at random moments;
# CHECK must hold before, between and after.
serve_through() {
	local round before seed=${CKPT_TEST_SEED:-$RANDOM} m
	echo "seed $seed (CKPT_TEST_SEED)"
	RANDOM=$seed
	door run1 "$RUN" -q -i 0.3 -o "$CHAIN" --stats "$STATS" -- $1
	SUP_PID=$DOOR_PID
	until_true 60 "$2" || fail "it does not serve without ckpt-restart" || return 1
	before=$(stats_count)
	for round in 1 2 3; do
		until_true 60 has_later_ok "$before" || fail "round $round: no checkpoint" ||
			return 1
		m=$((RANDOM % 600))
		sleep "0.$(printf '%03d' $m)"
		kill_tree "$SUP_PID" || return 1
		before=$(stats_count)
		door "restart$round" "$RESTART" -q "$CHAIN"
		SUP_PID=$DOOR_PID
		until_true 60 "$2" || fail "round $round: it does not serve any more" || return 1
	done
}

# None that the system gives to whoever asks for any: it must be free after each restart, too.
free_port() {
	"$PYTHON" -c 'import random, socket
while True:
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(12000, 30000)))
        break
    except OSError:
        pass
print(s.getsockname()[1])'
}

@test "an asyncio server with clients in threads of the same process" {
	same_answer "$PYTHON $PROGRAMS/chat.py threads 12000" out
}

@test "an asyncio server with clients in other processes of the job" {
	same_answer "$PYTHON $PROGRAMS/chat.py processes 12000" out
}

# Everything that was written before the first checkpoint is there, and writing goes on.
redis_is_well() {
	[ "$(redis-cli -p "$PORT" get first 2>/dev/null)" = value ] &&
		[ "$(redis-cli -p "$PORT" debug digest 2>/dev/null)" = "$DIGEST" ]
}

redis_answers() {
	[ "$(redis-cli -p "$PORT" ping 2>/dev/null)" = PONG ]
}

@test "redis-server with data, and a client outside that connects again" {
	need redis-server
	local round before m
	PORT=$(free_port)
	RANDOM=${CKPT_TEST_SEED:-$RANDOM}
	door run1 "$RUN" -q -o "$CHAIN" --stats "$STATS" -- \
		redis-server --port "$PORT" --bind 127.0.0.1 --save "" --appendonly no \
		--enable-debug-command yes --dir "$T"
	SUP_PID=$DOOR_PID
	until_true 60 redis_answers
	redis-cli -p "$PORT" set first value
	redis-cli -p "$PORT" debug populate 20000 key 100
	DIGEST=$(redis-cli -p "$PORT" debug digest)
	[ "${#DIGEST}" -eq 40 ]
	# a client that stays connected is reset, and connects again
	door client "$PYTHON" "$PROGRAMS/pinger.py" "$PORT"
	wait_line client.stdout '^pong 100$'
	for round in 1 2 3; do
		checkpoint
		m=$((RANDOM % 300))
		sleep "0.$(printf '%03d' $m)"
		kill_tree "$SUP_PID"
		before=$(tail -n 1 client.stdout)
		door "restart$round" "$RESTART" -q "$CHAIN"
		SUP_PID=$DOOR_PID
		until_true 60 redis_is_well
		wait_line client.stdout "^pong $((${before#pong } + 100))\$"
	done
	redis-cli -p "$PORT" shutdown nosave || true
	exit_of "$SUP_PID" 60
	[ "$STATUS" -eq 0 ]
}

@test "redis-server with its client in the job: neither notices" {
	need redis-server
	PORT=$(free_port)
	cat > both.sh <<-'SH'
		redis-server --port 0 --unixsocket ./redis.sock --save "" --appendonly no > log &
		server=$!
		until redis-cli -s redis.sock ping > pong && grep -q PONG pong; do sleep 0.1; done
		i=0
		while [ $i -lt 1500 ]; do
			echo "incrby sum $i"
			echo "append text $i,"
			echo "strlen text"
			i=$((i + 1))
		done > commands
		for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
			redis-cli -s redis.sock < commands > answers.$n
		done
		redis-cli -s redis.sock get sum > out
		redis-cli -s redis.sock get text >> out
		cat answers.* >> out
		redis-cli -s redis.sock shutdown nosave
		wait $server
	SH
	same_answer "sh $T/both.sh" out
}

nginx_serves() {
	"$PYTHON" -c 'import sys, urllib.request
data = urllib.request.urlopen("http://127.0.0.1:%s/file" % sys.argv[1], timeout=90).read()
sys.exit(data != open(sys.argv[2], "rb").read())' "$PORT" "$T/www/file" 2>/dev/null
}

@test "nginx with two workers serves a file as before" {
	[ -x /usr/sbin/nginx ] || skip "nginx is not installed (test/run --with-programs)"
	local children
	PORT=$(free_port)
	mkdir www tmp
	chmod 755 . www tmp
	head -c 3000000 /dev/urandom > www/file
	cat > nginx.conf <<-CONF
		daemon off;
		worker_processes 2;
		pid $T/nginx.pid;
		error_log $T/error.log;
		$(is_root && echo "user root;")
		events { worker_connections 64; }
		http {
			access_log $T/access.log;
			client_body_temp_path $T/tmp/b;
			proxy_temp_path $T/tmp/p;
			fastcgi_temp_path $T/tmp/f;
			uwsgi_temp_path $T/tmp/u;
			scgi_temp_path $T/tmp/s;
			server { listen 127.0.0.1:$PORT; root $T/www; }
		}
	CONF
	serve_through "/usr/sbin/nginx -c $T/nginx.conf -p $T -e $T/error.log" nginx_serves
	children=$(descendants "$SUP_PID" | wc -l)
	[ "$children" -ge 3 ]
	! grep -qE 'alert|emerg' error.log || fail "$(cat error.log)"
	# it ends as it should: the master tells its workers
	kill -QUIT "$SUP_PID" || true
	kill_tree "$SUP_PID"
}

node_serves() {
	"$PYTHON" "$PROGRAMS/service_client.py" "$PORT" "$T/remembered" 2> "$T/client.stderr"
}

@test "a node.js service with timers and worker threads, asked from outside" {
	need node
	PORT=$(free_port)
	serve_through "node $PROGRAMS/service.js $PORT" node_serves
	kill_tree "$SUP_PID"
}
