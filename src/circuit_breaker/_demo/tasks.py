"""Eight tasks of one event loop that call the server through asyncio streams."""

from __future__ import annotations

import asyncio

from circuit_breaker import bulkhead, circuit_breaker, retry
from circuit_breaker._demo import plan
from circuit_breaker._demo.story import Ending, Story


def run(story: Story) -> Ending:
    """Let the tasks call until the story is over; return the figures of the summary."""
    return asyncio.run(_run(story), debug=False)


async def _run(story: Story) -> Ending:
    port, timeout_s = story.server.port, story.plan.timeout_s

    @retry(max_retries=plan.MAX_RETRIES, backoff_base=plan.BACKOFF_BASE_S, listeners=[story.listen])
    @circuit_breaker("server", reset_timeout_s=story.plan.reset_timeout_s, listeners=[story.listen])
    @bulkhead("server", max_concurrent=plan.MAX_CONCURRENT, max_queue=plan.MAX_QUEUE)
    async def fetch() -> None:
        async with asyncio.timeout(timeout_s):
            await _get(port)

    async def work() -> None:
        while not story.over:
            with story.calling():
                await fetch()
            await asyncio.sleep(plan.PAUSE_S)

    workers = [asyncio.create_task(work()) for _ in range(plan.CALLERS)]
    try:
        for wait_s in story.happen(fetch.circuit_breaker):
            await asyncio.sleep(wait_s)
    finally:
        ending = story.ending(fetch.circuit_breaker, fetch.bulkhead)
        story.end()
        await asyncio.gather(*workers)
    return ending


async def _get(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        status, _, _ = (await reader.read()).partition(b"\r\n")
    finally:
        writer.close()
    if b" 200 " not in status:
        raise ConnectionError(f"the server answered {status!r}")
