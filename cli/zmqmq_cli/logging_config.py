"""Logging of a broker in the foreground: lines on stderr, as text or as JSON."""

from __future__ import annotations

import json
import logging

from zmqmq_cli.formats import rfc3339


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        members = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            members["traceback"] = self.formatException(record.exc_info)
        return json.dumps(members, ensure_ascii=False)


def configure(level: str, format: str) -> None:
    """For the logger of zmqmq only; the root is not ours."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if format == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))
    logger = logging.getLogger("zmqmq")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
