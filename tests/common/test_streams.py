"""The trampolines: what consumer and body send passes through, and the guard is called once for each step."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest
from garbage import catch_up, collect
from needs import needs_reference_counts

from circuit_breaker._common.streams import Guard, guarded, guarded_async


class Watch(Guard):
    """Notes its calls, and raises at the step named."""

    watches_items = True

    def __init__(self, fails: str = "", error: type[BaseException] = LookupError) -> None:
        self.told: list[Any] = []
        self.fails = fails
        self.error = error
        self.leave = self.told.append

    def tell(self, step: str) -> None:
        self.told.append(step)
        if step == self.fails:
            raise self.error(step)

    def open(self, *call: Any) -> Any:
        self.tell("open")
        return super().open(*call)

    async def open_async(self, *call: Any) -> Any:
        self.tell("open")
        return await super().open_async(*call)

    def resume(self) -> None:
        self.tell("resume")

    def pause(self) -> None:
        self.tell("pause")

    def gave(self) -> None:
        self.tell("gave")

    def end(self, error: BaseException | None) -> None:
        ended = type(error).__name__ if error is not None else "exhausted"
        before = self.told.pop()
        assert before is self or (self.fails, before) == ("end", ended), "it leaves first, and ends again if that fails"
        self.told.append(ended)
        if self.fails == "end":
            raise LookupError("end")


def body(log: list[Any], *, stubborn: bool = False) -> Iterator[Any]:
    """Yield what is sent or thrown; stop at 'stop'; fail at 'fail'; with stubborn, yield on when it is to close."""
    said: Any = "first"
    try:
        while said != "stop":
            try:
                said = yield said
            except KeyError as error:
                said = error
            except GeneratorExit:
                if not stubborn:
                    raise
                said = "again"
            if said == "fail":
                raise ZeroDivisionError
        return "value"
    finally:
        log.append("closed")


async def body_async(log: list[Any], *, stubborn: bool = False) -> AsyncIterator[Any]:
    said: Any = "first"
    try:
        while said != "stop":
            try:
                said = yield said
            except KeyError as error:
                said = error
            except GeneratorExit:
                if not stubborn:
                    raise
                said = "again"
            await asyncio.sleep(0)
            if said == "fail":
                raise ZeroDivisionError
    finally:
        log.append("closed")


class Ended(Exception):
    """The stream is exhausted; what it returned is the value."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Sync:
    """A guarded generator, driven with the words of the other kind, so that each test is written once."""

    def __init__(self, func: Callable[..., Any], watch: Guard) -> None:
        self.start = guarded(func, lambda: watch)

    def open(self, *args: Any, **kwargs: Any) -> None:
        self.stream: Any = self.start(*args, **kwargs)

    async def send(self, value: Any) -> Any:
        return self.step(self.stream.send, value)

    async def throw(self, error: BaseException) -> Any:
        return self.step(self.stream.throw, error)

    def step(self, step: Callable[..., Any], said: Any) -> Any:
        try:
            return step(said)
        except StopIteration as stop:
            raise Ended(stop.value) from stop

    async def close(self) -> None:
        self.stream.close()


class Async(Sync):
    """A guarded async generator."""

    def __init__(self, func: Callable[..., Any], watch: Guard) -> None:
        self.start: Any = guarded_async(func, lambda: watch)

    async def send(self, value: Any) -> Any:
        return await self.step(self.stream.asend, value)

    async def throw(self, error: BaseException) -> Any:
        return await self.step(self.stream.athrow, error)

    async def step(self, step: Callable[..., Any], said: Any) -> Any:
        try:
            return await step(said)
        except StopAsyncIteration as stop:
            raise Ended("value") from stop  # it cannot return any other

    async def close(self) -> None:
        await self.stream.aclose()


KINDS = {"generator": (Sync, body), "async generator": (Async, body_async)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param]


class Story:
    """One stream of one kind under one watch."""

    def __init__(self, kind: Any, fails: str = "", error: type[BaseException] = LookupError, **kwargs: Any) -> None:
        driver, func = kind
        self.watch = Watch(fails, error)
        self.log: list[Any] = []
        self.driver = driver(func, self.watch)
        self.driver.open(self.log, **kwargs)
        self.send, self.throw, self.close = self.driver.send, self.driver.throw, self.driver.close

    async def fails_with(self, error: type[BaseException], step: Awaitable[Any]) -> Any:
        with pytest.raises(error) as caught:
            await step
        return caught.value


def test_nothing_happens_before_the_first_item_is_asked_for(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind)
        await story.close()
        assert (story.watch.told, story.log) == ([], [])

    asyncio.run(main())


def test_what_is_sent_and_thrown_reaches_the_body_and_its_answers_the_consumer(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind)
        thrown = KeyError()
        assert await story.send(None) == "first"
        assert await story.send(2) == 2
        assert await story.throw(thrown) is thrown
        assert story.watch.told == ["open", "resume", "pause", "gave", "resume", "pause", "gave"]
        stop = await story.fails_with(Ended, story.send("stop"))
        assert story.watch.told[7:] == ["resume", "pause", "exhausted"]
        assert stop.value == "value"
        await story.fails_with(Ended, story.send(None))
        assert story.log == ["closed"]

    asyncio.run(main())


def test_error_of_the_body_reaches_the_consumer_and_the_guard(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind)
        await story.send(None)
        await story.fails_with(ZeroDivisionError, story.send("fail"))
        assert story.watch.told == ["open", "resume", "pause", "ZeroDivisionError"]

    asyncio.run(main())


def test_thrown_error_that_the_body_lets_pass_comes_back_itself(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind)
        await story.send(None)
        error = OSError()
        assert await story.fails_with(OSError, story.throw(error)) is error
        assert (story.watch.told[-1], story.log) == ("OSError", ["closed"])

    asyncio.run(main())


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
def test_thrown_end_of_an_iteration_is_what_it_is_without_a_guard(kind: Any, error: type[Exception]) -> None:
    async def main() -> None:
        story = Story(kind)
        bare = Story(kind)
        bare.driver.stream = kind[1](bare.log)
        ends: list[tuple[type[BaseException], str]] = []
        for each in (story, bare):
            await each.send(None)
            caught = await each.fails_with(Exception, each.throw(error("x")))
            ends.append((type(caught), str(caught)))
        assert ends[0] == ends[1]
        assert story.watch.told[-1] != "exhausted"

    asyncio.run(main())


def test_closing_closes_the_body_first_and_tells_the_guard(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind)
        await story.send(None)
        await story.close()
        assert (story.watch.told, story.log) == (["open", "resume", "pause", "GeneratorExit"], ["closed"])
        await story.close()
        assert story.watch.told == ["open", "resume", "pause", "GeneratorExit"]

    asyncio.run(main())


def returning() -> Iterator[Any]:
    try:
        yield 1
    except GeneratorExit:
        return "value"


class Returning(Generator[int, None, None]):
    """Returns a value when it is closed, on any Python."""

    def send(self, value: object) -> int:
        return 1

    def throw(self, *error: Any) -> int:
        raise AssertionError

    def close(self) -> Any:
        return "value"


@pytest.mark.parametrize("func", [returning, Returning])
def test_closing_gives_what_it_gives_without_a_guard(func: Any) -> None:
    watch = Watch()
    plain, watched = returning(), guarded(func, lambda: watch)()
    next(plain)
    next(watched)
    assert watched.close() == plain.close()  # type: ignore[func-returns-value, attr-defined]
    assert watch.told == ["open", "resume", "pause", "GeneratorExit"]


@pytest.mark.parametrize("thrown", [False, True], ids=["closed", "thrown a GeneratorExit"])
def test_body_that_goes_on_when_it_is_closed_is_a_runtime_error_and_ends_the_guard(kind: Any, thrown: bool) -> None:
    async def main() -> None:
        story = Story(kind, stubborn=True)
        await story.send(None)
        closing = story.throw(GeneratorExit()) if thrown else story.close()
        caught = await story.fails_with(RuntimeError, closing)
        assert "ignored GeneratorExit" in str(caught)
        assert story.watch.told == ["open", "resume", "pause", "RuntimeError"]
        await story.fails_with(Ended, story.send(None))

    # The body is still running; how it ends does not matter here.
    asyncio.run(ending_quietly(main))


async def ending_quietly(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", lambda _: None)
        await main()
        collect()


def test_empty_stream_keeps_its_return_value() -> None:
    def empty() -> Iterator[Any]:
        return "value"
        yield

    watch = Watch()
    with pytest.raises(StopIteration) as stop:
        next(guarded(empty, lambda: watch)())
    assert (stop.value.value, watch.told) == ("value", ["open", "exhausted"])


def test_empty_async_stream_ends_at_once() -> None:
    async def empty() -> AsyncIterator[Any]:
        return
        yield

    async def main() -> None:
        watch = Watch()
        assert [item async for item in guarded_async(empty, lambda: watch)()] == []
        assert watch.told == ["open", "exhausted"]

    asyncio.run(main())


@pytest.mark.parametrize("fails", ["resume", "pause", "gave"])
def test_guard_that_raises_what_is_not_an_exception_leaves_no_body_running(kind: Any, fails: str) -> None:
    async def main() -> None:
        story = Story(kind, fails, error=SystemExit)
        await story.send(None)
        await story.fails_with(SystemExit, story.send(2))
        assert story.log == ["closed"]

    asyncio.run(main())


@pytest.mark.parametrize("fails", ["open", "resume", "pause", "gave", "end"])
def test_guard_that_raises_reaches_the_caller_and_leaves_no_body_running(kind: Any, fails: str) -> None:
    async def main() -> None:
        story = Story(kind, fails)
        if fails == "open":
            await story.fails_with(LookupError, story.send(None))
            assert (story.watch.told, story.log) == (["open", "LookupError"], [])
            return
        await story.send(None)
        caught = await story.fails_with(LookupError, story.send("fail" if fails == "end" else 2))
        assert story.log == ["closed"]
        assert story.watch.told[-1] == ("ZeroDivisionError" if fails == "end" else "LookupError")
        if fails == "end":
            assert isinstance(caught.__context__, LookupError)  # it was tried twice
            caught = caught.__context__
        assert isinstance(caught.__context__, ZeroDivisionError if fails == "end" else type(None))
        await story.fails_with(Ended, story.send(None))

    asyncio.run(main())


def test_guard_that_raises_at_the_last_pause_wins_over_the_end(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind, "pause")
        await story.send(None)
        caught = await story.fails_with(LookupError, story.send("stop"))
        assert caught.__context__ is None
        assert story.watch.told == ["open", "resume", "pause", "LookupError"]

    asyncio.run(main())


def test_guard_hears_of_items_for_as_long_as_it_watches_them(kind: Any) -> None:
    async def main() -> None:
        story = Story(kind)
        story.watch.watches_items = False
        await story.send(None)
        await story.send(2)
        assert story.watch.told == ["open"]
        story.watch.watches_items = True
        await story.send(3)
        assert story.watch.told == ["open", "resume", "pause", "gave"]
        story.watch.watches_items = False
        await story.close()
        assert story.watch.told[4:] == ["GeneratorExit"]

    asyncio.run(main())


def test_guard_without_leave_and_without_watching_does_nothing(kind: Any) -> None:
    async def main() -> None:
        driver, func = kind
        stream = driver(func, Guard())
        stream.open([])
        assert [await stream.send(None), await stream.send(1)] == ["first", 1]
        with pytest.raises(Ended):
            await stream.send("stop")

    asyncio.run(main())


class Large:
    """Something whose end can be seen."""


class Holding(Exception):
    """An error that keeps something large alive."""

    def __init__(self, seen: list[weakref.ref[Large]]) -> None:
        self.large = Large()
        seen.append(weakref.ref(self.large))


@pytest.fixture
def uncollected() -> Iterator[None]:
    collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@needs_reference_counts
def test_the_guard_of_a_closed_stream_is_freed_with_it() -> None:
    guards: list[weakref.ref[Guard]] = []

    def new_guard() -> Guard:
        guard = Guard()
        guards.append(weakref.ref(guard))
        return guard

    def body() -> Iterator[int]:
        yield 1

    stream: Any = guarded(body, new_guard)()
    next(stream)
    stream.close()
    del stream
    assert guards[0]() is None


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("fails", ["", "pause", "end"])
@pytest.mark.parametrize("thrown", [False, True])
@needs_reference_counts
def test_what_an_error_holds_is_freed_with_it(fails: str, thrown: bool) -> None:
    seen: list[weakref.ref[Large]] = []

    def failing() -> Iterator[int]:
        yield 1
        raise Holding(seen)

    watch = Watch(fails)
    stream: Any = guarded(failing, lambda: watch)()
    next(stream)
    try:
        stream.throw(Holding(seen)) if thrown else next(stream)
    except (Holding, LookupError):
        pass
    assert seen[0]() is None


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("fails", ["", "pause", "end"])
@pytest.mark.parametrize("thrown", [False, True])
@needs_reference_counts
def test_what_an_error_of_an_async_stream_holds_is_freed_with_it(fails: str, thrown: bool) -> None:
    seen: list[weakref.ref[Large]] = []

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise Holding(seen)

    async def main() -> None:
        watch = Watch(fails)
        stream: Any = guarded_async(failing, lambda: watch)()
        await anext(stream)
        try:
            await (stream.athrow(Holding(seen)) if thrown else anext(stream))
        except (Holding, LookupError):
            pass
        assert seen[0]() is None

    asyncio.run(main())


@needs_reference_counts
def test_item_is_kept_until_the_next_is_asked_for_and_what_was_sent_no_longer_than_the_body_runs(kind: Any) -> None:
    items: list[weakref.ref[Large]] = []
    sent: list[weakref.ref[Large]] = []

    def new(seen: list[weakref.ref[Large]]) -> Large:
        assert [reference() for reference in seen] == [None] * len(seen)
        large = Large()
        seen.append(weakref.ref(large))
        return large

    def larges() -> Iterator[Any]:
        while True:
            yield new(items)

    async def larges_async() -> AsyncIterator[Any]:
        while True:
            yield new(items)

    async def main() -> None:
        driver = kind[0](larges if kind[0] is Sync else larges_async, Guard())
        driver.open()
        await driver.send(None)
        for _ in range(2):
            await driver.send(new(sent))
        new(sent)

    asyncio.run(main())
    assert (len(items), len(sent)) == (3, 3)


def test_dropped_stream_ends_its_guard() -> None:
    watch = Watch()
    log: list[Any] = []
    stream = guarded(body, lambda: watch)(log)
    next(stream)
    del stream
    catch_up()
    assert (watch.told, log) == (["open", "resume", "pause", "GeneratorExit"], ["closed"])


def test_body_that_is_left_running_when_its_guard_is_over_is_closed_by_the_event_loop() -> None:
    class Stopping(Watch):
        def resume(self) -> None:
            raise GeneratorExit  # as if the stream was closed while the body ran

    async def main() -> None:
        log: list[Any] = []
        stream: Any = guarded_async(body_async, Stopping)(log)
        await anext(stream)
        with pytest.raises(GeneratorExit):
            await anext(stream)
        catch_up()
        for _ in range(5):
            await asyncio.sleep(0)
        assert log == ["closed"]

    asyncio.run(main())


def test_body_that_its_guard_still_closes_is_left_to_it_by_the_event_loop() -> None:
    async def main() -> None:
        guard = Guard()
        log: list[Any] = []
        stream: Any = body_async(log)
        await guard.first_item(stream)
        del stream
        for _ in range(5):
            await asyncio.sleep(0)
        assert log == []

    asyncio.run(main())
