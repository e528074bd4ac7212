"""What the package looks like from outside, written out by hand: names, signatures, members, fields.

Whatever changes here changes for users. Nothing in this file is computed from the code but what it is compared with.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import types
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import circuit_breaker as package
from circuit_breaker import console, exceptions, insight, stores, testing

PUBLIC = {
    "Attempt",
    "Bulkhead",
    "BulkheadFullError",
    "BulkheadRejected",
    "BulkheadSnapshot",
    "CallFinished",
    "CallRejected",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "CircuitBreakerRegistry",
    "CircuitMode",
    "CircuitOpenError",
    "CircuitSnapshot",
    "CircuitState",
    "CircuitStats",
    "CodomyrmexError",
    "Outcome",
    "Permit",
    "ResilienceError",
    "RetryBudget",
    "RetryGaveUp",
    "RetryPolicy",
    "RetryScheduled",
    "RetrySnapshot",
    "StateChanged",
    "UsageError",
    "WindowCounts",
    "bulkhead",
    "circuit_breaker",
    "create_error_context",
    "format_exception_chain",
    "retry",
    "retry_after_hint",
}
OF_EXCEPTIONS = {
    "BulkheadFullError",
    "CircuitOpenError",
    "CodomyrmexError",
    "ResilienceError",
    "UsageError",
    "create_error_context",
    "format_exception_chain",
}
OF_TESTING = {"FakeClock", "check_store", "instant_retries", "no_retries"}
OF_STORES = {
    "BaseStore",
    "Board",
    "Change",
    "Exchange",
    "Found",
    "Member",
    "MemberLine",
    "MemoryStore",
    "RedisStore",
    "Report",
    "SQLiteStore",
    "SharedCircuit",
    "SharedSnapshot",
    "Store",
    "StoreFound",
    "StoreLost",
    "member_text",
}

# Annotations are left to the type checkers; a default that is a function or a member of an enum stands as its name.
SIGNATURES = {
    "CircuitBreaker": "name='default', config=None, *, mode=AUTO, listeners=(), clock=monotonic, store=None, **unknown",
    "CircuitBreakerConfig": """
        failure_threshold=5, success_threshold=3, reset_timeout_s=30.0, half_open_max_calls=3,
        error_rate_threshold=None, error_rate_window=100, *, minimum_calls=None, slow_call_duration_s=None,
        slow_call_rate_threshold=None, half_open_timeout_s=30.0, failure_exceptions=(Exception,),
        ignored_exceptions=(), failure_result=None, retry_after=None, retry_after_max_s=300.0,
        half_open_failure_threshold=1, failure_threshold_within_s=None, trip_when=None""",
    "CircuitStats": """
        success_count=0, failure_count=0, consecutive_failures=0, last_failure_time=None, last_success_time=None,
        total_latency_ms=0.0, *, ignored_count=0, rejected_count=0, slow_count=0, opened_count=0,
        shadow_rejected_count=0""",
    "RetryPolicy": """
        max_retries=3, backoff_base=0.1, backoff_multiplier=2.0, backoff_max=30.0, jitter=True,
        retryable_exceptions=None, *, max_elapsed_s=None, retry_result=None, retry_after=retry_after_hint,
        retry_after_max_s=120.0, budget=None, delay=None, listeners=(), sleep=None, clock=monotonic, random=None""",
    "RetryBudget": "ratio=0.2, min_per_second=1.0, burst=10, *, clock=monotonic",
    "Bulkhead": "name='default', max_concurrent=10, max_queue=0, timeout_s=0.0, *, listeners=(), clock=monotonic",
    "CircuitBreakerRegistry": "config=None, *, max_size=1024, mode=AUTO, listeners=(), clock=monotonic, store=None",
    "circuit_breaker": """
        name=None, failure_threshold=5, reset_timeout_s=30.0, *, config=None, breaker=None, fallback=None,
        fallback_on=None, mode=AUTO, listeners=(), clock=monotonic, store=None""",
    "retry": """
        max_retries=3, backoff_base=0.1, backoff_multiplier=2.0, retryable_exceptions=None, *, policy=None,
        fallback=None, fallback_on=None, backoff_max=30.0, jitter=True, max_elapsed_s=None, retry_result=None,
        retry_after=retry_after_hint, retry_after_max_s=120.0, budget=None, delay=None, listeners=(), sleep=None,
        clock=monotonic, random=None""",
    "bulkhead": """
        name=None, max_concurrent=10, max_queue=0, timeout_s=0.0, *, bulkhead=None, listeners=(), clock=monotonic""",
    "retry_after_hint": "exc",
    "WindowCounts": "calls=0, failures=0, slow_calls=0, consecutive_failures=0",
    "ResilienceError": "message, context=None, error_code=None, **kwargs",
    "CodomyrmexError": "message, context=None, error_code=None, **kwargs",
    "CircuitOpenError": "message, circuit_name=None, **kwargs",
    "BulkheadFullError": "message, bulkhead_name=None, max_concurrency=None, **kwargs",
    "format_exception_chain": "exception",
    "create_error_context": "**kwargs",
    "StateChanged": "circuit_name, old_state, new_state, reason",
    "CallRejected": "circuit_name, retry_after_s",
    "CallFinished": "circuit_name, outcome, latency_ms, error",
    "RetryScheduled": "attempt, delay_s, error, elapsed_s, function=None",
    "RetryGaveUp": "attempts, elapsed_s, reason, error, function=None",
    "BulkheadRejected": "bulkhead_name, active_count, queued_count, waited_s=None",
    "CircuitSnapshot": """
        name, state, machine_state, mode, stats, window_calls, window_failures, window_slow, error_rate,
        slow_call_rate, retry_after_s, probes_in_flight, shared=None, dropped_changes=0""",
    "BulkheadSnapshot": """
        name, max_concurrent, max_queue, active_count, queued_count, accepted_count, rejected_count, timed_out_count,
        peak_active_count, total_wait_s""",
    "RetrySnapshot": "failed_first_count, retry_count, recovered_count, gave_up_count, total_sleep_s",
    "testing.FakeClock": "start=0.0",
    "testing.check_store": "make",
    "testing.instant_retries": "*, max_retries=None",
    "testing.no_retries": "",
    "console.application": "store, control=None",
    "insight.CallLog": "path, *, max_bytes=67108864, keep=4, clock=monotonic",
}
# Nobody but the package makes these: a permit comes from a breaker, an attempt from a policy.
MADE_FOR_USERS = {"Attempt", "Permit"}
BUILT_IN = {"UsageError"}  # an exception that takes what RuntimeError takes

ENUMS = {
    "CircuitState": {"CLOSED": "closed", "OPEN": "open", "HALF_OPEN": "half_open"},
    "CircuitMode": {
        "AUTO": "auto",
        "FORCED_OPEN": "forced_open",
        "FORCED_CLOSED": "forced_closed",
        "SHADOW": "shadow",
    },
    "Outcome": {"SUCCESS": "success", "FAILURE": "failure", "IGNORED": "ignored"},
}
EVENTS = {"StateChanged", "CallRejected", "CallFinished", "RetryScheduled", "RetryGaveUp", "BulkheadRejected"}
FROZEN = {"CircuitBreakerConfig", "RetryPolicy", "CircuitSnapshot", "BulkheadSnapshot", "RetrySnapshot", *EVENTS}

# What each object has: its methods with their parameters, `async` before them if they are to be awaited; a `value` is
# read, a `setting` may be assigned, too. The fields of dataclasses are those of their signatures.
CALLS = {"call": "func, /, *args, **kwargs", "call_async": "async func, /, *args, **kwargs"}
TOTALS = {
    "error_rate": "value",
    "avg_latency_ms": "value",
    "record_success": "latency_ms",
    "record_failure": "latency_ms",
    "reset": "",
}
ERROR = {"message": "value", "context": "value", "error_code": "value", "to_dict": ""}
MEMBERS: dict[str, dict[str, str]] = {
    "CircuitBreaker": {
        "name": "value",
        "config": "setting",
        "mode": "setting",
        "state": "value",
        "stats": "value",
        "is_open": "value",
        "is_closed": "value",
        "allow_request": "",
        "record_success": "latency_ms=0.0",
        "record_failure": "latency_ms=0.0",
        "record_ignored": "",
        "reset": "",
        "trip": "open_for_s=None",
        "add_listener": "listener",
        "remove_listener": "listener",
        "snapshot": "",
        "permit": "",
        "instances": "",
        **CALLS,
    },
    "CircuitStats": TOTALS,
    "RetryPolicy": {
        "get_delay": "attempt",
        "should_retry": "exception",
        "attempts": "",
        "replace": "**changes",
        "snapshot": "",
        **CALLS,
    },
    "RetrySnapshot": {"to_dict": ""},
    "RetryBudget": {},
    "Permit": {"success": "", "failure": "error=None", "ignore": ""},
    "Attempt": {"result": "value"},
    "Bulkhead": {
        "name": "value",
        "max_concurrent": "value",
        "max_queue": "value",
        "timeout_s": "value",
        "active_count": "value",
        "available_slots": "value",
        "queued_count": "value",
        "acquire": "*, timeout_s=Ellipsis",
        "acquire_async": "async *, timeout_s=Ellipsis",
        "release": "",
        "resize": "max_concurrent",
        "snapshot": "",
        "add_listener": "listener",
        "remove_listener": "listener",
        **CALLS,
    },
    "CircuitBreakerRegistry": {
        "config": "setting",
        "get": "key",
        "values": "",
        "keyed": "key_function",
        "add_listener": "listener",
        "remove_listener": "listener",
        "remove": "key",
        "reset_all": "",
    },
    "CircuitBreakerConfig": {"replace": "**changes"},
    "WindowCounts": {
        "calls": "value",
        "failures": "value",
        "slow_calls": "value",
        "consecutive_failures": "value",
        "error_rate": "value",
        "slow_call_rate": "value",
    },
    "UsageError": {},
    "CircuitSnapshot": {"to_dict": ""},
    "BulkheadSnapshot": {},
    **{event: {} for event in sorted(EVENTS)},
    "ResilienceError": ERROR,
    "CircuitOpenError": {
        **ERROR,
        "circuit_name": "value",
        "state": "value",
        "retry_after_s": "value",
        "last_failure": "value",
    },
    "BulkheadFullError": {**ERROR, "bulkhead_name": "value", "max_concurrency": "value"},
    "testing.FakeClock": {"advance": "seconds", "sleep": "seconds", "sleep_async": "async seconds", "sleeps": "value"},
    "insight.CallLog": {"close": "", "lost_count": "value"},
}
# What is there beside what is promised, and why.
BESIDE: dict[str, dict[str, str]] = {
    "RetryBudget": {
        "ratio": "value",  # the settings, as they are readable of policies and bulkheads
        "min_per_second": "value",
        "burst": "value",
        "tokens": "value",  # for a health page
        "deposit": "",  # what policies ask for
        "take": "",
        "give_back": "",
    },
    "BulkheadSnapshot": {"to_dict": ""},  # as that of a circuit
}
PROTOCOLS = {
    "CircuitBreaker": {"call", "with", "async with"},
    "RetryPolicy": {"call"},
    "Bulkhead": {"call", "with", "async with"},
    "Permit": {"with", "async with"},
    "Attempt": {"with"},
    "CircuitBreakerRegistry": {"[]", "in", "len", "iter"},
    "WindowCounts": {"[]", "in", "len", "iter"},
    "testing.FakeClock": {"call"},
    "insight.CallLog": {"call"},
}
METHODS = {
    "call": {"__call__"},
    "with": {"__enter__", "__exit__"},
    "async with": {"__aenter__", "__aexit__"},
    "[]": {"__getitem__"},
    "in": {"__contains__"},
    "len": {"__len__"},
    "iter": {"__iter__"},
    "next": {"__next__"},
    "async for": {"__aiter__", "__anext__"},
}


def found(name: str) -> Any:
    module, _, name = name.rpartition(".")
    return getattr({"": package, "console": console, "testing": testing, "insight": insight}[module], name)


def made(name: str) -> Any:
    """Return an object of the class, as a user comes by it."""
    if name == "Permit":
        return package.CircuitBreaker().permit()
    if name == "Attempt":
        return next(package.RetryPolicy().attempts())
    if name == "CircuitSnapshot":
        return package.CircuitBreaker().snapshot()
    if name == "BulkheadSnapshot":
        return package.Bulkhead().snapshot()
    if name == "insight.CallLog":
        return insight.CallLog(os.devnull)
    if name == "RetrySnapshot":
        return package.RetryPolicy().snapshot()
    if name in EVENTS:
        return found(name)(*SIGNATURES[name].split(", "))
    return found(name)("message") if issubclass(found(name), Exception) else found(name)()


def words(default: object) -> str:
    if isinstance(default, Enum):
        return default.name
    if isinstance(default, tuple):
        return f"({''.join(f'{kind.__name__},' for kind in default)})"
    return default.__name__ if inspect.isroutine(default) else repr(default)


def shown(function: Any) -> str:
    """Return the parameters of a function as they stand above: without annotations."""
    signature = inspect.signature(function).replace(return_annotation=inspect.Signature.empty)
    parameters = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else Word(words(parameter.default)),
        )
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters)).removeprefix("(").removesuffix(")")


class Word(str):
    """A text that stands for itself in a signature."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def one_line(text: str) -> str:
    return " ".join(text.split())


def described(owner: Any, name: str) -> str:
    """Say what a member of an object is, in the words of the table."""
    static = inspect.getattr_static(type(owner), name, None)
    if isinstance(static, property):
        return "value" if static.fset is None else "setting"
    value = getattr(owner, name)
    if not inspect.ismethod(value):
        return "value"
    return f"{'async ' if inspect.iscoroutinefunction(value) else ''}{shown(value)}".strip()


def public(owner: Any) -> set[str]:
    """Return the public names of an object that its class or itself defines, not int or Exception."""
    built_in = {name for kind in (int, tuple, Exception) if isinstance(owner, kind) for name in dir(kind)}
    return {name for name in dir(owner) if not name.startswith("_")} - built_in


# Names


def test_the_package_exports_what_is_promised() -> None:
    assert package.__all__ == sorted(PUBLIC)
    assert all(hasattr(package, name) for name in PUBLIC)


def test_nothing_else_in_the_package_has_a_public_name() -> None:
    public = {name for name in vars(package) if not name.startswith("_")}
    assert public - PUBLIC <= {"console", "exceptions", "insight", "stores", "testing"}


def test_the_public_modules_are_these() -> None:
    names = {path.stem for path in Path(package.__file__).parent.iterdir() if path.suffix != ".typed"}
    assert {name for name in names if not name.startswith("_")} == {
        "console",
        "exceptions",
        "insight",
        "stores",
        "testing",
    }


def test_each_name_comes_from_the_module_that_type_checkers_see() -> None:
    source = ast.parse(Path(package.__file__).read_bytes())
    (seen,) = (node for node in source.body if isinstance(node, ast.If) and not isinstance(node.test, ast.UnaryOp))
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    assert package._HOMES == {alias.name: node.module for node in imports for alias in node.names}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'circuit_breaker' has no attribute 'CircuitBraker'"):
        getattr(package, "CircuitBraker")  # noqa: B009
    with pytest.raises(ImportError, match="CircuitBraker"):
        exec("from circuit_breaker import CircuitBraker")


def test_the_errors_are_a_module_of_the_package_from_the_start() -> None:
    assert package.__getattr__("exceptions") is exceptions


def test_all_names_are_listed_before_they_are_loaded() -> None:
    assert set(dir(package)) >= PUBLIC


def test_a_star_import_gives_the_public_names_only() -> None:
    namespace: dict[str, Any] = {}
    exec("from circuit_breaker import *", namespace)
    assert namespace.keys() - {"__builtins__"} == PUBLIC


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (console, {"application"}),
        (exceptions, OF_EXCEPTIONS),
        (insight, {"CallLog"}),
        (stores, OF_STORES),
        (testing, OF_TESTING),
    ],
)
def test_the_other_public_modules_export_what_is_promised(module: types.ModuleType, names: set[str]) -> None:
    assert module.__all__ == sorted(names)
    assert all(hasattr(module, name) for name in names)


def test_the_errors_are_the_same_in_both_modules() -> None:
    assert all(getattr(exceptions, name) is getattr(package, name) for name in OF_EXCEPTIONS)


def test_the_decorator_has_the_name_of_the_package_and_hides_nothing() -> None:
    assert inspect.isfunction(package.circuit_breaker)
    assert inspect.isfunction(package.retry)
    assert inspect.isfunction(package.bulkhead)


# Signatures


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signature_is_the_promised_one(name: str) -> None:
    assert shown(found(name)) == one_line(SIGNATURES[name])


def test_every_public_name_is_described_here() -> None:
    everything = PUBLIC | {f"testing.{name}" for name in OF_TESTING} | {"console.application", "insight.CallLog"}
    assert SIGNATURES.keys() | MADE_FOR_USERS | BUILT_IN | ENUMS.keys() == everything
    classes = {name for name in everything if isinstance(found(name), type)}
    assert classes - ENUMS.keys() - {"CodomyrmexError"} == MEMBERS.keys()


# Members


@pytest.mark.parametrize("name", MEMBERS)
def test_the_members_are_the_promised_ones(name: str) -> None:
    owner = made(name)
    fields = {field.name for field in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
    members = {member: described(owner, member) for member in public(owner) - fields}
    assert members == {**MEMBERS[name], **BESIDE.get(name, {})}
    assert fields <= public(owner)


def test_the_totals_of_a_breaker_have_the_members_of_totals() -> None:
    live = package.CircuitBreaker().stats
    assert isinstance(live, package.CircuitStats)
    beside = {"copy", "copy_locked"}  # the totals of one moment; for others there is `snapshot().stats`
    assert public(live) - beside == public(package.CircuitStats())
    assert {name: described(live, name) for name in TOTALS} == TOTALS


@pytest.mark.parametrize("name", MEMBERS)
def test_an_object_can_be_used_in_the_promised_ways_and_no_other(name: str) -> None:
    defined = {method for kind in found(name).__mro__ for method in vars(kind)}
    assert {way for way, methods in METHODS.items() if methods <= defined} == PROTOCOLS.get(name, set())


def test_attempts_can_be_iterated_over_in_both_ways() -> None:
    attempts = type(package.RetryPolicy().attempts())
    assert all(hasattr(attempts, name) for way in ("iter", "next", "async for") for name in METHODS[way])


@pytest.mark.parametrize("name", ENUMS)
def test_the_members_of_an_enum_and_their_values_are_these(name: str) -> None:
    assert {member: value.value for member, value in found(name).__members__.items()} == ENUMS[name]


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_a_dataclass_has_the_fields_of_its_signature_and_is_frozen(name: str) -> None:
    kind = found(name)
    names = [part.partition("=")[0] for part in one_line(SIGNATURES[name]).replace("*, ", "").split(", ")]
    assert [field.name for field in dataclasses.fields(kind)] == names
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("name", [name for name in package.__all__ if dataclasses.is_dataclass(getattr(package, name))])
def test_the_types_of_the_fields_can_be_read_at_run_time(name: str) -> None:
    made = getattr(package, name)
    assert get_type_hints(made).keys() >= {field.name for field in dataclasses.fields(made)}


def test_the_attributes_of_an_object_that_only_methods_change_cannot_be_assigned() -> None:
    breaker, pool, permit = package.CircuitBreaker(), package.Bulkhead(), package.CircuitBreaker().permit()
    for owner, name in [
        (breaker, "state"),
        (breaker, "stats"),
        (breaker, "is_open"),
        (breaker, "is_closed"),
        (pool, "max_concurrent"),
        (pool, "active_count"),
        (pool, "available_slots"),
        (pool, "queued_count"),
        (permit, "anything"),
    ]:
        with pytest.raises(AttributeError):
            setattr(owner, name, 1)


def test_a_rejection_of_a_breaker_looks_like_one_made_by_hand() -> None:
    breaker = package.CircuitBreaker("api", mode=package.CircuitMode.FORCED_OPEN)
    with pytest.raises(package.CircuitOpenError) as raised:
        breaker.call(int)
    refusal = raised.value
    assert {name: getattr(refusal, name) for name in MEMBERS["CircuitOpenError"] if name != "to_dict"} == {
        "message": "Circuit 'api' is open",
        "context": {"circuit_name": "api", "mode": "forced_open", "retry_after_s": None},
        "error_code": "CircuitOpenError",
        "circuit_name": "api",
        "state": package.CircuitState.OPEN,
        "retry_after_s": None,
        "last_failure": None,
    }
    assert public(refusal) == MEMBERS["CircuitOpenError"].keys()


def test_a_rejection_of_a_bulkhead_looks_like_one_made_by_hand() -> None:
    with pytest.raises(package.BulkheadFullError) as raised:
        package.Bulkhead("api", 0).call(int)
    assert public(raised.value) == MEMBERS["BulkheadFullError"].keys()
    assert (raised.value.bulkhead_name, raised.value.max_concurrency) == ("api", 0)


@pytest.mark.parametrize(
    "error", [package.ResilienceError("m"), package.CircuitOpenError("m"), package.BulkheadFullError("m")]
)
def test_the_dict_of_an_error_has_the_promised_keys(error: package.ResilienceError) -> None:
    assert list(error.to_dict()) == ["error_type", "error_code", "message", "context"]


def test_the_version_is_reported() -> None:
    assert package.__version__.replace(".", "").isdecimal()


# Decorated functions


def plain() -> int:
    return 1


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Client:
    def method(self) -> int:
        return 1


NATURES: dict[Callable[..., object], Callable[[object], bool]] = {
    plain: lambda func: (
        not (inspect.iscoroutinefunction(func) or inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func))
    ),
    coroutine: inspect.iscoroutinefunction,
    generator: inspect.isgeneratorfunction,
    async_generator: inspect.isasyncgenfunction,
}
OBJECTS = {"circuit_breaker": "CircuitBreaker", "retry_policy": "RetryPolicy", "bulkhead": "Bulkhead"}
DECORATORS = {
    "circuit_breaker": package.circuit_breaker,
    "retry_policy": package.retry,
    "bulkhead": package.bulkhead,
}


@pytest.mark.parametrize("parentheses", [False, True], ids=["bare", "with parentheses"])
@pytest.mark.parametrize("attribute", DECORATORS)
@pytest.mark.parametrize("func", NATURES, ids=lambda func: func.__name__)
def test_a_decorated_function_keeps_its_nature_and_has_one_attribute_of_ours(
    func: Callable[..., object], attribute: str, parentheses: bool
) -> None:
    decorator: Any = DECORATORS[attribute]
    decorated = (decorator() if parentheses else decorator)(func)
    assert NATURES[func](decorated)
    assert public_of_function(decorated) == {attribute}
    assert isinstance(getattr(decorated, attribute), found(OBJECTS[attribute]))


def test_a_function_under_all_three_has_all_three_attributes() -> None:
    decorated: Any = plain
    for decorator in DECORATORS.values():
        decorated = decorator(decorated)
    assert public_of_function(decorated) == DECORATORS.keys()
    for attribute, name in OBJECTS.items():
        assert isinstance(getattr(decorated, attribute), found(name))


@pytest.mark.parametrize("attribute", DECORATORS)
def test_a_method_has_the_attribute_on_the_class_and_on_the_instance(attribute: str) -> None:
    class Decorated:
        method: Any = DECORATORS[attribute](Client.method)

    assert Decorated().method() == 1
    assert getattr(Decorated().method, attribute) is getattr(Decorated.method, attribute)


def public_of_function(func: Any) -> set[str]:
    return {name for name in vars(func) if not name.startswith("_")}
