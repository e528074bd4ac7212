"""The sleep before a retry: what ends it, what it blocks, and which library makes it."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import trio
from coroutines import run
from failures import Down, raising
from garbage import collect
from needs import needs_context_of_what_is_thrown, needs_reference_counts, needs_timer
from patience import PATIENCE_S
from ways import POLICY, POLICY_BY_HAND, Way

from circuit_breaker import RetryBudget, RetryPolicy, UsageError, retry
from circuit_breaker.testing import FakeClock, instant_retries

EVERY: dict[str, Way] = {**POLICY, **POLICY_BY_HAND}
SYNC = {name: way for name, way in EVERY.items() if not way.is_async}
ASYNC = {name: way for name, way in EVERY.items() if way.is_async}


async def fail() -> None:
    raise Down


def one_token() -> RetryBudget:
    return RetryBudget(0, 0, 1)


def long_sleeper(**settings: Any) -> RetryPolicy:
    return RetryPolicy(None, 3_600.0, backoff_max=3_600.0, jitter=False, **settings)


# What ends a sleep has the last error as its context, and the token is given back


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
@pytest.mark.parametrize("name", EVERY)
def test_what_a_sleep_raises_has_the_last_error_as_its_context(name: str, stop: type[BaseException]) -> None:
    def sleep(seconds: float) -> None:
        raise stop

    last = Down()
    budget = one_token()
    with pytest.raises(stop) as caught:
        EVERY[name].ready(RetryPolicy(sleep=sleep, budget=budget), raising(last))()
    assert budget.tokens == 1
    if EVERY[name].by_hand:  # its errors are the caller's
        assert caught.value.__context__ is None
    else:
        assert caught.value.__context__ is last


def test_what_a_sleep_raises_inside_an_except_block_has_the_last_error_as_its_context() -> None:
    last, outer = Down(), LookupError()
    for name in SYNC.keys() & POLICY.keys():
        with pytest.raises(KeyboardInterrupt) as caught:
            try:
                raise outer
            except LookupError:
                POLICY[name](RetryPolicy(sleep=raising_on_sleep(KeyboardInterrupt())), raising(last))
        assert (name, caught.value.__context__) == (name, last)
        assert last.__context__ is outer


def test_sleep_that_raises_the_error_that_is_being_handled_makes_no_circle() -> None:
    for name in ("call", "attempts"):
        last, outer = Down(), LookupError()
        with pytest.raises(LookupError) as caught:
            try:
                raise outer
            except LookupError:
                POLICY[name](RetryPolicy(sleep=raising_on_sleep(outer)), raising(last))
        behind = chain(caught.value)
        assert behind[0] is outer
        assert len(behind) == len(set(map(id, behind))) <= 2


def chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and len(found) < 10:
        found.append(error)
        error = error.__context__
    return found


def test_second_sleep_has_the_second_error_as_its_context() -> None:
    errors = [Down("first"), Down("second")]
    rest = iter(errors)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            raise KeyboardInterrupt

    def body() -> None:
        raise next(rest)

    for name in ("call", "attempts"):
        slept.clear()
        rest = iter(errors)
        with pytest.raises(KeyboardInterrupt) as caught:
            POLICY[name](RetryPolicy(sleep=sleep), body)
        assert caught.value.__context__ is errors[1]
        assert errors[1].__context__ is None


def test_sleep_that_raises_the_last_error_itself_makes_no_circle() -> None:
    last = Down()
    for name in ("call", "attempts"):
        with pytest.raises(Down) as caught:
            POLICY[name](RetryPolicy(sleep=raising_on_sleep(last)), raising(last))
        assert caught.value is last
        assert last.__context__ is None


def raising_on_sleep(error: BaseException) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        raise error

    return sleep


def test_sleep_in_a_loop_that_ends_with_a_context_of_its_own_keeps_it() -> None:
    def sleep(seconds: float) -> None:
        try:
            raise KeyError
        except KeyError:
            raise LookupError from None

    with pytest.raises(LookupError) as caught:
        POLICY["attempts"](RetryPolicy(sleep=sleep), raising(Down()))
    assert type(caught.value.__context__) is KeyError


@needs_timer
@pytest.mark.parametrize("name", [name for name in SYNC if name in POLICY])
def test_ctrl_c_in_a_real_sleep_has_the_last_error_as_its_context(name: str) -> None:
    last = Down()

    def fire(event: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            SYNC[name](long_sleeper(listeners=[fire]), raising(last))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value.__context__ is last


@pytest.mark.parametrize("name", [name for name in ASYNC if name in POLICY])
@needs_context_of_what_is_thrown
def test_cancelled_sleep_has_the_last_error_as_its_context_under_asyncio(name: str) -> None:
    async def main() -> None:
        budget = one_token()
        asleep = asyncio.Event()
        policy = long_sleeper(budget=budget, listeners=[lambda event: asleep.set()])
        task = asyncio.create_task(ASYNC[name].awaited(policy, fail))
        await asleep.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert type(caught.value.__context__) is Down
        assert budget.tokens == 1

    run(main())


@pytest.mark.parametrize("name", [name for name in ASYNC if name in POLICY])
def test_cancelled_sleep_has_the_last_error_as_its_context_under_trio(name: str) -> None:
    ended: list[trio.Cancelled] = []
    budget = one_token()

    async def main() -> None:
        with trio.CancelScope() as scope:
            policy = long_sleeper(budget=budget, listeners=[lambda event: scope.cancel()])
            try:
                await ASYNC[name].awaited(policy, fail)
            except trio.Cancelled as cancelled:
                ended.append(cancelled)
                raise

    trio.run(main)
    assert type(ended.pop().__context__) is Down
    assert budget.tokens == 1


@needs_context_of_what_is_thrown
def test_timeout_around_a_retry_shows_the_last_error() -> None:
    async def main() -> None:
        async with asyncio.timeout(0.01):
            await long_sleeper().call_async(fail)

    with pytest.raises(TimeoutError) as caught:
        run(main())
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__.__context__) is Down


# An async sleep where nothing can be awaited


async def pause(seconds: float) -> None:
    raise AssertionError("slept")


class AsyncSleep:
    async def __call__(self, seconds: float) -> None:
        raise AssertionError("slept")


@pytest.mark.parametrize(
    "sleep", [asyncio.sleep, pause, AsyncSleep(), functools.partial(pause), FakeClock().sleep_async]
)
def test_async_sleep_is_rejected_when_a_plain_function_is_decorated(sleep: Any) -> None:
    def plain() -> None: ...

    def items() -> Iterator[int]:
        yield 1

    async def coroutine() -> None: ...

    async def async_items() -> AsyncIterator[int]:
        yield 1

    policy = RetryPolicy(sleep=sleep)
    for func in (plain, items, staticmethod(plain), classmethod(plain), functools.partial(plain)):
        with pytest.raises(TypeError, match=r"^sleep must not be async for .*(plain|items)"):
            policy(func)
    with pytest.raises(TypeError, match=r"^sleep must not be async"):
        retry(sleep=sleep)(plain)
    with pytest.raises(TypeError, match=r"^sleep must not be async"):
        retry(policy=policy, fallback=print)(plain)
    policy(coroutine)
    policy(async_items)


@pytest.mark.parametrize("name", [name for name in SYNC if name in POLICY])
def test_async_sleep_that_shows_only_when_asked_keeps_the_last_error(name: str) -> None:
    last = Down()
    budget = one_token()
    policy = RetryPolicy(sleep=lambda seconds: pause(seconds), budget=budget)
    with pytest.raises(TypeError, match="sleep must not be async in sync use") as caught:
        SYNC[name](policy, raising(last))
    assert isinstance(caught.value, UsageError)
    assert caught.value.__context__ is last
    assert budget.tokens == 1
    collect()  # nothing is left un-awaited


@pytest.mark.parametrize("name", [name for name in ASYNC if name in POLICY])
def test_waiting_where_no_library_runs_is_a_usage_error_that_keeps_the_last_error(name: str) -> None:
    last = Down()
    with pytest.raises(UsageError, match="under asyncio and trio: give the policy a sleep=") as caught:
        ASYNC[name].ready(RetryPolicy(), raising(last))()
    assert caught.value.__context__ is last


# A thread that runs an event loop


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    def messages() -> list[str]:
        return [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]

    return messages


async def in_the_loop(call: Callable[[], Any]) -> None:
    with pytest.raises(Down):
        call()


@pytest.mark.parametrize("start", [run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
@pytest.mark.parametrize("name", [name for name in SYNC if name in POLICY])
def test_sync_retry_on_the_thread_of_an_event_loop_warns_once_for_its_policy(
    name: str, start: Callable[..., Any], warned: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    policies = [RetryPolicy(2, 0.5, jitter=False, sleep=lambda _: None) for _ in range(2)]
    for policy in policies:
        for _ in range(2):
            start(in_the_loop(SYNC[name].ready(policy, raising(Down()))))
    assert len(warned()) == 2
    assert "sleeps 0.50 s on a thread that runs an event loop" in warned()[0]
    record = next(record for record in caplog.records if "event loop" in record.getMessage())
    assert record.levelno == logging.WARNING
    function = vars(record)["function"]
    assert (function is None) if name == "attempts" else (function in warned()[0])


def test_waiting_without_blocking_a_loop_warns_of_nothing(warned: Callable[[], list[str]]) -> None:
    policy = RetryPolicy(1, 0.5, sleep=lambda _: None)
    with pytest.raises(Down):  # no loop runs here
        policy.call(raising(Down()))
    run(in_the_loop(lambda: RetryPolicy(1, 0.0).call(raising(Down()))))  # it need not sleep
    with instant_retries():
        run(in_the_loop(lambda: policy.call(raising(Down()))))

    async def elsewhere() -> None:
        with pytest.raises(Down):
            await asyncio.to_thread(policy.call, raising(Down()))

    run(elsewhere())
    assert warned() == []


def test_loops_in_several_threads_get_one_warning_for_the_policy(warned: Callable[[], list[str]]) -> None:
    policy = RetryPolicy(1, 0.5, sleep=lambda _: None)
    barrier = threading.Barrier(8)

    async def main() -> None:
        barrier.wait(PATIENCE_S)
        await in_the_loop(lambda: policy.call(raising(Down())))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(warned()) == 1


# Which library sleeps

TRIO_ASYNCIO = """
import asyncio, trio, trio_asyncio
from circuit_breaker import RetryPolicy

policy = RetryPolicy(1, 0.001)
slept = []

def spied(library):
    sleep = library.sleep
    async def spy(seconds):
        slept.append(library.__name__)
        await sleep(seconds)
    library.sleep = spy

async def fail():
    raise OSError

async def try_it():
    try:
        await policy.call_async(fail)
    except OSError:
        pass

async def from_asyncio():
    await try_it()
    await trio_asyncio.trio_as_aio(try_it)()
    await try_it()

async def main():
    async with trio_asyncio.open_loop():
        await try_it()
        await trio_asyncio.aio_as_trio(from_asyncio)()
    await try_it()

spied(asyncio)
spied(trio)
trio.run(main)
print(*slept)
"""


def printed(code: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.strip()


@pytest.mark.skipif(importlib.util.find_spec("trio_asyncio") is None, reason="trio-asyncio is not installed")
def test_under_trio_asyncio_the_library_of_the_inner_task_sleeps() -> None:
    # In a process of its own, since importing trio-asyncio changes asyncio for good.
    assert printed(TRIO_ASYNCIO) == "trio asyncio trio asyncio trio"


# The end of the interpreter

AT_THE_END = """
import builtins, sys
from circuit_breaker import RetryBudget, RetryPolicy, retry

def fail():
    raise KeyError("the last error")

def loop(policy=RetryPolicy(1, 0.001)):
    for attempt in policy.attempts():
        with attempt:
            raise KeyError("the last error")

class Destroyed:
    def __init__(self, call, write=sys.stdout.write):
        self.call, self.write = call, write

    def __del__(self):
        try:
            self.call()
        except BaseException as error:
            self.write(f"{error!r} after {len(error.__notes__)} note\\n")

calls = [
    retry(1, 0.001)(fail),
    retry(1, 0.001, budget=RetryBudget(), listeners=[lambda event: None])(fail),
    loop,
]
builtins.destroyed = [Destroyed(call) for call in calls]
"""


@needs_reference_counts
def test_retry_in_a_destructor_at_the_end_of_the_interpreter_raises_the_last_error() -> None:
    assert printed(AT_THE_END).splitlines() == ["KeyError('the last error') after 1 note"] * 3
