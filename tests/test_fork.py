"""A fork in the middle of loading a module: the child never waits for what only its parent is about to finish."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import fork, needs_fork, told_by_child
from support import PATIENCE_S

from circuit_breaker import _fork

pytestmark = needs_fork

LATE = "loaded_late"

at_the_next_fork: list[Callable[[], object]] = []
while_loading: list[Callable[[], object]] = []


def _begin_fork() -> None:
    while at_the_next_fork:
        at_the_next_fork.pop()()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin_fork)  # comes before the hook of the package, which is older


@pytest.fixture(autouse=True)
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a module to load, which calls what is in `while_loading`."""
    code = f"from {__name__} import while_loading\nwhile while_loading: while_loading.pop()()\n"
    code += "whole = sum(range(10**6))\n"
    (tmp_path / f"{LATE}.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop(LATE, None)
    at_the_next_fork.clear()
    while_loading.clear()


def loads_in_a_thread() -> bool:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(_fork.load(LATE).whole), daemon=True)
    thread.start()
    thread.join(PATIENCE_S / 2)
    return found == [sum(range(10**6))]


def test_fork_while_another_thread_loads_gives_the_child_the_whole_module() -> None:
    begun, forking = threading.Event(), threading.Event()
    while_loading.extend([lambda: forking.wait(PATIENCE_S), begun.set])
    loader = threading.Thread(target=_fork.load, args=(LATE,))
    loader.start()
    assert begun.wait(PATIENCE_S)
    at_the_next_fork.append(forking.set)
    assert told_by_child(lambda: (_fork.load(LATE).whole, loads_in_a_thread())) == repr((sum(range(10**6)), True))
    loader.join(PATIENCE_S)
    assert loads_in_a_thread()


def test_fork_by_the_very_thread_that_loads_leaves_both_able_to_load() -> None:
    def fork_while_loading() -> int:
        forked: list[int] = []
        while_loading.append(lambda: forked.append(fork()))
        _fork.load(LATE)
        return forked[0]

    assert told_by_child(loads_in_a_thread, fork_while_loading) == "True"
    assert loads_in_a_thread()


def test_child_of_a_child_loads_in_any_thread() -> None:
    assert told_by_child(lambda: told_by_child(loads_in_a_thread)) == repr("True")


@pytest.mark.parametrize(
    "use",
    [
        "CircuitBreaker(config=CircuitBreakerConfig(failure_threshold=1)).record_failure()",
        "CircuitBreakerRegistry()['api'].reset()",
        "Bulkhead().acquire()",
        "RetryPolicy().get_delay(0)",
    ],
)
def test_what_is_made_and_used_does_not_load_logging(use: str) -> None:
    code = f"from circuit_breaker import *\n{use}\nimport sys\nprint('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
