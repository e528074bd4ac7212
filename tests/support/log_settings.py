"""Logging, left as it was found by whatever configures it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from circuit_breaker._common.events import open_log


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Give the root logger and ours their handlers and levels back, and turn logging on again if it was on."""
    before = [(logger, logger.handlers[:], logger.level) for logger in (logging.getLogger(), open_log())]
    disabled = logging.root.manager.disable
    try:
        yield
    finally:
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
        logging.disable(disabled)
