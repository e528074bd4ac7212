"""`@bulkhead`: makes a bulkhead, or takes one, and lets it decorate the function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .._common.given import Given, show_settings
from .bulkhead import Bulkhead

if TYPE_CHECKING:
    from datetime import timedelta

    from .._common.events import Listener
    from .._common.typing import BulkheadDecorator, Protected, ProtectedFunction

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Breaker = TypeVar("_Breaker")
_Policy = TypeVar("_Policy")


@overload
def bulkhead(
    func: Protected[_P, _R, _Breaker, _Policy, Any], /
) -> ProtectedFunction[_P, _R, _Breaker, _Policy, Bulkhead]: ...
@overload
def bulkhead(func: Callable[_P, _R], /) -> ProtectedFunction[_P, _R, object, object, Bulkhead]: ...
@overload
def bulkhead(
    name: str | None = None,
    max_concurrent: int = 10,
    max_queue: int = 0,
    timeout_s: float | timedelta | None = 0.0,
    *,
    bulkhead: Bulkhead | None = None,
    listeners: Iterable[Listener] = (),
    clock: Callable[[], float] = time.monotonic,
) -> BulkheadDecorator[Bulkhead]: ...
def bulkhead(*args: Any, **settings: Any) -> Any:
    """Limit how many calls of a function run at once, by a `Bulkhead`, which is then its attribute `bulkhead`.

    Works bare and with arguments, on functions, coroutine functions, generators, async generators and methods of all
    kinds. Two decorators of one name make two bulkheads: to share one, give both the same `bulkhead=`, or decorate both
    with one decorator object.

    Args:
        name: of the bulkhead, which is then one for everything that this decorator object decorates; None: each
            function gets its own, called `module.qualname`.
        max_concurrent: how many may be inside, >= 0; 0 rejects everybody.
        max_queue: how many may wait, >= 0; 0 rejects at once when every slot is taken.
        timeout_s: seconds that a caller waits at most, >= 0; both 0.0 and None mean no limit.
        bulkhead: one that exists, in place of all settings.
        listeners: functions that are given a `BulkheadRejected` for every rejection.
        clock: a function that returns monotonic seconds.

    Raises:
        TypeError: a setting is of the wrong type, or beside one that takes its place; or what is decorated is no
            function.
        ValueError: a setting is out of range.
    """
    given = Given(bulkhead, args, settings)
    given.check_first(Bulkhead, "bulkhead=", "name=", str)
    if given.takes_place("bulkhead", Bulkhead):
        given.stands_alone("bulkhead", except_for=("name",))
    make = partial(Bulkhead, **given.some("max_concurrent", "max_queue", "timeout_s", "listeners", "clock"))
    return given.make(make, given["bulkhead"])


show_settings(bulkhead)
