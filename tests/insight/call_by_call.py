"""The plain replay, to compare the quick one with: every beginning and every end of a call is told to the machine."""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from math import inf

from circuit_breaker import CircuitBreaker, CircuitBreakerConfig, CircuitMode, CircuitOpenError, Permit
from circuit_breaker._breaker.machine import Machine
from circuit_breaker._breaker.states import Asker, Closed, Permission, Probe
from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Calls, Circuit
from circuit_breaker.insight.replay import OUTCOMES, SEED, Change, Course
from circuit_breaker.testing import FakeClock


def circuit(*calls: tuple[float, float, int]) -> Circuit:
    """Return the circuit of these calls: beginning, duration, outcome."""
    begin, took, outcome = zip(*sorted(calls, key=lambda call: call[0]), strict=True) if calls else ((), (), ())
    return Circuit(Calls(array("d", begin), array("d", took), bytearray(outcome)))


def steps(circuit: Circuit) -> list[tuple[bool, int]]:
    """Return what happens, in its order: a call (True) begins, or (False) ends."""
    calls = circuit.calls
    ends = [begin + took for begin, took in zip(calls.begin, calls.took, strict=True)]
    by_end = sorted(range(len(calls)), key=lambda call: (ends[call], call))
    found = []
    ended = 0
    for call, begin in enumerate(calls.begin):
        while ended < len(by_end) and by_end[ended] < call and ends[by_end[ended]] <= begin:
            found.append((False, by_end[ended]))
            ended += 1
        found.append((True, call))
    return found + [(False, call) for call in by_end[ended:]]


def replay_call_by_call(circuit: Circuit, config: CircuitBreakerConfig) -> Course:
    calls = circuit.calls
    machine = Machine(config, CircuitMode.AUTO, calls.begin[0] if calls else 0.0)
    permissions: dict[int, Permission] = {}
    changes: list[Change] = []
    rejected: list[int] = []
    dice = random.getstate()
    random.seed(SEED)
    for begins, call in steps(circuit):
        now = calls.begin[call]
        if begins:
            admitted = machine.admit(Asker.PERMIT, now)
            if isinstance(admitted, Closed | Probe):
                permissions[call] = admitted
            else:
                rejected.append(call)
        elif call in permissions:
            took = calls.took[call]
            now += took
            outcome = OUTCOMES[calls.outcome[call]]
            opened = machine.settle(permissions.pop(call), outcome, now, took, took >= config._slow_s)
            if opened is not None and callable(config.reset_timeout_s):
                opened.end_after(machine, config.reset_timeout_s(opened.openings - 1), None)
        changes += [Change(now, *change) for change in machine.take_changes()]
    random.setstate(dice)
    return Course(changes, ranges(rejected))


def replay_with_a_breaker(circuit: Circuit, config: CircuitBreakerConfig) -> Course:
    """Make the calls, on a clock that stands still, with the breaker that everybody uses."""
    calls = circuit.calls
    clock = FakeClock(calls.begin[0] if calls else 0.0)
    changes: list[Change] = []
    rejected: list[int] = []
    permits: dict[int, Permit] = {}

    def listen(event: object) -> None:
        if type(event).__name__ == "StateChanged":
            changes.append(Change(clock(), event.old_state, event.new_state, event.reason))  # type: ignore[attr-defined]

    breaker = CircuitBreaker(config=config, clock=clock, listeners=[listen])
    dice = random.getstate()
    random.seed(SEED)
    for begins, call in steps(circuit):
        now = calls.begin[call] + (0.0 if begins else calls.took[call])
        clock.advance(now - clock())
        if begins:
            try:
                permits[call] = breaker.permit()
            except CircuitOpenError:
                rejected.append(call)
        elif call in permits:
            permit = permits.pop(call)
            {SUCCESS: permit.success, FAILURE: permit.failure, IGNORED: permit.ignore}[calls.outcome[call]]()
    random.setstate(dice)
    return Course(changes, ranges(rejected))


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return numbers in rising order as ranges."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def joined(course: Course) -> Course:
    """Return the same with ranges that touch made one."""
    return Course(course.changes, ranges([n for first, last in course.rejected for n in range(first, last)]))


NEVER = inf
