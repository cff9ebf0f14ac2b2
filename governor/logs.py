"""Log lines for people or for machines, from the standard library's logging.

Everything is logged to ``governor``. A decision's record carries its fields as the attribute
``decision``, so that an application's own handlers can use them, too::

    logging.getLogger("governor").addHandler(handler)  # record.decision["kind"]
"""

from __future__ import annotations

import json
import logging
import math
import sys
from datetime import datetime, timezone
from enum import Enum
from typing import Any


class LogFormat(str, Enum):
    """For people, or for machines."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and a decision's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; what is not known is null."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        event: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in getattr(record, "decision", {}).items():
            unknown = isinstance(value, float) and not math.isfinite(value)
            event[name] = None if unknown else value
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """``12:30:05 info  hold: verified: ...``, in local time."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(level)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback follows on lines of its own."""
        record.level = record.levelname.lower()
        return super().format(record)


def log_to_stderr(format: LogFormat) -> None:
    """Log decisions and troubles to stderr; what a command does for ``--log-format``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format is LogFormat.JSON else TextFormatter())
    logger = logging.getLogger("governor")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
