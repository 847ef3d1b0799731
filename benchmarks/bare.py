"""The raw limit: the same work on the wire and the disk with no product around it.

A producer process encodes records (msgspec), compresses (zstd), sends frames (DEALER); a server process (ROUTER) appends them to a
file and answers; a consumer process asks for frames, decompresses and decodes. No API, no checks, no offsets, no durability.
"""

from __future__ import annotations

import multiprocessing as mp
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import zmq
import zstandard
from values import json_values

from zmqmq.batch import Record

BATCH_RECORDS = 2600
IN_FLIGHT = 5


def _server(path: str, pipe: Connection) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.linger = 0
    pipe.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    frames: list[tuple[int, int]] = []
    with Path(path).open("w+b") as file:
        position = 0
        while True:
            target, data = socket.recv_multipart()
            if not data:
                return
            if len(data) > 8:
                file.write(data)
                frames.append((position, len(data)))
                position += len(data)
                socket.send_multipart([target, b"ok"])
            else:
                file.flush()
                file.seek(frames[int.from_bytes(data, "little")][0])
                socket.send_multipart([target, file.read(frames[int.from_bytes(data, "little")][1])])


def _producer(port: int, batches: int, pipe: Connection) -> None:
    socket = _dealer(port)
    values = json_values(BATCH_RECORDS * 20)
    encode = msgspec.msgpack.Encoder().encode
    compress = zstandard.ZstdCompressor(level=1).compress
    started = time.perf_counter()
    for number in range(batches):
        at = number % 20 * BATCH_RECORDS
        records = [Record(None, value, 0) for value in values[at : at + BATCH_RECORDS]]
        socket.send(compress(encode(records)), copy=False)
        if number >= IN_FLIGHT:
            socket.recv()
    for _ in range(min(IN_FLIGHT, batches)):
        socket.recv()
    pipe.send(time.perf_counter() - started)


def _consumer(port: int, batches: int, pipe: Connection) -> None:
    socket = _dealer(port)
    decode = msgspec.msgpack.Decoder(list[Record]).decode
    decompress = zstandard.ZstdDecompressor().decompress
    started = time.perf_counter()
    socket.send((0).to_bytes(8, "little"))
    for number in range(batches):
        data = socket.recv()
        if number + 1 < batches:
            socket.send((number + 1).to_bytes(8, "little"))
        assert len(decode(decompress(data))) == BATCH_RECORDS
    pipe.send(time.perf_counter() - started)


def _dealer(port: int) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(f"tcp://127.0.0.1:{port}")
    return socket


def measure(records: int) -> tuple[float, float]:
    """Records per second in and out."""
    batches = records // BATCH_RECORDS
    spawn = mp.get_context("spawn")
    mine, theirs = spawn.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = spawn.Process(target=_server, args=(f"{folder}/log", theirs))
        server.start()
        port = mine.recv()
        rates = []
        for work in ((_producer, (port, batches, theirs)), (_consumer, (port, batches, theirs))):
            process = spawn.Process(target=work[0], args=work[1])
            process.start()
            rates.append(batches * BATCH_RECORDS / mine.recv())
            process.join()
        stop = _dealer(port)
        stop.send(b"")
        server.join(5)
        if server.is_alive():
            server.terminate()
        stop.close()
    return rates[0], rates[1]


if __name__ == "__main__":
    print(measure(3_000_000))
