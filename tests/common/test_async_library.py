"""Which of asyncio and trio runs here: each alone, one inside the other, and both at once under trio-asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import types
from importlib.util import find_spec
from typing import Any

import pytest
import sniffio
import trio

from circuit_breaker._common.async_library import running_library, running_loop, running_trio


async def library() -> Any:
    return running_library()


def test_the_library_is_the_one_whose_task_asks() -> None:
    assert asyncio.run(library()) is asyncio
    assert trio.run(library) is trio
    assert running_library() is None


def test_a_library_that_is_not_loaded_does_not_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("asyncio", "trio", "sniffio"):
        monkeypatch.delitem(sys.modules, name)
    assert running_library() is None


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_library_that_another_thread_is_just_importing_does_not_run_here(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert (running_trio(), running_loop(), running_library()) == (None, None, None)


def test_trio_inside_an_asyncio_task_as_in_a_notebook_is_trio() -> None:
    async def cell() -> Any:
        return trio.run(library)

    assert asyncio.run(cell()) is trio


def test_trio_is_found_without_sniffio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sniffio")
    assert trio.run(library) is trio


def test_a_thread_of_a_worker_runs_neither() -> None:
    async def main() -> Any:
        return await asyncio.to_thread(running_library)

    assert asyncio.run(main()) is None
    assert trio.run(trio.to_thread.run_sync, running_library) is None


def test_an_asyncio_task_inside_a_trio_task_is_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Any:
        with monkeypatch.context() as step:  # it ends before trio, which puts its own name back, does
            step.setattr(sniffio.thread_local, "name", "asyncio")  # as trio-asyncio does for each step of a task
            step.setattr(asyncio, "get_running_loop", object)
            return running_library()

    assert trio.run(main) is asyncio


@pytest.mark.skipif(find_spec("trio_asyncio") is None, reason="trio-asyncio is not installed")
def test_under_trio_asyncio_each_task_sleeps_by_its_own_library() -> None:
    # In a process of its own, since importing trio-asyncio changes asyncio for good.
    program = """
import asyncio, trio, trio_asyncio
from circuit_breaker._common.async_library import running_library

async def nap():
    library = running_library()
    await library.sleep(0)
    return library.__name__

async def main():
    found = [await nap(), await trio_asyncio.aio_as_trio(nap)()]
    async def inner():
        return [await nap(), await trio_asyncio.trio_as_aio(nap)()]
    print(found + await trio_asyncio.aio_as_trio(inner)())

trio_asyncio.run(main)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['trio', 'asyncio', 'asyncio', 'trio']"
