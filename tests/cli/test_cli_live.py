"""The real command against a live broker."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live import COMMAND, SECONDS_MAX, Command, ServeProcess

from zmqmq_cli.main import run

Zmqmq = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    process = ServeProcess(tmp_path_factory.mktemp("live") / "data")
    yield process
    process.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def command(broker: ServeProcess) -> Command:
    return Command(broker.url)


@pytest.fixture
def zmqmq(broker: ServeProcess, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Zmqmq:
    """The command within this process, because starting Python costs more than most tests: code, stdout, stderr."""
    monkeypatch.setenv("ZMQMQ_BROKERS", broker.url)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments)
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return call


# --- the first five minutes


def test_the_first_five_minutes(command: Command, tmp_path: Path) -> None:
    done = command.shell("zmqmq topic create first -p 3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "created first  partitions 3  replication 1\n", "")

    done = command.shell(r"printf 'ann:10\nbob:20\nann:30\n' | zmqmq produce first -K :")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"3 messages, 3 acked, 0 failed, [\d.]+ ms\n", done.stderr)

    done = command.shell(r"zmqmq consume first -o start -e -f '%p %o %k=%v\n' | sort")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0 0 ann=10\n0 1 ann=30\n1 0 bob=20\n"

    done = command.shell("zmqmq consume first -p 0 -o start -n 2 -J")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert list(first) == ["topic", "partition", "offset", "timestamp", "key", "value", "headers"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("timestamp"))
    assert first == {"topic": "first", "partition": 0, "offset": 0, "key": "ann", "value": "10", "headers": {}}
    assert second["value"] == "30"

    done = command.shell(f"zmqmq bench all -n 2000 -s 100 --rate 2000 --no-progress --csv {tmp_path}/bench.csv")
    assert (done.returncode, done.stderr) == (0, "")
    produce, consume, e2e = done.stdout.splitlines()
    assert re.match(r"produce  2,000 msgs  100 B +acks=all  .* msg/s  .* MB/s   p50 .* ms  p99 .* ms  p99.9 .* ms  max .* ms", produce)
    assert re.match(r"consume  2,000 msgs +.* msg/s  .* MB/s$", consume)
    assert re.match(r"e2e      at 2,000 msg/s \(open loop\)   p50", e2e)
    assert len((tmp_path / "bench.csv").read_text().splitlines()) == 4
    assert "bench-" not in command.shell("zmqmq topic list").stdout


def test_tail_shows_lines_as_they_come_and_ctrl_c_is_a_normal_end(command: Command) -> None:
    command("topic", "create", "tailed")
    command("produce", "tailed", "10", "-k", "ann")
    tail = command.start("tail", "tailed", "-o", "start")
    assert tail.stdout is not None
    assert re.fullmatch(r"tailed-0@0  \d\d:\d\d:\d\d\.\d{3}  ann  10\n", tail.stdout.readline())
    command("produce", "tailed", "20")
    assert re.fullmatch(r"tailed-0@1  \S+  -  20\n", tail.stdout.readline())
    tail.send_signal(signal.SIGINT)
    assert tail.communicate(timeout=SECONDS_MAX) == ("", "")
    assert tail.returncode == 0


def test_ctrl_c_on_anything_else_is_130(command: Command) -> None:
    slow = command.start("produce", "nothing", "--create", "--rate", "1/s", "--repeat", "1000", "-o", r"%o\n", "x")
    assert slow.stdout is not None
    assert slow.stdout.readline() == "0\n"
    slow.send_signal(signal.SIGINT)
    _, said = slow.communicate(timeout=SECONDS_MAX)
    assert slow.returncode == 130
    assert re.search(r"acked, 0 failed", said)


def test_a_reader_that_goes_away_ends_the_command_quietly(command: Command) -> None:
    command.shell("seq 1 20000 | zmqmq produce piped --create -q")
    done = command.shell("zmqmq consume piped -f '%v\\n' | head -1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    done = command.shell("seq 1 5000 | zmqmq produce piped -o '%o\\n' | head -1")
    assert (done.returncode, done.stdout) == (0, "20000\n")
    assert "5,000 messages, 5,000 acked, 0 failed" in done.stderr


def test_a_follower_whose_reader_went_away_ends_without_waiting_for_the_next_record(command: Command) -> None:
    for name in ("left", "left2"):
        command("produce", name, "1", "2", "--create")
    for topics in ("left", "left left2"):
        done = command.shell(f"zmqmq tail {topics} -o start -f '%v\\n' | head -1")
        assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


# --- serve


def test_serve_tells_its_ports_and_is_ready(broker: ServeProcess) -> None:
    assert re.match(r"zmqmq \S+  node 0  cluster \S{4}…  data /\S+\n  clients  tcp://127.0.0.1:\d+     http  http://127", broker.banner)
    assert "try:  zmqmq topic create hello" in broker.banner
    with urllib.request.urlopen(f"{broker.http}/readyz", timeout=SECONDS_MAX) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_serve_ends_cleanly_by_signal_and_logs_as_json(how: signal.Signals, code: int, tmp_path: Path) -> None:
    process = ServeProcess(tmp_path / "data", "--log-format", "json", "--log-level", "debug")
    returned, said = process.end(how)
    assert returned == code
    *logged, last = said.splitlines()
    assert last == "stopped"
    assert all(set(json.loads(line)) >= {"time", "level", "logger", "message"} for line in logged)


def test_serve_refuses_what_cannot_be_in_three_lines(broker: ServeProcess, zmqmq: Zmqmq, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = {
            1: [
                ("serve", "--data", str(tmp_path / "a"), "--listen", f"tcp://127.0.0.1:{port}", "--http", "none"),
                ("serve", "--data", str(tmp_path / "b"), "--listen", "tcp://127.0.0.1:0", "--http", f"127.0.0.1:{port}"),
                ("serve", "--data", str(broker.data), "--listen", "tcp://127.0.0.1:0", "--http", "none"),
            ],
            2: [
                ("serve", "--data", str(tmp_path / "c"), "--listen", "tcp://192.0.2.1:5570"),
                ("serve", "--config", str(tmp_path / "missing.toml")),
                ("serve", "--check", "--http", "nonsense"),
            ],
        }
        for code, commands in refused.items():
            for arguments in commands:
                returned, out, said = zmqmq(*arguments)
                assert (returned, out, len(said.splitlines())) == (code, "", 3), (arguments, said)
                assert said.startswith("Error: ")


def test_a_printed_configuration_is_read_back_to_the_same(zmqmq: Zmqmq, tmp_path: Path) -> None:
    code, printed, _ = zmqmq("serve", "--node-id", "7", "--data", "d", "--listen", "tcp://127.0.0.1:1234", "--print-config")
    assert code == 0
    file = tmp_path / "zmqmq.toml"
    file.write_text(printed)
    assert zmqmq("serve", "--config", str(file), "--print-config")[1] == printed
    assert zmqmq("serve", "--config", str(file), "--check")[0] == 0
    file.write_text("node_idd = 7")
    code, _, said = zmqmq("serve", "--config", str(file), "--check")
    assert code == 2
    assert "did you mean node_id?" in said


# --- errors and exit codes


def test_an_unknown_topic_is_told_in_three_lines(broker: ServeProcess, zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "errands", "unlike")
    code, out, said = zmqmq("produce", "errnads", "1")
    assert (code, out) == (4, "")
    assert said.splitlines() == [
        f"Error: topic 'errnads' does not exist on {broker.url}",
        "  Similar: errands",
        "  Create it with:  zmqmq topic create errnads   (or add --create to produce)",
    ]


def test_exit_codes_let_scripts_branch(zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "codes")
    expected = {
        ("topic", "create", "codes", "--if-not-exists"): 0,
        ("topic", "create", "codes"): 1,
        ("topic", "create", "no spaces"): 2,
        ("topic", "create", "codes2", "-c", "retention_sm=7d"): 2,
        ("topic", "describe", "nope"): 4,
        ("topic", "delete", "nope", "--yes"): 4,
        ("topic", "alter", "nope", "--set", "retention_ms=1d"): 4,
        ("topic", "offsets", "nope"): 4,
        ("consume", "nope", "-e"): 4,
        ("consume", "no.*pe", "-r", "-e"): 4,
        ("consume", "codes", "-p", "7", "-e"): 4,
        ("produce", "codes", "1", "-p", "7"): 2,
        ("produce", "codes", "x" * 1_100_000): 1,
        ("ping",): 0,
    }
    for arguments, code in expected.items():
        returned, _, said = zmqmq(*arguments)
        shown = tuple(argument[:40] for argument in arguments)
        assert returned == code, (shown, said)
        assert said.count("Error: ") == (0 if code == 0 else 1), (shown, said)


# --- produce and consume


def test_produce_takes_keys_headers_partitions_and_prints_receipts_in_order(zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "kinds", "-p", "2")
    code, out, said = zmqmq(
        "produce", "kinds", "a", "b", "-k", "key", "-H", "x=1", "-H", "y=2", "-p", "1", "--repeat", "2", "-o", r"%t-%p@%o %v\n"
    )
    assert (code, out) == (0, "kinds-1@0 a\nkinds-1@1 a\nkinds-1@2 b\nkinds-1@3 b\n")
    assert said.startswith("4 messages, 4 acked, 0 failed, ")
    assert zmqmq("consume", "kinds", "-n", "1", "-f", "%k %v %h %H")[1] == "key a x=1,y=2 2"
    assert zmqmq("produce", "kinds", "c", "--acks", "0", "-o", "%o")[1] == "-1"
    zmqmq("produce", "kinds", "", "-k", "gone", "-Z", "-p", "0")
    assert '"key":"gone","value":null' in zmqmq("consume", "kinds", "-p", "0", "-e", "-J")[1]


def test_produce_reads_files_delimiters_formats_and_json(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one\r\ntwo\n\nlast")
    command("produce", "inputs", "--create", "--file", str(file))
    command("produce", "inputs", "--file", str(file), "-l")
    command("produce", "inputs", "--null", stdin="a\nb\0c")
    command("produce", "inputs", "-f", r"%k=%v;", stdin="k1=v1;k2=v2;")
    done = command("consume", "inputs", "-e", "-f", "%k|%v\\0")
    values = done.stdout.split("\0")
    assert values == ["|one\r\ntwo\n\nlast", "|one\r", "|two", "|", "|last", "|a\nb", "|c", "k1|v1", "k2|v2", ""]
    lines = command("consume", "inputs", "-e", "-J").stdout
    command("produce", "copied", "--create", "-f", "json", stdin=lines)
    assert command("consume", "copied", "-e", "-J").stdout == lines.replace('"inputs"', '"copied"')


def test_input_that_does_not_fit_stops_there_and_says_what_was_sent(command: Command) -> None:
    done = command("produce", "misfit", "--create", "-f", r"%k=%v\n", stdin="a=1\nb=2\nnonsense\nc=3\n")
    assert done.returncode == 2
    summary, *error = done.stderr.splitlines()
    assert summary.startswith("2 messages, 2 acked, 0 failed")
    assert error[0] == r"Error: stdin:3: input 'nonsense' does not fit the format '%k=%v\\n'"
    assert command("consume", "misfit", "-e", "-f", "%k ").stdout == "a b "


def test_consume_finds_its_place_and_its_end(zmqmq: Zmqmq) -> None:
    zmqmq("produce", "places", "--create", "-q", *map(str, range(10)))
    expected = {
        ("-e",): "0123456789",
        ("-o", "7", "-e"): "789",
        ("-o", "-3", "-e"): "789",
        ("-o", "+8", "-e"): "89",
        ("-o", "2:5"): "234",
        ("-o", ":3"): "012",
        ("-o", "5:end"): "56789",
        ("-o", "@-1h", "-n", "2"): "01",
        ("-o", "@-2h:-1h"): "",
        ("-o", "s@-1h", "-o", "e@-0s"): "0123456789",
        ("-o", "end", "--idle-timeout", "50ms"): "",
        ("-e", "--grep", "[37]"): "37",
        ("-e", "--where", 'value in ["4", "6"] and offset < 5'): "4",
        ("-e", "--max-bytes", "4"): "0123",
    }
    for options, values in expected.items():
        code, out, said = zmqmq("consume", "places", "-f", "%v", *options)
        assert (code, out, said) == (0, values, ""), options


def test_consume_shows_values_as_asked(zmqmq: Zmqmq) -> None:
    zmqmq("produce", "shown", "--create", "-q", '{"id": 1}', "-H", "a=b")
    assert zmqmq("consume", "shown", "-e", "--headers")[1].endswith('  -  {"id": 1}  a=b\n')
    assert json.loads(zmqmq("consume", "shown", "-e", "-J", "--decode", "json")[1])["value"] == {"id": 1}
    assert zmqmq("consume", "shown", "-e", "-f", "%v", "--decode", "hex")[1] == b'{"id": 1}'.hex()
    zmqmq("produce", "shown", "-q", "not json")
    code, _, said = zmqmq("consume", "shown", "-e", "-J", "--decode", "json")
    assert code == 1
    assert "not json" in said


def test_consume_reads_several_topics_and_patterns(zmqmq: Zmqmq) -> None:
    for name in ("many.a", "many.b", "many.c"):
        zmqmq("produce", name, "--create", "-q", name)
    for arguments in (("many.a", "many.b", "many.c", "-e"), ("many[.].", "-r", "-e"), ("many.*", "-r", "--idle-timeout", "300ms")):
        code, out, _ = zmqmq("consume", *arguments, "-f", r"%v\n")
        assert (code, sorted(out.split())) == (0, ["many.a", "many.b", "many.c"])


# --- topics


def test_topics_are_listed_described_altered_trimmed_and_deleted(zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "life", "-p", "2", "-c", "retention_ms=3d")
    zmqmq("produce", "life", "1", "2", "3", "-p", "1", "-q")
    assert "life  2  1\n" in re.sub(" +", "  ", zmqmq("topic", "list")[1])
    assert "life" in zmqmq("topic", "list", "-n")[1].split()
    described = json.loads(zmqmq("topic", "describe", "life", "--json")[1])
    assert described["config"] == {"retention_ms": "3d"}
    assert [(row["start"], row["end"]) for row in described["details"]] == [(0, 0), (0, 3)]
    assert re.search(r"retention_ms +3d +set\n", zmqmq("topic", "describe", "life")[1])
    assert zmqmq("topic", "describe", "life", "--storage")[1].splitlines()[1].split() == ["PARTITION", "START", "END", "SIZE"]
    assert "PARTITION" not in zmqmq("topic", "describe", "life", "--configs")[1]
    assert (
        zmqmq("topic", "alter", "life", "--set", "segment_bytes=1MiB", "--unset", "retention_ms")[1] == "altered life  segment_bytes=1MiB\n"
    )
    assert zmqmq("topic", "offsets", "life")[1] == "life  0  0  0\nlife  1  0  3\n"
    assert (
        zmqmq("topic", "offsets", "life", "--at", "@-1h", "--json")[1].splitlines()[1] == '{"topic":"life","partition":1,"start":0,"end":3}'
    )
    assert zmqmq("topic", "trim", "life", "-p", "1", "--to", "2", "--yes")[1] == "life  1  2\n"
    assert zmqmq("consume", "life", "-e", "-f", "%o")[1] == "2"
    assert zmqmq("topic", "trim", "life", "--to", "end", "--yes")[1] == "life  0  0\nlife  1  3\n"
    assert zmqmq("topic", "delete", "life", "--yes")[:2] == (0, "deleted life\n")
    assert "life" not in zmqmq("topic", "list", "-n")[1].split()


def test_trim_deletes_nothing_when_the_place_makes_no_sense(zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "trimmed", "-p", "2")
    zmqmq("produce", "trimmed", "1", "2", "3", "-p", "1", "-q")
    code, out, said = zmqmq("topic", "trim", "trimmed", "-p", "1", "--to", "999999999", "--yes")
    assert (code, out) == (1, "")
    what, where, then = said.splitlines()
    assert what == "Error: offset 999999999 lies beyond the end of trimmed-1, which is 3; nothing was deleted"
    assert where == "  The log holds offsets 0 up to, not including, 3"
    assert "--to end" in then
    assert zmqmq("topic", "trim", "trimmed", "-p", "1", "--to", "+4", "--yes")[0] == 1
    code, out, said = zmqmq("topic", "trim", "trimmed", "--to", "1", "--yes")
    assert (code, out) == (2, "")
    assert "trimmed has 2 partitions" in said
    assert zmqmq("topic", "offsets", "trimmed")[1] == "trimmed  0  0  0\ntrimmed  1  0  3\n"
    assert zmqmq("topic", "trim", "trimmed", "--to", "@-1h", "--yes")[1] == "trimmed  0  0\ntrimmed  1  0\n"
    assert zmqmq("topic", "trim", "trimmed", "--to", "-1", "--yes")[1] == "trimmed  0  0\ntrimmed  1  2\n"
    assert zmqmq("topic", "trim", "trimmed", "--to", "end", "--yes")[1] == "trimmed  0  0\ntrimmed  1  3\n"


def test_a_topic_that_exists_is_said_to_exist_and_how_it_differs(zmqmq: Zmqmq) -> None:
    assert zmqmq("topic", "create", "again", "-p", "3", "--set", "retention_ms=168h")[0] == 0
    same = ("topic", "create", "again", "-p", "3", "-c", "retention_ms=7d", "--if-not-exists")
    assert zmqmq(*same) == (0, "exists  again  partitions 3  replication 1\n", "")
    code, out, said = zmqmq("topic", "create", "again", "--if-not-exists", "-p", "5", "-c", "retention_ms=1d")
    assert (code, out) == (0, "exists  again  partitions 3  replication 1\n")
    assert said == "again is not as asked: partitions 3, not 5, retention_ms 7d, not 1d; nothing was changed\n"
    assert json.loads(zmqmq("topic", "create", "again", "--if-not-exists", "--json")[1])["created"] is False
    code, _, said = zmqmq("topic", "create", "again")
    assert code == 1
    assert "--if-not-exists" in said.splitlines()[2]
    assert "exist_ok" not in said
    assert zmqmq("topic", "alter", "again", "-c", "retention_ms=2d")[1] == "altered again  retention_ms=2d\n"


def test_an_offset_beyond_the_end_is_an_error_that_names_partition_and_end(zmqmq: Zmqmq) -> None:
    zmqmq("topic", "create", "short", "-p", "2")
    zmqmq("produce", "short", "1", "2", "3", "-p", "1", "-q")
    for options in (("-p", "1"), ("-p", "1", "-e"), ("-e",)):
        code, out, said = zmqmq("consume", "short", "-o", "99", *options)
        assert (code, out) == (1, ""), options
        what, where, then = said.splitlines()
        assert what.startswith("Error: offset 99 is beyond the end of short-1, which is 3")
        assert where == "  The log holds offsets 0 up to, not including, 3"
        assert "-o end" in then
    assert zmqmq("consume", "short", "-o", "2", "-e", "-f", "%v")[:2] == (0, "3")
    zmqmq("topic", "trim", "short", "-p", "1", "--to", "2", "--yes")
    code, _, said = zmqmq("consume", "short", "-p", "1", "-o", "0", "-e")
    assert code == 1
    assert "offset 0 of short-1 was removed" in said
    assert "-o start" in said


def test_ping_and_version_know_the_broker(broker: ServeProcess, zmqmq: Zmqmq) -> None:
    (row,) = (json.loads(line) for line in zmqmq("ping", "-n", "3", "--json")[1].splitlines())
    assert (row["node"], row["address"], row["count"]) == (0, broker.url, 3)
    assert 0 < row["min_ms"] <= row["avg_ms"]
    assert json.loads(zmqmq("version", "--json")[1])["brokers"] == [{"node": 0, "software": "zmqmq/0.1.0"}]
    code, out, said = zmqmq("-b", "tcp://127.0.0.1:1", "--timeout", "100ms", "version")
    assert (code, out.startswith("client ")) == (0, True)
    assert "no broker answers" in said


# --- offline


def test_a_data_directory_is_listed_dumped_measured_verified_and_its_indexes_repaired(tmp_path: Path, zmqmq: Zmqmq) -> None:
    process = ServeProcess(tmp_path / "data")
    lines = tmp_path / "lines"
    lines.write_text("".join(f"value {i} {'.' * 2000}\n" for i in range(300)))
    code, _, said = zmqmq("-b", process.url, "produce", "kept", "--create", "-q", "-k", "ann", "-z", "none", "--file", str(lines), "-l")
    assert (code, said) == (0, "")
    process.end(signal.SIGTERM)
    data = str(process.data)

    rows = [json.loads(line) for line in zmqmq("log", "ls", data, "--json")[1].splitlines()]
    assert [row["topic"] for row in rows] == ["__metadata", "kept"]
    segment = rows[1]["file"]
    assert zmqmq("log", "dump", segment, "-f", r"%o %k=%v\n")[1].splitlines()[49].startswith("49 ann=value 49 .")
    assert json.loads(zmqmq("log", "dump", segment, "--json")[1].splitlines()[0])["topic"] == "kept"
    header = json.loads(zmqmq("log", "dump", segment, "--headers-only", "--json")[1].splitlines()[0])
    assert (header["base_offset"], header["position"], header["codec"]) == (0, 0, "none")
    assert zmqmq("log", "stats", data)[1].splitlines()[1].split()[:4] == ["kept", "0", "0", "300"]
    code, out, said = zmqmq("log", "verify", data)
    assert (code, out) == (0, "")
    assert re.search(r"2 partitions, 2 segments, .* records.*: ok\n", said)

    Path(segment.removesuffix(".log") + ".index").write_bytes(b"nonsense")
    code, out, said = zmqmq("log", "verify", data)
    assert code == 1
    assert out.startswith("index")
    assert f"Build them anew with:  zmqmq log verify {data} --repair" in said
    assert zmqmq("log", "verify", data, "--repair")[0] == 0
    assert zmqmq("log", "verify", data)[0] == 0

    damaged = bytearray(Path(segment).read_bytes())
    damaged[-3] ^= 1
    Path(segment).write_bytes(damaged)
    code, out, said = zmqmq("log", "verify", data)
    assert code == 1
    assert out.startswith("error")
    assert "Error: 1 place is not what was written" in said
    code, _, said = zmqmq("log", "dump", segment)
    assert code == 1
    assert f"In {segment} at byte " in said


def test_on_a_terminal_there_are_headers_and_colour_unless_refused(command: Command) -> None:
    command("topic", "create", "looked-at", "--if-not-exists")
    shown = on_a_terminal(command, "topic", "list")
    assert shown.startswith("\x1b[1mTOPIC ")
    assert "looked-at" in shown
    assert on_a_terminal(command, "topic", "list", "--no-color").startswith("TOPIC ")
    assert on_a_terminal(command, "topc").startswith("\x1b[31mError:\x1b[0m")


def on_a_terminal(command: Command, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in command.environment.items() if name != "NO_COLOR"}
    process = subprocess.Popen([*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux says that the other side is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    process.wait(SECONDS_MAX)
    return shown.decode()
