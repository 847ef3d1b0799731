#!/bin/sh
# The main job, visibly: a broker with data on disk, real lines in, tailed; the broker killed with -9, restarted; the same lines read again.
# Needs the `zmqmq` command on PATH; `make demo` takes care of that. LINES_FILE=… takes the lines from another file.
set -eu
lines=${LINES_FILE:-"$(dirname "$0")/../LICENSE"}
work=$(mktemp -d)
server=
trap 'test -z "$server" || kill -9 "$server" 2>/dev/null || :; rm -rf "$work"' EXIT INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

start() {
  printf '$ zmqmq serve --data %s --listen tcp://127.0.0.1:0 --http 127.0.0.1:0 &\n' "$work/data"
  zmqmq serve --data "$work/data" --listen tcp://127.0.0.1:0 --http 127.0.0.1:0 >"$work/serve.txt" 2>"$work/serve.err" &
  server=$!
  tries=0
  until grep -q '^ready' "$work/serve.txt"; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
      cat "$work/serve.txt" "$work/serve.err" >&2
      echo "the broker did not start" >&2
      exit 1
    fi
    sleep 0.1
  done
  cat "$work/serve.txt"
  ZMQMQ_BROKERS=$(grep -o 'tcp://[^ ]*' "$work/serve.txt" | head -n 1)
  export ZMQMQ_BROKERS
}

say '1. A broker with its data on disk'
start

say "2. The lines of $(basename "$lines") go in; each receipt says that they are on disk"
run zmqmq topic create lines
printf '$ zmqmq produce lines < %s\n' "$(basename "$lines")"
zmqmq produce lines <"$lines"

say '3. Tail them'
run zmqmq tail lines -o -3 -e

say '4. The broker is killed with -9 while more lines come in'
printf '$ zmqmq produce lines --rate 200/s < %s &\n' "$(basename "$lines")"
zmqmq produce lines --rate 200/s <"$lines" >/dev/null 2>"$work/second.err" &
producer=$!
sleep 0.5
printf '$ kill -9 %s\n' "$server"
kill -9 "$server"
wait "$server" 2>/dev/null || :
kill "$producer" 2>/dev/null || :
wait "$producer" 2>/dev/null || :

say '5. Restarted on the same directory: opening is recovering'
start
run zmqmq topic describe lines

say '6. Read from the beginning, and compared with the file'
count=$(wc -l <"$lines")
printf '$ zmqmq consume lines -o start -n %s -f "%%v\\n" > again.txt\n' "$count"
zmqmq consume lines -o start -n "$count" -f '%v\n' >"$work/again.txt"
run cmp "$lines" "$work/again.txt"
echo "all $count acknowledged lines are there: the same lines in the same order"

kill "$server"
wait "$server" || :
server=
say '7. Offline: every batch, both checksums, offsets without a gap'
run zmqmq log verify "$work/data"
