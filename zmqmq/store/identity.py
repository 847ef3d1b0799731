"""Who a data directory belongs to: written once, at the first open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from zmqmq.errors import CorruptLog
from zmqmq.store.files import read_file, replace_file
from zmqmq.store.formats import IDENTITY_MAGIC, open_sealed, seal_file
from zmqmq.store.layout import IDENTITY, join

if TYPE_CHECKING:
    from zmqmq.ports import Disk, Random

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID_BYTES: Final = 16
IDENTITY_BYTES_MAX: Final = 4096


class Identity(Struct, frozen=True):
    """``directory_id`` is new with every directory, so that a wiped broker is not taken for its former self."""

    cluster_id: str
    node_id: int
    directory_id: str


def new_identity(random: Random, node_id: int) -> Identity:
    return Identity(_short_id(random), node_id, _short_id(random))


def load_identity(disk: Disk, root: str) -> Identity | None:
    """None: the directory has none. Raises CorruptLog and OSError."""
    path = join(root, IDENTITY)
    if not disk.exists(path):
        return None
    body = open_sealed(IDENTITY_MAGIC, read_file(disk, path, IDENTITY_BYTES_MAX), path)
    try:
        return msgspec.json.decode(body, type=Identity)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptLog(f"{path} does not decode: {error}", file=path, position=0) from error


def save_identity(disk: Disk, root: str, identity: Identity) -> None:
    """Raises OSError."""
    replace_file(disk, join(root, IDENTITY), seal_file(IDENTITY_MAGIC, msgspec.json.encode(identity)))


def _short_id(random: Random) -> str:
    """128 random bits in base 58: 22 characters that survive copying by hand."""
    number = int.from_bytes(random.randbytes(_ID_BYTES), "big")
    digits = []
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
