"""structlog: what the library writes to the standard logger, in the format of your own lines and with its fields."""

from __future__ import annotations

import logging
from typing import TextIO

import structlog

FIELDS = ["circuit_name", "old_state", "new_state", "reason", "max_size"]  # of the lines about breakers
FIELDS += ["function", "attempt", "attempts", "delay_s", "elapsed_s", "failure"]  # of those about retries

SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,  # a request id, say, if the caller has bound one
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(FIELDS),
    structlog.processors.TimeStamper("iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure(stream: TextIO | None = None) -> None:
    """Render the lines of structlog and of the standard loggers alike, as JSON; None is the standard error."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
