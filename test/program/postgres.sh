# SPDX-License-Identifier: BSD-2-Clause
# Usage: postgres.sh BIN ROWS   in a directory with a fresh cluster in data/: a server, and a client
# that fills a table; prints what is in it at the end. In segment: key and id of the server's
# System V segment.
bin=$1 rows=$2
here=$PWD
mkdir -p sock
"$bin/postgres" -D data -k "$here/sock" -c listen_addresses= -c shared_buffers=64MB \
	-c fsync=off -c autovacuum=off -c max_wal_size=2GB -c checkpoint_timeout=1h \
	-c logging_collector=off > server.log 2>&1 &
server=$!
sql() {
	"$bin/psql" -h "$here/sock" -U job -d postgres -qAt "$@"
}
until sql -c 'select 1' > /dev/null 2>&1; do
	kill -0 "$server" || exit 1
	sleep 0.1
done
sed -n 7p data/postmaster.pid > segment
sql -c 'create table t(a integer primary key, b text)'
for ((i = 0; i < rows; i += 1000)); do
	echo "insert into t select n, md5(n::text) from generate_series($i, $i + 999) n;"
	echo "select count(*), max(a) from t where a % 1000 < 10;"
done | sql
sql -c 'select count(*), sum(a), md5(string_agg(b, $$$$ order by a)) from t'
kill -INT "$server"
wait "$server"
echo "server ended: $?"
