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
  : >"$work/serve.txt" # else the loop may still see what the broker before it said
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

say '4. More lines come in, one by one; the broker is killed with -9 in the middle'
printf '$ zmqmq produce lines --rate 400/s -o "%%o\\t%%v\\n" < %s > acknowledged.txt &\n' "$(basename "$lines")"
zmqmq produce lines --rate 400/s -o '%o\t%v\n' <"$lines" >"$work/acknowledged.txt" 2>"$work/second.err" &
producer=$!
tries=0
until [ "$(wc -l <"$work/acknowledged.txt")" -gt 20 ] || [ "$tries" -gt 50 ]; do
  tries=$((tries + 1))
  sleep 0.1
done
printf '$ kill -9 %s\n' "$server"
kill -9 "$server"
wait "$server" 2>/dev/null || :
kill -9 "$producer" 2>/dev/null || :
wait "$producer" 2>/dev/null || :
acknowledged=$(wc -l <"$work/acknowledged.txt")
head -n "$acknowledged" "$work/acknowledged.txt" >"$work/whole.txt" # the last line may be cut
mv "$work/whole.txt" "$work/acknowledged.txt"
echo "$acknowledged more lines were acknowledged before that"

say '5. Restarted on the same directory: opening is recovering'
start

say '6. Every acknowledged line is read again, at its offset'
count=$(wc -l <"$lines")
printf '$ zmqmq consume lines -o start -n %s -f "%%v\\n" > again.txt\n' "$count"
zmqmq consume lines -o start -n "$count" -f '%v\n' >"$work/again.txt"
run cmp "$lines" "$work/again.txt"
zmqmq consume lines -o "$count" -e -f '%o\t%v\n' >"$work/later.txt"
head -n "$acknowledged" "$work/later.txt" >"$work/later-acknowledged.txt"
run cmp "$work/acknowledged.txt" "$work/later-acknowledged.txt"
echo "the same lines in the same order, those that were acknowledged just before the kill too"

kill "$server"
wait "$server" || :
server=
say '7. Offline: every batch, both checksums, offsets without a gap'
run zmqmq log verify "$work/data"
