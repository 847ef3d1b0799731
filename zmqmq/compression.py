"""zstd behind one small door; nothing else imports zstandard.

Promise: ``decompress`` never allocates more than the caller allows, whatever the frame's header says.
"""

from __future__ import annotations

import threading

import zstandard

from zmqmq.errors import InvalidRecord
from zmqmq.ports import Buffer

LEVEL_DEFAULT = 1
_WINDOW_BYTES_MAX = 1 << 23


class _Contexts(threading.local):
    """zstandard contexts may not be shared between threads, and cost too much to make for each batch."""

    def __init__(self) -> None:
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}


_contexts = _Contexts()


def compress(data: Buffer, level: int = LEVEL_DEFAULT) -> bytes:
    """One zstd frame that carries its content size and no checksum (the batch has its own)."""
    compressor = _contexts.compressors.get(level)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=level)
        _contexts.compressors[level] = compressor
    return compressor.compress(data)


def decompress(data: Buffer, size_bytes: int) -> bytes:
    """The content of one frame, which must be exactly ``size_bytes`` long.

    Raises InvalidRecord for anything else: a damaged frame, another size, a dictionary, trailing bytes.
    The size is compared with the frame's own header before any memory is taken: zstandard trusts that
    header over its ``max_output_size``.
    """
    try:
        parameters = zstandard.get_frame_parameters(data)
        if parameters.content_size != size_bytes or parameters.dict_id:
            raise InvalidRecord(f"zstd frame announces {parameters.content_size} bytes, the batch {size_bytes}")
        return _contexts.decompressor.decompress(data, max_output_size=size_bytes, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise InvalidRecord(f"zstd frame does not decompress: {error}") from error
