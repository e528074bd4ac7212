"""However many calls there were, in whatever state: no more memory is held than after the first few thousand."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from itertools import cycle, repeat
from pathlib import Path
from typing import Any, TypeAlias

from claim import Claim, Finding, quiet
from clocks import Clock
from failures import Down
from ways import BREAKER, BREAKER_BY_HAND, BULKHEAD, POLICY, POLICY_BY_HAND, Way

from circuit_breaker import (
    Bulkhead,
    BulkheadFullError,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    CircuitMode,
    CircuitOpenError,
    CircuitState,
    RetryBudget,
    RetryPolicy,
    circuit_breaker,
)

BLOCKS_BOUND = 100  # of some 100 bytes each
RESIDENT_BOUND_KIB = 1_024  # what is too large for a block; the system counts coarsely
LOOKS = 20
NEVER = 10**9

Run: TypeAlias = Callable[[int], object]


def nothing() -> None:
    pass


def down() -> None:
    raise Down


def repeated(call: Callable[[], object]) -> Run:
    def run(times: int) -> None:
        for _ in repeat(None, times):
            call()

    return run


def always_raising(error: type[Exception], call: Callable[[], object]) -> Run:
    """Calls that end in an error, which is caught and dropped."""

    def run(times: int) -> None:
        raised = 0
        for _ in repeat(None, times):
            try:
                call()
            except error:
                raised += 1
        assert raised == times

    return run


# One breaker in each state


def closed_with_successes() -> Run:
    return repeated(CircuitBreaker()(nothing))


def closed_with_failures_in_a_window_of_calls() -> Run:
    config = CircuitBreakerConfig(NEVER, error_rate_threshold=1.0, error_rate_window=100)
    breaker = CircuitBreaker(config=config)
    good, bad = breaker(nothing), always_raising(Down, breaker(down))

    def run(times: int) -> None:
        for _ in repeat(None, times // 2):
            good()
            bad(1)

    return run


def closed_with_failures_in_a_window_of_time() -> Run:
    clock = Clock()
    window = timedelta(seconds=10)
    config = CircuitBreakerConfig(NEVER, error_rate_threshold=1.0, error_rate_window=window, minimum_calls=NEVER)

    def passing() -> None:
        clock.now += 0.01
        raise Down

    return always_raising(Down, CircuitBreaker(config=config, clock=clock)(passing))


def closed_with_slow_calls() -> Run:
    clock = Clock()
    config = CircuitBreakerConfig(slow_call_duration_s=0.01, slow_call_rate_threshold=1.0)

    call = CircuitBreaker(config=config, clock=clock)(lambda: setattr(clock, "now", clock.now + next(durations)))
    durations = cycle([0.0, 0.02])
    return repeated(call)


def opened_and_closed_again() -> Run:
    clock = Clock()
    breaker = CircuitBreaker(config=CircuitBreakerConfig(1, 1, 1.0), clock=clock)
    good, bad = breaker(nothing), always_raising(Down, breaker(down))

    def run(times: int) -> None:
        for _ in repeat(None, times // 2):
            bad(1)
            clock.now += 1.0
            good()
        assert breaker.stats.opened_count >= times // 2

    return run


def half_open(clock: Clock, **settings: Any) -> CircuitBreaker:
    config = CircuitBreakerConfig(1, NEVER, 1.0, **settings)
    breaker = CircuitBreaker(config=config, clock=clock)
    breaker.record_failure()
    clock.now += 1.0
    assert breaker.state is CircuitState.HALF_OPEN
    return breaker


def half_open_with_probes() -> Run:
    return repeated(half_open(Clock())(nothing))


def half_open_with_rides() -> Run:
    breaker = half_open(Clock())
    inner = breaker(nothing)
    return repeated(breaker(lambda: inner()))


def half_open_within_blocks() -> Run:
    return repeated(BREAKER["with"].ready(half_open(Clock()), nothing))


def half_open_and_allowed_without_a_record() -> Run:
    clock = Clock()
    breaker = half_open(clock, half_open_timeout_s=1.0)

    def ask() -> None:
        clock.now += 0.2
        breaker.allow_request()

    return repeated(ask)


def half_open_with_permits_dropped() -> Run:
    clock = Clock()
    breaker = half_open(clock, half_open_timeout_s=1.0)

    def drop() -> None:
        clock.now += 0.4
        breaker.permit()

    return repeated(drop)


def opened(mode: CircuitMode = CircuitMode.AUTO) -> CircuitBreaker:
    breaker = CircuitBreaker(config=CircuitBreakerConfig(1), mode=mode, clock=Clock())
    breaker.record_failure()
    return breaker


def open_with_refusals() -> Run:
    return always_raising(CircuitOpenError, opened()(nothing))


def shadow_open() -> Run:
    return repeated(opened(CircuitMode.SHADOW)(nothing))


def forced_open() -> Run:
    return always_raising(CircuitOpenError, opened(CircuitMode.FORCED_OPEN)(nothing))


def forced_closed_with_failures() -> Run:
    return always_raising(Down, opened(CircuitMode.FORCED_CLOSED)(down))


def with_listeners() -> Run:
    config = CircuitBreakerConfig(NEVER, error_rate_threshold=1.0)
    breaker = CircuitBreaker(config=config, listeners=[lambda event: None])
    good, bad = breaker(nothing), always_raising(Down, breaker(down))

    def run(times: int) -> None:
        for _ in repeat(None, times // 2):
            good()
            bad(1)

    return run


def refused_with_a_traceback() -> Run:
    call = opened()(nothing)

    def run(times: int) -> None:
        for _ in repeat(None, times):
            try:
                call()
            except CircuitOpenError as error:
                assert error.__traceback__ is not None

    return run


# The others


def bulkhead_with_calls() -> Run:
    return repeated(Bulkhead()(nothing))


def bulkhead_with_refusals() -> Run:
    return always_raising(BulkheadFullError, Bulkhead(max_concurrent=0)(nothing))


def retried() -> Run:
    policy = RetryPolicy(1, 0.0, sleep=lambda seconds: None, budget=RetryBudget(1.0, clock=Clock()))
    return always_raising(Down, policy(down))


def all_three() -> Run:
    policy = RetryPolicy(1, 0.0, sleep=lambda seconds: None)
    breaker = CircuitBreaker(config=CircuitBreakerConfig(NEVER))
    return always_raising(Down, policy(breaker(Bulkhead()(down))))


def registry_with_new_keys() -> Run:
    registry = CircuitBreakerRegistry(max_size=16)
    keys = iter(range(NEVER))
    return repeated(lambda: registry[next(keys)])


def objects_made_and_dropped() -> Run:
    return repeated(lambda: (CircuitBreaker(), Bulkhead(), RetryBudget(), RetryPolicy(), CircuitBreakerRegistry()))


@contextmanager
def without_the_collector() -> Iterator[None]:
    """What is held in circles counts as held."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def resident_kib() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # not on this system
        return 0
    return pages * 4


def held_by(make: Callable[[], Run], calls: int) -> Finding:
    """Compare what is held after a few calls with what is held after all of them, and stop at once if it grows."""
    with quiet(), without_the_collector():
        run = make()
        resident_kib()
        run(max(5_000, calls // LOOKS))  # Python keeps up to 2,000 freed tuples of each size
        blocks, resident = sys.getallocatedblocks(), resident_kib()
        more = large = made = 0
        for _ in range(LOOKS):
            run(calls // LOOKS)
            made += calls // LOOKS
            more, large = sys.getallocatedblocks() - blocks, resident_kib() - resident
            if more > BLOCKS_BOUND or large > RESIDENT_BOUND_KIB:
                break
    holds = more <= BLOCKS_BOUND and large <= RESIDENT_BOUND_KIB
    return Finding(holds, f"after {made:,} calls {more:+} blocks, {large:+} KiB resident")


class Large(bytearray):
    """Something that shows when it is still there."""

    __slots__ = ("__weakref__",)


def _falling_back(way: Way, body: Callable[[], object]) -> object:
    return way.ready(circuit_breaker(breaker=opened(), fallback=lambda error, *args: body()), nothing)()


def frames_of_failures(size: int) -> Finding:
    """Every way of calling, in a closed, a half-open and an opening circuit, a bulkhead and a policy, fails once.

    So does a fallback of every kind.
    """
    alive: list[str] = []
    looks = 0

    def look(name: str, call: Callable[[Callable[[], object]], object]) -> None:
        nonlocal looks
        large: list[weakref.ref[Large]] = []

        def body() -> None:
            local = Large(size)
            large.append(weakref.ref(local))
            raise Down

        try:
            call(body)
        except Down:
            pass
        looks += 1
        alive.extend(name for reference in large if reference() is not None)
        assert large

    def listen(event: object) -> None: ...

    breakers: dict[str, Callable[[], CircuitBreaker]] = {
        "closed": CircuitBreaker,
        "closed, with a window": lambda: CircuitBreaker(config=CircuitBreakerConfig(error_rate_threshold=1.0)),
        "opening": lambda: CircuitBreaker(config=CircuitBreakerConfig(1)),
        "half-open": lambda: half_open(Clock()),
        "shadow": lambda: opened(CircuitMode.SHADOW),
        "listened to": lambda: CircuitBreaker(config=CircuitBreakerConfig(1), listeners=[listen]),
    }
    policy = RetryPolicy(2, 0.0, sleep=lambda seconds: None, listeners=[listen])
    with quiet(), without_the_collector():
        for state, make in breakers.items():
            for name, way in (BREAKER | BREAKER_BY_HAND).items():
                breaker = make()
                look(f"{state}, {name}", lambda body, way=way, breaker=breaker: way.ready(breaker, body)())
        for name, way in BREAKER.items():
            if way.decorates:
                look(f"fallback, {name}", partial(_falling_back, way))
        for name, way in BULKHEAD.items():
            look(f"bulkhead, {name}", lambda body, way=way: way.ready(Bulkhead(), body)())
        for name, way in (POLICY | POLICY_BY_HAND).items():
            look(f"policy, {name}", lambda body, way=way: way.ready(policy, body)())
    return Finding(not alive, f"{looks} failing calls, what was kept: {'; '.join(alive) or 'nothing'}")


SCENES: dict[Callable[[], Run], int] = {
    closed_with_successes: 1,
    closed_with_failures_in_a_window_of_calls: 1,
    closed_with_failures_in_a_window_of_time: 1,
    closed_with_slow_calls: 1,
    opened_and_closed_again: 10,
    half_open_with_probes: 1,
    half_open_with_rides: 2,
    half_open_within_blocks: 1,
    half_open_and_allowed_without_a_record: 1,
    half_open_with_permits_dropped: 1,
    open_with_refusals: 1,
    shadow_open: 1,
    forced_open: 1,
    forced_closed_with_failures: 1,
    with_listeners: 1,
    refused_with_a_traceback: 100,
    bulkhead_with_calls: 1,
    bulkhead_with_refusals: 1,
    retried: 2,
    all_three: 2,
    registry_with_new_keys: 10,
    objects_made_and_dropped: 100,
}
"""Each, and by how much fewer its calls are, for those that do more in one."""


def _flat(make: Callable[[], Run], fewer: int) -> Claim:
    text = f"memory is flat: {make.__name__.replace('_', ' ')}"
    return Claim(text, partial(held_by, make), 50_000 // fewer, 10_000_000 // fewer)


CLAIMS = [
    *(_flat(make, fewer) for make, fewer in SCENES.items()),
    Claim("nothing of a failed call's frames is kept, 10 MB each", frames_of_failures, 10_000_000, 10_000_000),
]
