"""A breaker walks at random, and an oracle that was told of the same deeds must agree with it after every step."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from datetime import timedelta
from math import inf, nan
from typing import Any
from unittest import mock

from breaker_oracle import CLOSED, HALF_OPEN, OPEN, SUCCESS
from breaker_players import (
    MAKERS,
    SAYINGS,
    VALUES,
    WALL,
    WAYS,
    Deed,
    Ending,
    Gone,
    Odd,
    PredicateError,
    Real,
    Told,
    Unasked,
    as_told,
)
from examples import examples
from failures import Down
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tally import LONG, Tally, missing

from circuit_breaker import BulkheadFullError, CircuitBreakerConfig, CircuitMode, Outcome, retry_after_hint

MODEL = "breaker"


def growing(openings: int) -> float:
    return 10.0 * 2**openings


def broken(argument: object) -> float:
    raise ValueError("no idea")


def nonsense(argument: object) -> Any:
    return "soon"


def is_down(error: BaseException) -> object:
    if isinstance(error, Odd):
        raise PredicateError
    return [error] if isinstance(error, Down) else []


def is_unasked(error: BaseException) -> object:
    if isinstance(error, Odd):
        raise PredicateError
    return isinstance(error, Unasked)


def is_bad(value: object) -> object:
    if value == "odd":
        raise PredicateError
    return value == "bad"


def three_failures(counts: Any) -> str:
    calls, failures, slow_calls, consecutive_failures = counts
    assert calls >= failures >= 0
    assert consecutive_failures >= 0
    return "three are enough" if failures + slow_calls >= 3 else ""


def _config(**given: Any) -> CircuitBreakerConfig:
    if given["failure_threshold"] is None:
        given["failure_threshold_within_s"] = None
    if given["failure_threshold"] is None and given["error_rate_threshold"] is None:
        given["failure_threshold"] = 2
    if given["slow_call_duration_s"] is None:
        given["slow_call_rate_threshold"] = None
    return CircuitBreakerConfig(**given)


configs = st.builds(
    _config,
    failure_threshold=st.sampled_from([1, 2, 3, None]),
    success_threshold=st.sampled_from([1, 2, 3]),
    reset_timeout_s=st.sampled_from([10.0, 30.0, 0.0, inf, growing, broken, nonsense]),
    half_open_max_calls=st.sampled_from([1, 2, 3]),
    error_rate_threshold=st.sampled_from([None, 0.5, 1.0, 1 / 3]),
    error_rate_window=st.sampled_from([2, 4, 10, timedelta(seconds=30)]),
    minimum_calls=st.sampled_from([None, 1, 2]),
    slow_call_duration_s=st.sampled_from([None, 2.0]),
    slow_call_rate_threshold=st.sampled_from([None, 0.5, 1.0]),
    half_open_timeout_s=st.sampled_from([30.0, 5.0, inf]),
    failure_exceptions=st.sampled_from([(Exception,), (Down,), Down | Gone, is_down, (Down, BulkheadFullError)]),
    ignored_exceptions=st.sampled_from([(), (Unasked,), Unasked, is_unasked]),
    failure_result=st.sampled_from([None, None, is_bad]),
    retry_after=st.sampled_from([None, retry_after_hint, broken]),
    retry_after_max_s=st.sampled_from([300.0, 60.0]),
    half_open_failure_threshold=st.sampled_from([1, 1, 2]),
    failure_threshold_within_s=st.sampled_from([None, None, 10.0]),
    trip_when=st.sampled_from([None, None, three_failures, broken]),
)
modes = st.sampled_from(list(CircuitMode))
waits = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 5.0, 10.0, 29.0, 30.0, 31.0, 100.0])
pauses = st.sampled_from([0.0, 1.0, 2.0, 5.0, 30.0])
latencies = st.sampled_from([0.0, 0.0, 1.0, 2000.0, -1.0, nan, inf])
numbers = st.integers(0, 7)
endings = st.builds(Ending, st.sampled_from(["good", "good", "down", "down", "down", *MAKERS, *VALUES]))
ways = st.sampled_from(list(WAYS))
outcomes = st.sampled_from(list(Outcome))


def deed(verb: str, *args: Any) -> Any:
    return st.builds(lambda *given: Deed(verb, given), *args)


_operators = st.one_of(
    deed("mode", modes),
    deed("reset"),
    deed("trip", st.sampled_from([None, 5.0, inf])),
    deed("reset_stats"),
    deed("configure", configs),
)
_small = st.one_of(
    deed("advance", pauses),
    deed("allow"),
    deed("record", outcomes, latencies),
    deed("permit"),
    deed("settle", numbers, st.sampled_from(SAYINGS[1:]), endings),
    deed("enter"),
    deed("leave", endings),
    deed("advance", pauses) | _operators,
)


@st.composite
def _scripts(draw: Any, depth: int = 3) -> Any:
    """Draw up to two deeds; those that go inside of a call have a script of their own."""
    return tuple(draw(_deeds(depth)) for _ in range(draw(st.integers(0, 2 if depth else 0))))


@st.composite
def _deeds(draw: Any, depth: int) -> Deed:
    sort = draw(st.integers(0, 3))
    if sort == 0:
        return Deed("use", (draw(numbers), draw(_scripts(depth - 1)), draw(st.sampled_from(SAYINGS)), draw(endings)))
    if sort < 3:
        return Deed("call", (draw(ways), draw(_scripts(depth - 1)), draw(endings)))
    return draw(_small)


scripts = _scripts()
items = st.one_of(st.none(), st.none(), endings)


class BreakerModel(RuleBasedStateMachine):
    """Each rule waits, does one deed to both, and compares all there is to see."""

    def __init__(self) -> None:
        super().__init__()
        self.agreed = False
        self._undo = ExitStack()
        self._undo.enter_context(mock.patch("time.time", lambda: WALL + self.real.now))
        self._undo.enter_context(mock.patch.object(logging.getLogger("circuit_breaker"), "disabled", True))

    @initialize(
        config=configs, mode=st.sampled_from([CircuitMode.AUTO, CircuitMode.AUTO, *CircuitMode]), listened=st.booleans()
    )
    def begin(self, config: CircuitBreakerConfig, mode: CircuitMode, listened: bool) -> None:
        self.tally = Tally(MODEL)
        self.real = Real(config, mode, listened)
        self.told = Told(config, mode, self.tally)
        self.listened = listened
        self.compare()
        self.agreed = True

    def do(self, verb: str, *args: Any, after: float = 0.0, context: int = 0) -> None:
        self.tally.step()
        self.agreed = False
        deed = Deed("inside", (context, Deed(verb, args)))
        for player in (self.real, self.told):
            player.do_advance(after)
            player.play(deed)
        self.compare()
        self.agreed = True

    def compare(self) -> None:
        self._compare_telling()
        seen, due = self.real.picture(), self.told.picture()
        assert {name: seen[name] for name in seen if seen[name] != due[name]} == {
            name: due[name] for name in due if seen[name] != due[name]
        }
        self._compare_telling()
        oracle = self.told.oracle
        self.tally.met(f"state {oracle.period.state.value}, mode {oracle.mode.value}")

    def _compare_telling(self) -> None:
        assert self.real.said == self.told.said
        if self.listened:
            assert [*map(as_told, self.real.heard)] == self.told.oracle.events
        for said in (self.real.said, self.told.said, self.real.heard, self.told.oracle.events):
            said.clear()

    @rule(after=waits, context=numbers, way=ways, script=scripts, ending=endings)
    def call(self, after: float, context: int, way: str, script: Any, ending: Ending) -> None:
        self.do("call", way, script, ending, after=after, context=context)

    @rule(after=waits, way=ways, kind=st.sampled_from(["down", "down", "good"]), times=st.integers(1, 3))
    def calls(self, after: float, way: str, kind: str, times: int) -> None:
        for _ in range(times):
            self.do("call", way, (), Ending(kind), after=after)

    @rule(after=waits, context=numbers)
    def enter(self, after: float, context: int) -> None:
        self.do("enter", after=after, context=context)

    @rule(after=waits, context=numbers, ending=endings)
    def leave(self, after: float, context: int, ending: Ending) -> None:
        self.do("leave", ending, after=after, context=context)

    @rule(context=numbers)
    def branch(self, context: int) -> None:
        for player in (self.real, self.told):
            player.do_branch(context)

    @rule(after=waits)
    def allow(self, after: float) -> None:
        self.do("allow", after=after)

    @rule(after=waits, outcome=outcomes, latency_ms=latencies)
    def record(self, after: float, outcome: Outcome, latency_ms: float) -> None:
        self.do("record", outcome, latency_ms, after=after)

    @rule(after=waits)
    def permit(self, after: float) -> None:
        self.do("permit", after=after)

    @precondition(lambda self: self.told.permits)
    @rule(after=waits, number=numbers, saying=st.sampled_from(SAYINGS[1:]), ending=endings)
    def settle(self, after: float, number: int, saying: str, ending: Ending) -> None:
        self.do("settle", number, saying, ending, after=after)

    @precondition(lambda self: self.told.permits)
    @rule(after=waits, context=numbers, number=numbers, script=scripts, saying=st.sampled_from(SAYINGS), ending=endings)
    def use(self, after: float, context: int, number: int, script: Any, saying: str, ending: Ending) -> None:
        self.do("use", number, script, saying, ending, after=after, context=context)

    @precondition(lambda self: self.told.permits)
    @rule(number=numbers)
    def lose(self, number: int) -> None:
        self.do("lose", number)

    @rule(after=waits, context=numbers, script=scripts)
    def start(self, after: float, context: int, script: Any) -> None:
        self.do("start", script, after=after, context=context)

    @precondition(lambda self: self.told.tasks)
    @rule(after=waits, number=numbers, script=scripts, ending=endings)
    def finish(self, after: float, number: int, script: Any, ending: Ending) -> None:
        self.do("finish", number, script, ending, after=after)

    @precondition(lambda self: self.told.tasks)
    @rule(after=waits, number=numbers)
    def drop_task(self, after: float, number: int) -> None:
        self.do("drop_task", number, after=after)

    @rule(after=waits, context=numbers, asynchronous=st.booleans(), script=scripts, item=items)
    def open_stream(self, after: float, context: int, asynchronous: bool, script: Any, item: Any) -> None:
        self.do("open_stream", asynchronous, script, item, after=after, context=context)

    @precondition(lambda self: self.told.streams)
    @rule(after=waits, context=numbers, number=numbers, script=scripts, item=items)
    def next(self, after: float, context: int, number: int, script: Any, item: Any) -> None:
        self.do("next", number, script, item, after=after, context=context)

    @precondition(lambda self: self.told.streams)
    @rule(after=waits, number=numbers)
    def drop_stream(self, after: float, number: int) -> None:
        self.do("drop_stream", number, after=after)

    @rule(after=waits)
    def wait(self, after: float) -> None:
        self.do("advance", after)

    @rule(after=waits, operator=_operators)
    def operate(self, after: float, operator: Deed) -> None:
        self.do(operator.verb, *operator.args, after=after)

    @precondition(lambda self: self.told.oracle.period.state is CLOSED)
    @rule(way=st.sampled_from(["call", "with"]), kind=st.sampled_from(["down", "down, asks for 45 s", "bad"]))
    def outage(self, way: str, kind: str) -> None:
        """The other side is down for so long that the circuit opens, if it can, and its time is over."""
        for _ in range(3):
            self.do("call", way, (), Ending(kind))
        self.do("advance", max(0.0, min(1_000.0, self.told.oracle.period.until - self.told.now)))

    @precondition(lambda self: self.told.oracle.mode in (CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED))
    @rule(mode=st.sampled_from([CircuitMode.AUTO, CircuitMode.SHADOW]))
    def unforce(self, mode: CircuitMode) -> None:
        self.do("mode", mode)

    @rule(failed=st.booleans())
    def count(self, failed: bool) -> None:
        self.do("count", failed, 1.0)

    def teardown(self) -> None:
        try:
            if self.agreed:
                self._recovers()
        finally:
            self._undo.close()

    def _recovers(self) -> None:
        """Whatever is lost, a breaker whose times are finite closes again when the other side answers."""
        oracle, config = self.told.oracle, self.told.oracle.config
        forced = oracle.mode in (CircuitMode.FORCED_OPEN, CircuitMode.FORCED_CLOSED)
        if forced or config.half_open_timeout_s == inf or (oracle.period.state is OPEN and oracle.period.until == inf):
            return
        for player in (self.real, self.told):
            player.do_advance(10_000.0)
        for _ in range(config.success_threshold):
            self.do("record", SUCCESS, 0.0)
            self.do("call", "call", (), Ending("good"), context=len(self.told.contexts) - 1)
        if oracle.period.state is HALF_OPEN:  # the last context may be inside of a probe, where calls ride
            for _ in range(config.success_threshold):
                self.do("call", "permit", (), Ending("good"))
        assert oracle.period.state is CLOSED
        self.tally.met("it recovers")


STATES = {f"state {state}, mode {mode}" for mode in ("auto", "shadow") for state in ("closed", "open", "half_open")}
STATES |= {"state open, mode forced_open", "state closed, mode forced_closed"}
ARROWS = {"closed -> open", "open -> half_open", "half_open -> open", "half_open -> closed"}
WANTED = (
    STATES
    | ARROWS
    | {
        "the streak trips",
        "the failure rate trips",
        "the slow rate trips",
        "a probe fails",
        "a probe is slow",
        "a rider fails",
        "probes close it",
        "a call rides on a probe",
        "half-open refuses",
        "refused in open",
        "refused in half_open",
        "SHADOW lets through what it would refuse",
        "FORCED_CLOSED does not trip",
        "a probe is overdue",
        "the answer of an overdue probe",
        "a late success",
        "a late failure",
        "a late ignored",
        "a record gives an anonymous permit back",
        "a block is left elsewhere",
        "a block is left elsewhere, and settles a probe",
        "the server asks to be left alone",
        "opened several times in a row",
        "opened by hand",
        "an open circuit is opened by hand",
        "a failure of a probe is borne",
        "a streak has expired",
        "a rule of the caller's own trips",
        "a rule of the caller's own raises",
        "a call takes over the slot of allow_request",
        "a long stream is a success while it goes on",
        "a group is judged",
        "a cancelled call that hung is a failure",
        "a bad value is a failure",
        "a predicate raises",
        "a permit is settled twice",
        "a permit is lost",
        "a fallback",
        "a stream gives an item",
        "a stream is dropped",
        "another configuration",
        "reset",
        "it recovers",
        *(f"way: {way}" for way in WAYS),
    }
)

TestBreakerModel = BreakerModel.TestCase
TestBreakerModel.settings = examples(
    6_000 if LONG else 100,
    stateful_step_count=60 if LONG else 40,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_model_reaches_every_state_and_rule() -> None:
    assert missing(MODEL, WANTED if LONG else STATES | ARROWS) == set()
