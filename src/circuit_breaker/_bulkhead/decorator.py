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
    """Limit how many calls of a function run at once: further calls wait or are rejected with `BulkheadFullError`.

    Use it with or without parentheses, on functions, coroutine functions, generators, async generators and methods. The
    `Bulkhead` is the attribute `bulkhead` of the decorated function.

    Two decorators with the same name make two bulkheads; to share one, give both the same `bulkhead=`.

    Args:
        name: The name of the bulkhead. One decorator object with a name has one bulkhead for all that it decorates.
            None: each function gets its own bulkhead, named `module.qualname`.
        max_concurrent: Slots: how many calls may run at once, >= 0. 0: none.
        max_queue: How many callers may wait for a slot, >= 0. 0: a call is rejected at once when all slots are taken.
        timeout_s: Seconds that a caller waits at most, >= 0, or a `timedelta`. 0.0 and None both mean no limit.
        bulkhead: An existing `Bulkhead`. It replaces all other settings.
        listeners: Functions that get a `BulkheadRejected` for every rejection.
        clock: A function that returns monotonic seconds, for reported waits only.

    Raises:
        TypeError: A setting has the wrong type or cannot stand beside another one, or the decorated object is not a
            function.
        ValueError: A setting is out of range.
    """
    given = Given(bulkhead, args, settings)
    given.check_first({Bulkhead: "bulkhead=", int: "max_concurrent="}, "name=")
    if given.takes_place("bulkhead", Bulkhead):
        given.stands_alone("bulkhead", except_for=("name",))
    make = partial(Bulkhead, **given.some("max_concurrent", "max_queue", "timeout_s", "listeners", "clock"))
    return given.make(make, given["bulkhead"])


show_settings(bulkhead)
