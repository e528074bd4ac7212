"""Explore the orders in which threads can take their steps: `python tests/proofs/run.py [--long] [words of a name]`.

Needs `frontrun` (the extra `proofs`). Each scenario is explored twice: as it is, where no order may break what must
hold, and with its lock replaced by one that does nothing, where some order has to.
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
    parser.add_argument("--long", action="store_true", help="more preemptions, for some minutes")
    parser.add_argument("words", nargs="*", help="only scenarios whose name has all of these words")
    given = parser.parse_args()

    import frontrun
    from scenarios import SCENARIOS

    def explore(scenario: Any, broken: bool, **options: Any) -> Any:
        return frontrun.explore(
            setup=lambda: scenario.make(broken),
            workers=list(scenario.workers),
            invariant=scenario.holds,
            clock=scenario.clock,
            total_timeout=300.0 if given.long else 10.0,
            reproduce_on_failure=0,
            detect_io=False,
            **options,
        )

    def systematic(scenario: Any, broken: bool) -> Any:
        """All orders with so many preemptions at most, of what can be seen to conflict."""
        many = len(scenario.workers) > 2
        bound = (2 if given.long or broken else 1) + (0 if many else 1)
        return explore(scenario, broken, preemption_bound=bound, max_executions=20_000 if given.long else 300)

    def at_random(scenario: Any, broken: bool) -> Any:
        """Orders drawn at random, opcode by opcode: they do not rest on seeing every conflict."""
        return explore(scenario, broken, strategy="random", max_attempts=1_000 if given.long else 30, seed=1)

    total, bad = [0, 0], 0
    for room, scenarios in SCENARIOS.items():
        for scenario in scenarios:
            if not all(word in f"{room} {scenario.name}" for word in given.words):
                continue
            started = time.perf_counter()
            whole = [systematic(scenario, False), at_random(scenario, False)]
            broken = [systematic(scenario, True)]
            if broken[0].property_holds is not False:
                broken.append(at_random(scenario, True))
            for kind, result in enumerate(whole):
                total[kind] += result.num_explored
            holds = all(result.property_holds is True for result in whole)
            caught = broken[-1].property_holds is False
            bad += not (holds and caught)
            print(
                f"{'ok ' if holds and caught else 'BAD'} {room}: {scenario.name}: {len(scenario.workers)} threads,"
                f" {whole[0].num_explored} schedules and {whole[1].num_explored} at random; without the lock"
                f" {'refuted' if caught else 'NOT refuted'} after {sum(result.num_explored for result in broken)}"
                f" ({time.perf_counter() - started:.1f} s)",
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
