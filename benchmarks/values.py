"""The 100-byte JSON values that all benchmarks send: fields as a service has them, not one line repeated."""

from __future__ import annotations

import json
import random

VALUE_BYTES = 100


def json_values(count: int, seed: int = 1) -> list[bytes]:
    """``count`` values of exactly 100 bytes."""
    chance = random.Random(seed)
    names = ["ann", "bob", "cid", "dora", "emil", "fay", "gus", "hal"]
    states = ["created", "paid", "packed", "sent", "returned"]
    values = []
    for number in range(count):
        plain = {
            "id": number + 1_000_000,
            "customer": chance.choice(names),
            "state": chance.choice(states),
            "amount": round(chance.uniform(1, 999), 2),
            "note": "",
        }
        short = json.dumps(plain, separators=(",", ":"))
        plain["note"] = "".join(chance.choices("abcdefghijklmnop ", k=VALUE_BYTES - len(short)))
        values.append(json.dumps(plain, separators=(",", ":")).encode())
    assert all(len(value) == VALUE_BYTES for value in values)
    return values
