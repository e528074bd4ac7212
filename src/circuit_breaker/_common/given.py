"""What the three decorators have in common: how they read the settings that they are given.

The settings of each are listed once, in the last of its overloads, with their defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cached_property
from typing import Any, cast, get_args, get_overloads

from . import checks
from .fallback import Fallback
from .judging import Kinds
from .pattern import Kind, Pattern, WrongKindError, kind_of, qualified_name


class Given(dict[str, Any]):
    """The settings that a decorator was given, those left out with their defaults; or the function, if it is bare.

    `config` is the dataclass that `config=` takes: settings that belong there get a hint.
    """

    def __init__(
        self, decorator: Any, args: tuple[Any, ...], settings: dict[str, Any], config: type | None = None
    ) -> None:
        listed: Any = get_overloads(decorator)[-1]
        self._name = decorator.__name__
        names = listed.__code__.co_varnames[: listed.__code__.co_argcount]
        defaults = dict(zip(names, listed.__defaults__, strict=True)) | listed.__kwdefaults__
        self._func: Any = None
        self._first = names[0]
        if len(args) > len(names):
            raise TypeError(f"{self._name}() takes at most {len(names)} positional arguments, got {len(args)}")
        if args and not settings and len(args) == 1 and _is_function(args[0]):
            (self._func,), args = args, ()
        twice = set(names[: len(args)]) & set(settings)
        if twice:
            raise TypeError(f"{self._name}() got multiple values for argument {twice.pop()!r}")
        for name, value in settings.items():
            if name not in defaults:
                raise self._unknown(name, value, defaults, config)
        for name, value in zip(names[1:], args[1:], strict=False):
            if config is not None and isinstance(value, config):
                raise TypeError(f"{self._name}() got a {config.__name__} as {name}: pass it as config=")
        self._defaults = defaults
        super().__init__(defaults | dict(zip(names, args, strict=False)) | settings)
        self["listeners"] = checks.functions("listeners", self["listeners"])  # read once, since it may be an iterator

    def _unknown(self, name: str, value: object, known: Iterable[str], config: type | None) -> TypeError:
        """Return the error for a setting that the decorator does not take; `config`: the class that may have it."""
        if config is not None and name in {field.name for field in fields(config)}:
            given = f"{name}={value!r}"
            return TypeError(f"{self._name}() takes {given} inside config: use config={config.__name__}({given})")
        takes = ", ".join(known)
        return TypeError(f"{self._name}() got an unexpected keyword argument {name!r}: it takes {takes}")

    def check_first(self, remedies: dict[type, str], meaning: str) -> None:
        """Reject a first argument that belongs elsewhere, and say where; `remedies`: how each kind is given instead."""
        first = self[self._first]
        if isinstance(first, property | cached_property):
            of = type(cast("object", first)).__name__
            raise TypeError(f"{self._name}() decorates functions, got a {of}: decorate its getter, below @{of}")
        kind = first if isinstance(first, type) else type(first)
        if issubclass(kind, BaseException) or _are_exceptions(first):
            kind = BaseException
        for wrong, remedy in remedies.items():
            if issubclass(kind, wrong) and not isinstance(first, bool):
                raise TypeError(f"{self._name}() got {first!r} as {self._first}: pass it as {remedy}")
        if isinstance(first, type):
            raise TypeError(f"{self._name}() decorates functions, got the class {first.__name__}: decorate its methods")
        if _is_function(first):
            raise TypeError(
                f"{self._name}() takes either a function to decorate or settings, got {first!r} and settings: "
                f"write @{self._name}({meaning}...) above the function"
            )
        if self._first == "name" and first is not None:
            self["name"] = checks.text("name", first)

    def fallback(self, always: Any) -> Fallback | None:
        """Return the fallback, if one is given; `always`: the exceptions that it is called for by default."""
        function, errors = self["fallback"], self["fallback_on"]
        if function is None:
            if errors is not None:
                raise TypeError("fallback_on= says for which errors the fallback is called, so it needs fallback=")
            return None
        if not callable(function):
            raise checks.wrong_type("fallback", function, "a function or None")
        errors = always if errors is None else errors
        return Fallback(function, None if errors is None else Kinds("fallback_on", errors))

    def takes_place(self, name: str, kind: type) -> bool:
        """Return whether an object is given in place of settings."""
        if self[name] is None:
            return False
        checks.instance(name, self[name], kind)
        return True

    def stands_alone(self, place: str, except_for: Iterable[str] = ()) -> None:
        """Reject each setting that differs from its default, beside the object that replaces all of them."""
        for name in self.keys() - {place, *except_for}:
            value, default = self[name], self._defaults[name]
            if value is not default and value != default and not (name == "listeners" and not value):
                raise TypeError(f"{place}= replaces {name}=, got both ({name}={value!r}): give one of the two")

    def some(self, *names: str) -> dict[str, Any]:
        """Return the settings of these names."""
        return {name: self[name] for name in names}

    def decorator(self, decorate: Callable[..., Any], fallback: Fallback | None = None) -> Any:
        """Return the decorator, or what it makes of the function if it is bare."""

        def decorator(func: Any) -> Any:
            if fallback is not None:
                _check_fallback(fallback, func)
            return decorate(func, fallback)

        return decorator if self._func is None else decorator(self._func)

    def make(self, make: Callable[..., Pattern], given: Pattern | None, fallback: Fallback | None = None) -> Any:
        """Return a decorator with the given object or one of this name. Without a name, each function gets its own."""
        name = self["name"]
        pattern = make(name="default" if name is None else name)  # settings are checked here
        if given is not None or name is not None:
            return self.decorator((pattern if given is None else given)._decorate, fallback)

        def decorate(func: Any, fallback: Fallback | None) -> Any:
            return make(name=qualified_name(func))._decorate(func, fallback)

        return self.decorator(decorate, fallback)


def _is_function(first: object) -> bool:
    return (callable(first) and not isinstance(first, type | Pattern)) or isinstance(first, staticmethod | classmethod)


def _are_exceptions(first: object) -> bool:
    """Return whether exception types are among the members of a tuple, a list or a union."""
    members = cast("list[object]", first) if isinstance(first, tuple | list) else get_args(first)
    return any(isinstance(kind, type) and issubclass(kind, BaseException) for kind in members)


def _check_fallback(fallback: Fallback, func: Any) -> None:
    """Reject a fallback whose result could not take the place of the function's, if its kind can be recognized."""
    kind, answers = kind_of(getattr(func, "__func__", func)), kind_of(fallback.function)
    if answers is Kind.PLAIN or answers is kind:
        return
    also = "" if kind is Kind.PLAIN else f" or a {kind.value} function"
    raise WrongKindError(
        f"fallback must be a plain function{also} for the {kind.value} function {func!r}, "
        f"got the {answers.value} function {fallback.function!r}"
    )


def show_settings(decorator: Any) -> None:
    """Let `help()` and `inspect.signature()` show the settings of a decorator."""
    decorator.__wrapped__ = get_overloads(decorator)[-1]
