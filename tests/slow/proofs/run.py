"""Explore the orders in which threads can take their steps.

`python tests/slow/proofs/run.py [--long] [words of a name]`

Needs `frontrun` (the extra `proofs`), which brings a pytest plugin, so it is better in an environment of its own. Each
scenario is explored twice: as it is, where no order may break what must hold, and with its lock replaced by one that
does nothing, where some order has to.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ACTIVE = "FRONTRUN_ACTIVE"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="up to two minutes a scenario")
    parser.add_argument("words", nargs="*", help="only scenarios whose name has all of these words")
    given = parser.parse_args()

    import frontrun
    from scenarios import SCENARIOS

    limit, seconds = (200_000, 120.0) if given.long else (1_000, 6.0)

    def explore(scenario: Any, broken: bool, **options: Any) -> Any:
        return frontrun.explore(
            setup=lambda: scenario.make(broken),
            workers=list(scenario.workers),
            invariant=scenario.holds,
            clock=scenario.clock,
            total_timeout=seconds,
            reproduce_on_failure=0,
            detect_io=False,
            **options,
        )

    def systematic(scenario: Any, broken: bool, bound: int | None) -> Any:
        """All orders that differ in what can be seen to conflict; a bound on preemptions finds a fault sooner."""
        return explore(scenario, broken, preemption_bound=bound, max_executions=limit)

    def at_random(scenario: Any, broken: bool, attempts: int) -> Any:
        """Orders drawn at random, opcode by opcode: they do not rest on seeing every conflict."""
        return explore(scenario, broken, strategy="random", max_attempts=attempts, max_ops=2_000, seed=1)

    def refute(scenario: Any) -> tuple[bool, int]:
        """Look for an order that breaks the scenario without its lock; tell how many it took."""
        explored = 0
        for bound in (1, 2, 3):
            for strategy in (systematic, at_random):
                try:
                    result = strategy(scenario, True, bound if strategy is systematic else 100 * bound)
                except Exception:  # a thread that fails breaks what must hold, too
                    return True, explored + 1
                explored += result.num_explored
                if result.property_holds is False:
                    return True, explored
        return False, explored

    total, bad = [0, 0], 0
    for room, scenarios in SCENARIOS.items():
        for scenario in scenarios:
            if not all(word in f"{room} {scenario.name}" for word in given.words):
                continue
            started = time.perf_counter()
            whole = [systematic(scenario, False, None)]
            stopped = whole[0].num_explored >= limit or time.perf_counter() - started >= seconds
            whole.append(at_random(scenario, False, 1_000 if given.long else 30))
            caught, needed = refute(scenario)
            for kind, result in enumerate(whole):
                total[kind] += result.num_explored
            holds = all(result.property_holds is True for result in whole)
            bad += not (holds and caught)
            extent = "stopped at the limit" if stopped else "all there are"
            verdict = "refuted" if caught else "NOT refuted"
            print(
                f"{'ok ' if holds and caught else 'BAD'} {room}: {scenario.name}: {len(scenario.workers)} threads,"
                f" {whole[0].num_explored} schedules ({extent}) and {whole[1].num_explored} at random;"
                f" without the lock {verdict} after {needed} ({time.perf_counter() - started:.1f} s)",
                flush=True,
            )
            for result in whole:
                if result.property_holds is not True:
                    print(result.explanation or result.inconclusive_reason)
    print(f"{total[0]} schedules, and {total[1]} at random; {bad} scenarios are not as they should be")
    return 1 if bad else 0


if __name__ == "__main__":
    if os.environ.get(ACTIVE) != "1":
        command = shutil.which("frontrun", path=str(Path(sys.executable).parent)) or "frontrun"
        os.execv(command, [command, sys.executable, *sys.argv])
    sys.exit(main())
