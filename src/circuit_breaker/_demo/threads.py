"""Eight threads that call the server with urllib."""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from circuit_breaker import bulkhead, circuit_breaker, retry
from circuit_breaker._demo import plan
from circuit_breaker._demo.story import Ending, Story

if TYPE_CHECKING:
    from typing import TypeAlias

    from circuit_breaker import Bulkhead, CircuitBreaker, RetryPolicy
    from circuit_breaker._common.typing import ProtectedFunction
    from circuit_breaker.stores import Store

    Guarded: TypeAlias = ProtectedFunction[[], bytes, CircuitBreaker, RetryPolicy, Bulkhead]


def guarded(story: Story, store: Store | None = None) -> Guarded:
    """Return a function that calls the server through all three patterns; with a store, processes share the circuit."""
    url, timeout_s = f"http://127.0.0.1:{story.server.port}/", story.plan.timeout_s
    opener = build_opener(ProxyHandler({}))  # this server is local, so no proxy of the environment applies

    @retry(max_retries=plan.MAX_RETRIES, backoff_base=plan.BACKOFF_BASE_S, listeners=[story.listen])
    @circuit_breaker("server", reset_timeout_s=story.plan.reset_timeout_s, listeners=[story.listen], store=store)
    @bulkhead("server", max_concurrent=plan.MAX_CONCURRENT, max_queue=plan.MAX_QUEUE)
    def fetch() -> bytes:
        try:
            with opener.open(url, timeout=timeout_s) as answer:
                return bytes(answer.read())
        except HTTPError as error:
            error.close()
            raise

    return fetch


def run(story: Story) -> Ending:
    """Let the threads call until the story is over; return the figures of the summary."""
    fetch = guarded(story)

    def work() -> None:
        while not story.over:
            with story.calling():
                fetch()
            time.sleep(plan.PAUSE_S)

    workers = [Thread(target=work, daemon=True) for _ in range(plan.CALLERS)]
    for worker in workers:
        worker.start()
    try:
        for wait_s in story.happen(fetch.circuit_breaker):
            time.sleep(wait_s)
    finally:
        ending = story.ending(fetch.circuit_breaker, fetch.bulkhead)
        story.end()
        for worker in workers:
            worker.join(timeout=5)
    return ending
