"""One of the processes that call the server: `python -m circuit_breaker._demo.caller PORT FILE SECONDS`.

After each call it writes a line with what it has counted so far. It ends once nobody holds its standard input.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from threading import Thread

from circuit_breaker._demo import plan, threads
from circuit_breaker._demo.server import Elsewhere
from circuit_breaker._demo.story import Ending, Story
from circuit_breaker._terminal import discard
from circuit_breaker.stores import SQLiteStore


def main(arguments: Sequence[str]) -> None:
    """Call until nobody holds the standard input any more."""
    port, path, seconds = arguments
    story = Story(plan.Plan(float(seconds)), Elsewhere(int(port)), show=id)
    fetch = threads.guarded(story, SQLiteStore(path, interval_s=plan.INTERVAL_S, timeout_s=plan.STORE_TIMEOUT_S))
    Thread(target=_wait_for_the_end, args=(story,), daemon=True).start()
    try:
        _call(story, fetch)
    except BrokenPipeError:  # whoever reads this has ended
        discard(sys.stdout)


def _call(story: Story, fetch: threads.Guarded) -> None:
    while not story.over:
        with story.calling():
            fetch()
        print(json.dumps(_figures(story.ending(fetch.circuit_breaker, fetch.bulkhead))), flush=True)  # noqa: T201
        time.sleep(plan.PAUSE_S)


def _wait_for_the_end(story: Story) -> None:
    sys.stdin.read()
    story.end()


def _figures(ending: Ending) -> list[int]:
    stats = ending.breaker.stats
    return [stats.success_count, stats.failure_count, stats.rejected_count, ending.retries, ending.saved]


if __name__ == "__main__":
    main(sys.argv[1:])
