"""The fixtures of the bulkhead's tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from waiters import Waiters

from circuit_breaker._bulkhead.gates import ThreadGate


@pytest.fixture
def waiters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiters]:
    with ThreadPoolExecutor(32) as pool:
        waiters = Waiters(pool)
        sleep = ThreadGate.sleep

        def tell_and_sleep(gate: Any, caller: Any) -> bool:
            waiters.asleep.release()
            return sleep(gate, caller)

        monkeypatch.setattr(ThreadGate, "sleep", tell_and_sleep)
        yield waiters
