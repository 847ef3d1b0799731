"""The broker's configuration: one TOML file into frozen structs, read once at the start.

A key that is not known is refused with the nearest one that is; a value out of its range is refused with
field, value and rule. Sizes and durations may be written as people write them (``"64MiB"``, ``"5s"``).
"""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from zmqmq.broker.limits import BrokerLimits
from zmqmq.errors import InvalidConfig, ZmqmqError
from zmqmq.store.store import StoreOptions
from zmqmq.units import UNLIMITED, parse_bytes, parse_duration_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTEN_DEFAULT: Final = "tcp://127.0.0.1:5570"
HTTP_DEFAULT: Final = "127.0.0.1:5571"
DATA_DEFAULT: Final = "zmqmq-data"
NODE_ID_MAX: Final = 1 << 20
_MIB: Final = 1 << 20
_MILLION: Final = 1_000_000
_PORT_DIGITS: Final = 5


class BrokerConfig(Struct, frozen=True):
    """Settings of one broker; two brokers of a cluster may differ in all of them."""

    data: str = DATA_DEFAULT
    """Directory of everything durable. One broker at a time."""
    node_id: int = 0
    """0 to 1,048,576; must stay that of the data directory."""
    listen: tuple[str, ...] = (LISTEN_DEFAULT,)
    """Where clients connect: tcp://host:port (port 0: any free one), ipc://path, inproc://name."""
    advertise: str = ""
    """The address told to clients; empty: the first of ``listen`` that other processes can reach."""
    http: str = HTTP_DEFAULT
    """host:port of /livez and /readyz; empty: none."""
    insecure_plaintext: bool = False
    """Allow ``listen`` and ``http`` beyond this machine, without encryption and without authentication."""
    replicated_sync_ms: int = 200
    """1 to 60,000: how long records of ``durability=replicated`` topics may wait for the disk."""
    peers: tuple[str, ...] = ()
    """The first brokers of a cluster, this one among them, the same for all: node@address of each one's ``control``. Empty: a broker
    of its own."""
    control: str = ""
    """Where the other brokers reach this one for decisions: tcp://host:port; empty: its address in ``peers``."""
    replication: str = ""
    """Where the other brokers fetch from this one; empty: any free port of the host in ``control``."""
    stream: str = ""
    """Where this one publishes what it appends; empty: any free port of the host in ``control``."""
    catch_up_bytes_per_second: int = 0
    """How fast this broker copies partitions in which it is far behind, all together; 0: as fast as it can. Producers share disk and
    network with that."""
    rack: str = ""
    """Replicas are spread over racks: any word for what fails together."""
    limits: BrokerLimits = BrokerLimits()
    store: StoreOptions = StoreOptions()


_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "node_id": (0, NODE_ID_MAX),
    "replicated_sync_ms": (1, 60_000),
    "catch_up_bytes_per_second": (0, 1 << 40),
    "limits.connections_max": (1, _MILLION),
    "limits.in_flight_bytes_max": (4 * _MIB, 1024 * _MIB),
    "limits.in_flight_bytes_total_max": (4 * _MIB, 1 << 40),
    "limits.entries_max": (1, 65_536),
    "limits.fetch_wait_ms_max": (1, 3_600_000),
    "limits.fetches_waiting_max": (1, _MILLION),
    "limits.connection_fetches_waiting_max": (1, 65_536),
    "limits.entries_waiting_max": (1, 10 * _MILLION),
    "limits.connection_entries_waiting_max": (1, 10 * _MILLION),
    "limits.topics_max": (1, _MILLION),
    "limits.partitions_max": (1, _MILLION),
    "limits.topic_partitions_max": (1, 1024),
    "store.journal_bytes_max": (64 << 10, 1 << 40),
    "store.journal_allocate_bytes": (4096, 1 << 30),
    "store.open_files_max": (8, _MILLION),
    "store.checkpoint_ms_max": (1, 86_400_000),
    "store.remove_ms_max": (1, 86_400_000),
    "store.disk_bytes_max": (_MIB, 1 << 60),
    "store.disk_reserve_bytes": (0, 1 << 60),
}


def load_config(path: str) -> BrokerConfig:
    """Raises InvalidConfig, which names the file."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_config(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"configuration {path} cannot be read: {error}", hint="check the path and its permissions") from error
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error}", hint=error.hint) from error


def parse_config(text: str) -> BrokerConfig:
    """Raises InvalidConfig."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"not TOML: {error}", hint='strings need quotes: listen = ["tcp://127.0.0.1:5570"]') from error
    if isinstance(table.get("listen"), str):
        table["listen"] = [table["listen"]]
    try:
        config: BrokerConfig = msgspec.convert(_known(table, BrokerConfig, ""), BrokerConfig)
    except msgspec.ValidationError as error:
        raise InvalidConfig(str(error), hint="see docs/configuration.md for names, types and defaults") from error
    return check_config(config)


def check_config(config: BrokerConfig) -> BrokerConfig:
    """The same, if every value keeps its rule. Raises InvalidConfig."""
    for name, (low, high) in _RANGES.items():
        value: Any = config
        for step in name.split("."):
            value = getattr(value, step)
        if not low <= value <= high and not (name == "store.disk_bytes_max" and value == UNLIMITED):
            raise InvalidConfig(f"{name} = {value}: must be {low} to {high}")
    if config.limits.in_flight_bytes_total_max < config.limits.in_flight_bytes_max:
        raise InvalidConfig(
            f"limits.in_flight_bytes_total_max = {config.limits.in_flight_bytes_total_max}: must not be below "
            f"limits.in_flight_bytes_max = {config.limits.in_flight_bytes_max}"
        )
    if not config.data:
        raise InvalidConfig("data = '': must name a directory")
    for address in config.listen:
        _check_listen(address, config)
    _check_cluster(config)
    if config.http:
        host, _ = http_address(config.http)
        _check_reach(f"http = {config.http!r}", host, config)
    return config


def peer_addresses(config: BrokerConfig) -> dict[int, str]:
    """Node ids and control addresses of the first brokers. Raises InvalidConfig."""
    found: dict[int, str] = {}
    for text in config.peers:
        node, separator, address = text.partition("@")
        if not separator or not node.isdecimal() or int(node) > NODE_ID_MAX or not address.startswith("tcp://"):
            raise InvalidConfig(f"peers: {text!r} must be node@tcp://host:port", hint="like 1@tcp://10.0.0.1:5580")
        if int(node) in found or address in found.values():
            raise InvalidConfig(f"peers: {text!r} names a node or an address for the second time")
        found[int(node)] = address
    return found


def control_address(config: BrokerConfig) -> str:
    """Where a member of a cluster listens for the others; empty for a broker of its own."""
    return config.control or peer_addresses(config).get(config.node_id, "")


def _check_cluster(config: BrokerConfig) -> None:
    peers = peer_addresses(config)
    if peers and config.node_id not in peers and not config.control:
        raise InvalidConfig(
            f"peers: node {config.node_id}, this one, is not among {sorted(peers)}",
            hint="add it, or say by control where it listens if it joins a cluster that exists",
        )
    if not peers and (config.control or config.replication or config.stream):
        raise InvalidConfig("control, replication and stream are for members of a cluster", hint="say by peers who belongs to it")
    for address in filter(None, (control_address(config), config.replication, config.stream)):
        _check_listen(address, config)
        host = address.removeprefix("tcp://").rpartition(":")[0]
        if not address.startswith("tcp://") or host in {"*", "0.0.0.0", "[::]"}:  # noqa: S104 - it is refused here
            raise InvalidConfig(f"{address!r}: must be tcp://host:port with a host that the other brokers can reach")


def http_address(text: str) -> tuple[str, int]:
    """Host and port. Raises InvalidConfig."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not _is_port(port):
        raise InvalidConfig(f"http = {text!r}: must be host:port", hint="write it like 127.0.0.1:5571; port 0 takes any free one")
    return host.strip("[]"), int(port)


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= _PORT_DIGITS and int(text) <= 65_535


def _check_listen(address: str, config: BrokerConfig) -> None:
    scheme, separator, rest = address.partition("://")
    if not separator or not rest or scheme not in {"tcp", "ipc", "inproc"}:
        raise InvalidConfig(f"listen = {address!r}: must be tcp://host:port, ipc://path or inproc://name")
    if scheme != "tcp":
        return
    host, separator, port = rest.rpartition(":")
    if not separator or not _is_port(port):
        raise InvalidConfig(f"listen = {address!r}: must end with :port", hint="port 0 takes any free one")
    _check_reach(f"listen = {address!r}", host.strip("[]"), config)
    if host in {"*", "0.0.0.0", "[::]"} and not config.advertise:  # noqa: S104 - it is refused here
        raise InvalidConfig(f"listen = {address!r}: advertise must say which address clients are told")


def _check_reach(what: str, host: str, config: BrokerConfig) -> None:
    if not config.insecure_plaintext and not is_loopback(host):
        raise InvalidConfig(
            f"{what}: other machines could connect without encryption or authentication",
            hint="listen on 127.0.0.1, or allow it with insecure_plaintext = true (--insecure-plaintext)",
        )


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _known(table: dict[str, Any], kind: type[Struct], where: str) -> dict[str, Any]:
    """The table with sizes and durations read. Raises InvalidConfig for a name that ``kind`` does not have."""
    fields = _types(kind)
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known: {', '.join(sorted(fields))}"
            raise InvalidConfig(f"unknown setting {where}{name}", hint=hint)
        found[name] = _value(value, fields[name], name, where)
    return found


@cache
def _types(kind: type[Struct]) -> dict[str, Any]:
    """The type of each setting; asking msgspec evaluates all annotations."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def _value(value: Any, kind: Any, name: str, where: str) -> Any:
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, Struct):
        return _known(value, kind, f"{where}{name}.")
    if kind is not int or not isinstance(value, str):
        return value
    try:
        return parse_bytes(value) if "bytes" in name else parse_duration_ms(value) if "_ms" in name else value
    except ZmqmqError as error:
        raise InvalidConfig(f"{where}{name} = {value!r}: {error}", hint=error.hint) from error
