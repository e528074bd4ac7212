"""What a breaker would have done with the calls of a log, decided by the state machine of every breaker.

The machine gets only the calls that can matter to it. While it is closed these are failures, slow calls, and
the first success after `quiet_until`; the successes between are passed over in one step. While it is open, every call
that begins is rejected. While it probes, only the probes matter, and whoever comes when there may be a free slot. No
other module of this package touches the machine.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import inf
from typing import Any, Final, NamedTuple

from .._breaker.config import CircuitBreakerConfig
from .._breaker.machine import OPEN_FOR_UNTIL_ASKED_S, Machine
from .._breaker.states import Asker, Closed, Open, Period, Permission, Probe
from .._common import checks
from .._common.words import CircuitMode, CircuitState, Outcome
from .calls import Circuit

SEED: Final = 1  # of the jitter in `reset_timeout_s`: two replays of one log are equal
OUTCOMES: Final = (Outcome.SUCCESS, Outcome.FAILURE, Outcome.IGNORED)  # by the codes of `calls`


class Change(NamedTuple):
    """The circuit went from one state to another."""

    at: float
    old_state: CircuitState
    new_state: CircuitState
    reason: str


class Course(NamedTuple):
    """What became of one circuit: every change of its state, and the calls that it would have rejected.

    The rejected calls are ranges of call numbers, each with its first call and the one after its last.
    """

    changes: list[Change]
    rejected: list[tuple[int, int]]


def replay(circuit: Circuit, config: CircuitBreakerConfig) -> Course:
    """Return what a breaker with this configuration, closed at first, would have done."""
    if not callable(config.reset_timeout_s):
        return _Replay(circuit, config).run()
    state = random.getstate()
    random.seed(SEED)
    try:
        return _Replay(circuit, config).run()
    finally:
        random.setstate(state)


class _Replay:
    """A machine, and how far it has read.

    Before a call begins, every call that has ended by then is settled. `_begun` calls have begun, `_ended` have ended.
    """

    def __init__(self, circuit: Circuit, config: CircuitBreakerConfig) -> None:
        self._circuit = circuit
        self._config = config
        self._begin = circuit.calls.begin
        self._marks = circuit.marks(config._slow_s)
        self._machine = Machine(config, CircuitMode.AUTO, self._begin[0] if self._begin else 0.0)
        self._changes: list[Change] = []
        self._rejected: list[tuple[int, int]] = []
        self._begun = self._ended = 0
        # Calls that began before the present closed period and have not ended: their ranks, in order.
        self._late: list[int] = []
        self._sorted_out = 0  # calls up to this one have ended, or are among the late ones

    def run(self) -> Course:
        """Read all calls."""
        more = True
        while more:
            period = self._machine.period
            if isinstance(period, Closed):
                more = self._stay_closed(period)
            elif isinstance(period, Open):
                more = self._stay_open(period)
            else:
                more = self._probe(period)
        return Course(self._changes, self._rejected)

    def _stay_closed(self, period: Closed) -> bool:
        """Settle what matters until the circuit opens; tell whether it has."""
        circuit, machine = self._circuit, self._machine
        ends, successes, order = circuit.ends, circuit.successes, circuit.order
        self._find_late()
        late = self._late
        late_successes = [rank for rank in late if successes[rank + 1] > successes[rank]]
        late_ranks = set(late)
        ended = self._ended
        marks = self._marks
        for index in range(bisect_left(marks, ended), len(marks)):
            rank = marks[index]
            if rank in late_ranks:
                continue
            while ends[rank] >= period.quiet_until:
                told = self._first_success(bisect_left(ends, period.quiet_until, ended, rank), rank, late_ranks)
                if told is None:
                    break
                self._pass_over(period, ended, told, late_successes)
                self._settle(period, told)
                ended = told + 1
            self._pass_over(period, ended, rank, late_successes)
            self._settle(period, rank)
            ended = rank + 1
            if machine.period is not period:
                self._ended = ended
                self._begun = max(bisect_left(self._begin, ends[rank]), order[rank] + 1)
                return True
        return False

    def _find_late(self) -> None:
        rank, ended = self._circuit.rank, self._ended
        self._late = [late for late in self._late if late >= ended]
        self._late += [late for late in rank[self._sorted_out : self._begun] if late >= ended]
        self._late.sort()
        self._sorted_out = self._begun

    def _first_success(self, first: int, last: int, late: Iterable[int]) -> int | None:
        """Return the rank of the first success of this period in a range of ranks."""
        successes = self._circuit.successes
        return next((r for r in range(first, last) if successes[r + 1] > successes[r] and r not in late), None)

    def _pass_over(self, period: Closed, first: int, last: int, late_successes: list[int]) -> None:
        """Count the successes of this period in a range of ranks, none of which any rule cares about."""
        successes = self._circuit.successes
        number = successes[last] - successes[first]
        if number and late_successes:
            number -= bisect_left(late_successes, last) - bisect_left(late_successes, first)
        if number:
            period.successes += number
            period.streak = 0

    def _stay_open(self, period: Open) -> bool:
        """Reject whoever comes until the time is over; tell whether anybody came after that."""
        first = self._begun
        self._begun = bisect_left(self._begin, period.ends_at, first)
        if self._begun > first:
            self._rejected.append((first, self._begun))
        if self._begun == len(self._begin):
            return False
        self._machine.look(self._begin[self._begun])
        self._note(self._begin[self._begun])
        return True

    def _probe(self, period: Period) -> bool:
        """Let probes through until the circuit opens or closes; tell whether it has."""
        begin, circuit, machine = self._begin, self._circuit, self._machine
        probes: list[tuple[int, Permission]] = []
        while machine.period is period:
            ending = circuit.ends[probes[0][0]] if probes else inf
            call = self._begun
            if call < len(begin) and begin[call] < ending:
                admitted = machine.admit(Asker.PERMIT, begin[call])
                self._begun += 1
                if isinstance(admitted, Probe):
                    heappush(probes, (circuit.rank[call], admitted))
                else:
                    # There is a free slot again when a probe ends, or is overdue.
                    overdue = min(probe.since for probe in period.book.out) + self._config._overdue_s
                    self._begun = bisect_left(begin, min(ending, overdue), self._begun)
                    self._rejected.append((call, self._begun))
            elif probes:
                rank, permission = heappop(probes)
                self._settle(permission, rank)
                self._ended = rank + 1
            else:
                return False
        return True

    def _settle(self, permission: Permission, rank: int) -> None:
        """Tell the machine how a call ended."""
        circuit, config = self._circuit, self._config
        call = circuit.order[rank]
        took_s, now = circuit.calls.took[call], circuit.ends[rank]
        outcome = OUTCOMES[circuit.calls.outcome[call]]
        opened = self._machine.settle(permission, outcome, now, took_s, took_s >= config._slow_s)
        if opened is not None and callable(config.reset_timeout_s):
            opened.end_after(self._machine, _seconds(config.reset_timeout_s, opened.openings - 1), None)
        self._note(now)

    def _note(self, now: float) -> None:
        if self._machine.changes:
            self._changes += [Change(now, *change) for change in self._machine.take_changes()]


def _seconds(function: Callable[[int], Any], openings: int) -> float:
    """Return how long the circuit stays open by a function of the configuration, as a breaker does."""
    try:
        return checks.seconds("reset_timeout_s", function(openings), minimum=0, infinite=True)
    except Exception:
        return OPEN_FOR_UNTIL_ASKED_S
