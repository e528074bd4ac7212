"""How many examples of a model have been in a state, or have met a rule."""

from __future__ import annotations

import os
from collections import Counter, defaultdict

LONG = os.environ.get("MODEL") == "long"

_totals: dict[str, Counter[str]] = defaultdict(Counter)
_steps: Counter[str] = Counter()
_examples: Counter[str] = Counter()


class Tally:
    """What one example has met so far."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._met: set[str] = set()
        _examples[model] += 1

    def step(self) -> None:
        _steps[self._model] += 1

    def met(self, what: str) -> None:
        """Note that this example has met something; once is enough."""
        if what not in self._met:
            self._met.add(what)
            _totals[self._model][what] += 1


def lines() -> list[str]:
    """Return the table, most often met first."""
    told: list[str] = []
    for model, examples in _examples.items():
        told.append(f"{model}: {examples} examples, {_steps[model]} steps")
        told += [f"  {count:6} {what}" for what, count in _totals[model].most_common()]
    return told


def missing(model: str, wanted: set[str]) -> set[str]:
    """Return what no example of this model has met, if there was any."""
    return wanted - set(_totals[model]) if _examples[model] else set()
