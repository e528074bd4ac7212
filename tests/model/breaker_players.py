"""The same deeds done twice: to a real breaker, and to the oracle. What each of them says afterwards must be equal.

A deed is data: `Deed("call", way, script, ending)`, where a script is a tuple of deeds done inside the call.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from math import inf
from typing import Any, NamedTuple

from breaker_oracle import FAILURE, IGNORED, SUCCESS, Counted, Frame, Oracle, Ticket, judge, named
from coroutines import Pause, drive
from failures import Down
from tally import Tally
from ways import BREAKER, Way

from circuit_breaker import (
    BulkheadFullError,
    CallFinished,
    CallRejected,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    Outcome,
    StateChanged,
    UsageError,
    circuit_breaker,
)

WALL = 1_000_000_000.0


class Gone(Exception):
    """Another failure, or an answer where failures are Down alone."""


class Unasked(Exception):
    """Ignored where it is listed so."""


class Odd(Exception):
    """Predicates raise at it."""


class PredicateError(Exception):
    """What they raise."""


class Deed(NamedTuple):
    verb: str
    args: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.verb}({', '.join(map(repr, self.args))})"


Script = tuple[Deed, ...]

MAKERS: dict[str, Callable[[], BaseException]] = {
    "down": Down,
    "gone": Gone,
    "unasked": Unasked,
    "odd": Odd,
    "cancelled": asyncio.CancelledError,
    "interrupt": KeyboardInterrupt,
    "exit": SystemExit,
    "open": lambda: CircuitOpenError("another circuit is open", "other"),
    "full": lambda: BulkheadFullError("full", "other", 3),
    "down and unasked": lambda: ExceptionGroup("both", [Down(), Unasked()]),
    "unasked twice": lambda: ExceptionGroup("both", [Unasked(), ExceptionGroup("deep", [Unasked()])]),
    "gone and unasked": lambda: ExceptionGroup("both", [Gone(), Unasked()]),
    "cancelled and down": lambda: BaseExceptionGroup("both", [asyncio.CancelledError(), Down()]),
    "cancelled twice": lambda: BaseExceptionGroup("both", [asyncio.CancelledError(), asyncio.CancelledError()]),
    "full twice": lambda: ExceptionGroup("both", [BulkheadFullError("full"), BulkheadFullError("full")]),
    "odd and down": lambda: ExceptionGroup("both", [Odd(), Down()]),
}


def _wishing(seconds: object) -> BaseException:
    error = Down(f"come back in {seconds}")
    error.retry_after_s = seconds  # type: ignore[assignment]
    return error


WISHES: dict[str, object] = {"45 s": 45.0, "1000 s": 1000.0, "nonsense": "soon", "inf": inf}
MAKERS |= {f"down, asks for {name}": lambda wish=wish: _wishing(wish) for name, wish in WISHES.items()}

VALUES: dict[str, object] = {"good": "good", "bad": "bad", "odd value": "odd"}


class Ending:
    """How a body ends: it returns a value, or raises an exception that is this one's own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.error = MAKERS[kind]() if kind in MAKERS else None
        self.value = VALUES.get(kind)

    def __repr__(self) -> str:
        return self.kind

    def give(self) -> object:
        if self.error is not None:
            raise self.error
        return self.value


A_VALUE_INSTEAD = Way(
    "decorator with a fallback that returns",
    lambda breaker, body: circuit_breaker(breaker=breaker, fallback=lambda error: "fallback")(body),
    ("breaker",),
    returns=True,
)
WAYS = BREAKER | {A_VALUE_INSTEAD.name: A_VALUE_INSTEAD}

SAYINGS = ("", "success", "failure", "failure with error", "ignore")


class Player:
    """What both have in common: a clock, contexts, things that are held, and a record of what was said."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.said: list[Any] = []

    def play(self, deed: Deed) -> None:
        getattr(self, f"do_{deed.verb}")(*deed.args)

    def run(self, script: Script) -> None:
        for deed in script:
            self.play(deed)

    def do_advance(self, seconds: float) -> None:
        self.now += seconds


def as_told(event: Any) -> tuple[Any, ...]:
    """Return an event of the breaker as the oracle tells it."""
    assert isinstance(event, StateChanged | CallRejected | CallFinished)
    assert event.circuit_name == "api"
    if isinstance(event, StateChanged):
        assert event.reason
        return "state", event.old_state, event.new_state
    if isinstance(event, CallRejected):
        return "rejected", event.retry_after_s
    return "finished", event.outcome, event.latency_ms, named(event.error)


class Real(Player):
    """A breaker of the library."""

    def __init__(self, config: CircuitBreakerConfig, mode: CircuitMode, listened: bool) -> None:
        super().__init__()
        self.heard: list[Any] = []  # looked at later: what a listener raises is lost
        listeners = (self.heard.append,) if listened else ()
        self.breaker = CircuitBreaker("api", config, mode=mode, listeners=listeners, clock=lambda: self.now)
        self.contexts = [contextvars.Context(), contextvars.Context()]
        self.tasks: list[tuple[contextvars.Context, Coroutine[Any, Any, Any]]] = []
        self.streams: list[Any] = []
        self.permits: list[Any] = []

    def _try(self, ending: Ending | None, function: Callable[[], Any]) -> bool:
        """Do something that may be rejected or raise. Return what happened, and whether it was left open."""
        try:
            value = function()
        except StopIteration as stop:
            self.said.append(("returned", stop.value))
        except StopAsyncIteration:
            self.said.append(("returned", None))
        except BaseException as error:
            if isinstance(error, CircuitOpenError) and error.circuit_name == "api":
                self.said.append(("refused", error.state, error.retry_after_s, error.last_failure))
            elif isinstance(error, PredicateError):
                assert ending is not None
                assert ending.error is None or error.__context__ is ending.error or ending.error in _held(error)
                self.said.append("predicate")
            elif isinstance(error, RuntimeError) and (ending is None or error is not ending.error):
                self.said.append("misuse")
            else:
                self.said.append(("raised", error))
        else:
            self.said.append(("returned", value))
            return True
        return False

    def do_inside(self, number: int, deed: Deed) -> None:
        self.contexts[number % len(self.contexts)].run(self.play, deed)

    def do_branch(self, number: int) -> None:
        self.contexts.append(self.contexts[number % len(self.contexts)].copy())

    def do_call(self, way: str, script: Script, ending: Ending) -> None:
        def body() -> Any:
            self.run(script)
            return ending.give()

        self._try(ending, WAYS[way].ready(self.breaker, body))

    def do_enter(self) -> None:
        self._try(None, lambda: self.breaker.__enter__() and None)

    def do_leave(self, ending: Ending) -> None:
        def leave() -> None:
            try:
                ending.give()
            except BaseException as error:
                self.breaker.__exit__(type(error), error, None)
            else:
                self.breaker.__exit__(None, None, None)

        self._try(ending, leave)

    def do_allow(self) -> None:
        self.said.append(self.breaker.allow_request())

    def do_record(self, outcome: Outcome, latency_ms: float) -> None:
        if outcome is SUCCESS:
            self.breaker.record_success(latency_ms)
        elif outcome is FAILURE:
            self.breaker.record_failure(latency_ms)
        else:
            self.breaker.record_ignored()

    def do_permit(self) -> None:
        self._try(None, lambda: self.permits.append(self.breaker.permit()))

    def _say(self, permit: Any, saying: str, ending: Ending) -> None:
        if saying == "success":
            permit.success()
        elif saying == "failure":
            permit.failure()
        elif saying == "failure with error":
            permit.failure(ending.error)
        elif saying == "ignore":
            permit.ignore()

    def do_settle(self, number: int, saying: str, ending: Ending) -> None:
        if self.permits:
            permit = self.permits[number % len(self.permits)]
            self._try(None, lambda: self._say(permit, saying, ending))

    def do_use(self, number: int, script: Script, saying: str, ending: Ending) -> None:
        if not self.permits:
            return
        permit = self.permits[number % len(self.permits)]

        def use() -> Any:
            with permit:
                self.run(script)
                self._say(permit, saying, ending)
                return ending.give()

        self._try(ending, use)

    def do_lose(self, number: int) -> None:
        if self.permits:
            self.permits.pop(number % len(self.permits))

    def do_start(self, script: Script) -> None:
        async def body() -> Any:
            self.run(script)
            then, ending = await Pause()
            self.run(then)
            return ending.give()

        context = contextvars.copy_context()
        task = self.breaker.call_async(body)
        if self._try(None, lambda: context.run(task.send, None)):
            self.tasks.append((context, task))

    def do_finish(self, number: int, script: Script, ending: Ending) -> None:
        if self.tasks:
            context, task = self.tasks.pop(number % len(self.tasks))
            self._try(ending, lambda: context.run(task.send, (script, ending)))

    def do_drop_task(self, number: int) -> None:
        if self.tasks:
            context, task = self.tasks.pop(number % len(self.tasks))
            context.run(task.close)

    def do_open_stream(self, asynchronous: bool, script: Script, ending: Ending | None) -> None:
        stream = _AsyncLines(self) if asynchronous else _Lines(self)
        if self._try(ending, lambda: stream.ask((script, ending))):
            self.streams.append(stream)

    def do_next(self, number: int, script: Script, ending: Ending | None) -> None:
        if self.streams:
            stream = self.streams[number % len(self.streams)]
            if not self._try(ending, lambda: stream.ask((script, ending))):
                self.streams.remove(stream)

    def do_drop_stream(self, number: int) -> None:
        if self.streams:
            self.streams.pop(number % len(self.streams)).drop()

    def do_mode(self, mode: CircuitMode) -> None:
        self.breaker.mode = mode

    def do_configure(self, config: CircuitBreakerConfig) -> None:
        self.breaker.config = config

    def do_reset(self) -> None:
        self.breaker.reset()

    def do_trip(self, open_for_s: float | None) -> None:
        try:
            self.breaker.trip(open_for_s)
        except UsageError:
            self.said.append("misuse")

    def do_reset_stats(self) -> None:
        self.breaker.stats.reset()

    def do_count(self, failed: bool, latency_ms: float) -> None:
        stats = self.breaker.stats
        (stats.record_failure if failed else stats.record_success)(latency_ms)

    def picture(self) -> dict[str, Any]:
        state = self.breaker.state
        snapshot = self.breaker.snapshot()
        assert snapshot.name == "api"
        assert snapshot.state is state
        assert self.breaker.is_open is (state.value == "open")
        assert self.breaker.is_closed is (state.value == "closed")
        assert self.breaker.mode is snapshot.mode
        assert self.breaker.stats == snapshot.stats
        seen = {
            name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__ if name not in ("name", "stats")
        }
        return seen | {name: getattr(self.breaker.stats, name) for name in snapshot.stats.__dataclass_fields__}


def _held(error: BaseException) -> list[BaseException]:
    """Return what an exception was raised in the middle of, leaves of groups included."""
    found: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None:
        found.append(seen)
        seen = seen.__context__
    return found


class _Lines:
    """A guarded generator whose body does what it is sent."""

    def __init__(self, real: Real) -> None:
        command: Any = None

        @real.breaker
        def stream() -> Iterator[Any]:
            sent = command
            for number in range(1_000):
                script, ending = sent
                real.run(script)
                if ending is not None:
                    return ending.give()
                sent = yield number

        def ask(given: Any) -> Any:
            nonlocal command
            if command is None:
                command = given
                return next(self._stream)
            return self._stream.send(given)

        self._stream: Any = stream()
        self.ask = ask
        self.drop = self._stream.close


class _AsyncLines:
    """The same as an async generator."""

    def __init__(self, real: Real) -> None:
        command: Any = None

        @real.breaker
        async def stream() -> AsyncIterator[Any]:
            sent = command
            for number in range(1_000):
                script, ending = sent
                real.run(script)
                if ending is not None:
                    ending.give()
                    return
                sent = yield number

        def ask(given: Any) -> Any:
            nonlocal command
            if command is None:
                command = given
                return drive(self._stream.asend(None))
            return drive(self._stream.asend(given))

        self._stream: Any = stream()
        self.ask = ask

    def drop(self) -> None:
        drive(self._stream.aclose())


class _ToldStream(NamedTuple):
    ticket: Ticket
    asynchronous: bool


class _ToldPermit:
    def __init__(self, ticket: Ticket, started: float) -> None:
        self.ticket = ticket
        self.started = started
        self.settled = False
        self.used = False


class Told(Player):
    """The oracle, told of the same deeds."""

    def __init__(self, config: CircuitBreakerConfig, mode: CircuitMode, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.oracle = Oracle(config, mode, self.now, tally)
        self.inside: list[Frame] = []
        self.contexts: list[list[Frame]] = [[], []]
        self.tasks: list[tuple[list[Frame], Frame]] = []
        self.streams: list[dict[str, Any]] = []
        self.permits: list[_ToldPermit] = []

    def do_advance(self, seconds: float) -> None:
        super().do_advance(seconds)
        self.oracle.now = self.now

    def _refused(self) -> None:
        oracle = self.oracle
        self.said.append(("refused", oracle.state, oracle.retry_after_s(), oracle.period.failure))

    def _end(
        self, ticket: Ticket, latency_s: float, ending: Ending, value: bool, waited_s: float | None = None
    ) -> None:
        """Settle as the ending says, and say what the caller gets."""
        config = self.oracle.config
        error = ending.error
        result: Any = ("returned", ending.value) if error is None else ("raised", error)
        try:
            if error is not None:
                outcome = judge(error, config, latency_s if waited_s is None else waited_s)
                if isinstance(error, BaseExceptionGroup):
                    self.tally.met("a group is judged")
                if outcome is FAILURE and not isinstance(error, Exception):
                    self.tally.met("a cancelled call that hung is a failure")
            elif value and config.failure_result is not None and config.failure_result(ending.value):
                self.tally.met("a bad value is a failure")
                outcome = FAILURE
            else:
                outcome = SUCCESS
        except PredicateError:
            self.tally.met("a predicate raises")
            outcome, result = IGNORED, "predicate"
        self.oracle.settle(ticket, outcome, latency_s * 1000, error)
        self.said.append(result)

    def do_inside(self, number: int, deed: Deed) -> None:
        outer, self.inside = self.inside, self.contexts[number % len(self.contexts)]
        self.play(deed)
        self.inside = outer

    def do_branch(self, number: int) -> None:
        self.contexts.append(list(self.contexts[number % len(self.contexts)]))

    def _enter(self, ticket: Ticket, block: bool = False) -> Frame:
        frame = Frame(ticket, self.now, block)
        self.inside.append(frame)
        return frame

    def do_call(self, way: str, script: Script, ending: Ending) -> None:
        self.tally.met(f"way: {way}")
        block = WAYS[way].is_block
        ticket = self.oracle.admit(None if WAYS[way].own_permit else self.inside, block=block)
        if ticket is None:
            if way == A_VALUE_INSTEAD.name:
                self.tally.met("a fallback")
                self.said.append(("returned", "fallback"))
            else:
                self._refused()
            return
        frame = self._enter(ticket, block)
        self.run(script)
        if block:
            self._leave(ending)
        else:
            frame.over = True
            self._end(ticket, self.now - frame.started, ending, value=WAYS[way].returns)

    def do_enter(self) -> None:
        ticket = self.oracle.admit(self.inside, block=True)
        if ticket is None:
            self._refused()
        else:
            self._enter(ticket, block=True)
            self.said.append(("returned", None))

    def do_leave(self, ending: Ending) -> None:
        self._leave(ending)
        if self.said[-1] != "predicate":  # what the block returns or raises is not for __exit__ to say
            self.said[-1] = ("returned", None)

    def _leave(self, ending: Ending) -> None:
        mine = [f for f in self.inside if f.block and not f.over]
        if not mine:
            self._end(self.oracle.ticket_of_block_left_elsewhere(), 0.0, ending, value=False)
            return
        frame, ticket = mine[-1], mine[-1].ticket
        frame.over = True
        if ticket.settled:  # by a block that was left elsewhere, which then left its own for this one
            self.tally.met("a block is left whose probe was settled elsewhere")
            present = ticket.period is self.oracle.period
            ticket = self.oracle.ticket_of_block_left_elsewhere() if present else Ticket(None, self.now)
        self._end(ticket, self.now - frame.started, ending, value=False)

    def do_allow(self) -> None:
        self.said.append(self.oracle.admit(anonymous=True) is not None)

    def do_record(self, outcome: Outcome, latency_ms: float) -> None:
        counted = latency_ms if outcome is not IGNORED and 0.0 <= latency_ms < inf else 0.0
        self.oracle.record(outcome, counted)

    def do_permit(self) -> None:
        ticket = self.oracle.admit()
        if ticket is None:
            self._refused()
        else:
            self.permits.append(_ToldPermit(ticket, self.now))
            self.said.append(("returned", None))

    def _say(self, permit: _ToldPermit, saying: str, ending: Ending) -> bool:
        """Settle a permit as somebody says; tell whether that was possible."""
        if not saying:
            return True
        if permit.settled:
            return False
        outcome = {"success": SUCCESS, "ignore": IGNORED}.get(saying, FAILURE)
        error = ending.error if saying == "failure with error" else None
        permit.settled = True
        self.oracle.settle(permit.ticket, outcome, (self.now - permit.started) * 1000, error)
        return True

    def do_settle(self, number: int, saying: str, ending: Ending) -> None:
        if self.permits:
            done = self._say(self.permits[number % len(self.permits)], saying, ending)
            self.said.append(("returned", None) if done else "misuse")
            if not done:
                self.tally.met("a permit is settled twice")

    def do_use(self, number: int, script: Script, saying: str, ending: Ending) -> None:
        if not self.permits:
            return
        permit = self.permits[number % len(self.permits)]
        if permit.settled or permit.used:
            self.said.append("misuse")
            return
        permit.used = True
        frame = Frame(permit.ticket, permit.started, False)
        self.inside.append(frame)
        self.run(script)
        said = self._say(permit, saying, ending)
        frame.over = True
        if not said:  # the block itself raises the misuse, which is then its ending
            self.said.append("misuse")
        elif not permit.settled:
            permit.settled = True
            self._end(permit.ticket, self.now - permit.started, ending, value=False)
        else:
            self.said.append(("returned", ending.value) if ending.error is None else ("raised", ending.error))

    def do_lose(self, number: int) -> None:
        if self.permits:
            permit = self.permits.pop(number % len(self.permits))
            if not permit.settled:
                self.tally.met("a permit is lost")

    def do_start(self, script: Script) -> None:
        ticket = self.oracle.admit(self.inside)
        if ticket is None:
            self._refused()
            return
        outer, self.inside = self.inside, list(self.inside)
        frame = self._enter(ticket)
        self.run(script)
        self.tasks.append((self.inside, frame))
        self.said.append(("returned", None))
        self.inside = outer

    def do_finish(self, number: int, script: Script, ending: Ending) -> None:
        if self.tasks:
            inside, frame = self.tasks.pop(number % len(self.tasks))
            outer, self.inside = self.inside, inside
            self.run(script)
            self.inside = outer
            frame.over = True
            self._end(frame.ticket, self.now - frame.started, ending, value=True)

    def do_drop_task(self, number: int) -> None:
        if self.tasks:
            _, frame = self.tasks.pop(number % len(self.tasks))
            frame.over = True
            self.oracle.settle(frame.ticket, IGNORED, (self.now - frame.started) * 1000, GeneratorExit())

    def _step(self, stream: dict[str, Any], script: Script, ending: Ending | None) -> bool:
        ticket = stream["ticket"]
        asked = self.now
        if stream["over"]:
            self.run(script)
        else:
            ticket.since = asked
            frame = self._enter(ticket)
            self.run(script)
            frame.over = True
            ticket.since = self.now
        stream.setdefault("latency_s", self.now - asked)
        if stream["over"] and ending is not None:
            done = ("returned", None if stream["asynchronous"] else ending.value)
            self.said.append(done if ending.error is None else ("raised", ending.error))
            return False
        if ending is not None:
            waited_s = self.now - asked if stream["watched"] or not stream["items"] else 0.0
            self._end(ticket, stream["latency_s"], ending, value=False, waited_s=waited_s)
            if stream["asynchronous"] and ending.error is None:
                self.said[-1] = ("returned", None)
            return False
        self.said.append(("returned", stream["items"]))
        stream["items"] += 1
        self.tally.met("a stream gives an item")
        if stream["probe"] and not stream["over"]:
            if self.now - stream["admitted"] >= self.oracle.config.half_open_timeout_s:
                self.tally.met("a long stream is a success while it goes on")
                stream["over"] = True
                self.oracle.settle(ticket, SUCCESS, stream["latency_s"] * 1000)
        return True

    def do_open_stream(self, asynchronous: bool, script: Script, ending: Ending | None) -> None:
        ticket = self.oracle.admit(self.inside)
        if ticket is None:
            self._refused()
            return
        probe = ticket.period is None or ticket.period.state is not CircuitState.CLOSED
        stream = {"ticket": ticket, "asynchronous": asynchronous, "items": 0, "over": False, "probe": probe}
        stream["watched"] = probe or self.oracle.config.slow_call_duration_s is not None
        stream["admitted"] = self.now
        if self._step(stream, script, ending):
            self.streams.append(stream)

    def do_next(self, number: int, script: Script, ending: Ending | None) -> None:
        if self.streams:
            stream = self.streams[number % len(self.streams)]
            if not self._step(stream, script, ending):
                self.streams.remove(stream)

    def do_drop_stream(self, number: int) -> None:
        if self.streams:
            stream = self.streams.pop(number % len(self.streams))
            self.tally.met("a stream is dropped")
            if not stream["over"]:
                self.oracle.settle(stream["ticket"], SUCCESS, stream["latency_s"] * 1000)

    def do_mode(self, mode: CircuitMode) -> None:
        self.oracle.set_mode(mode)

    def do_configure(self, config: CircuitBreakerConfig) -> None:
        self.tally.met("another configuration")
        self.oracle.configure(config)

    def do_reset(self) -> None:
        self.tally.met("reset")
        self.oracle.reset()

    def do_trip(self, open_for_s: float | None) -> None:
        if not self.oracle.trip(open_for_s):
            self.said.append("misuse")

    def do_reset_stats(self) -> None:
        self.oracle.reset_stats()

    def do_count(self, failed: bool, latency_ms: float) -> None:
        answer = Counted(FAILURE if failed else SUCCESS, self.now, latency_ms, False)
        self.oracle.count(answer, streak=True)

    def picture(self) -> dict[str, Any]:
        return self.oracle.picture(lambda at: WALL + at)
