"""OpenAI and compatible APIs: one circuit breaker and one retry budget for each model, for answers and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import openai

from circuit_breaker import CircuitBreakerConfig, CircuitBreakerRegistry, RetryBudget, RetryPolicy, retry_after_hint

try:  # up to version 2 of openai, a stream that breaks off raises an error of httpx
    from httpx import TransportError
except ImportError:
    TransportError = openai.APIConnectionError  # type: ignore[assignment, misc]


def is_failure(error: BaseException) -> bool:
    """Return whether the model could not answer: not in time, a broken stream, an error in it, a status >= 500."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500
    return isinstance(error, (openai.APIError, TransportError))


def is_retryable(error: BaseException) -> bool:
    """Return whether another attempt may help. It costs as much as the first one, and does no other harm."""
    if isinstance(error, openai.RateLimitError):
        return error.code != "insufficient_quota"  # which waiting does not change
    return is_failure(error)


CONFIG = CircuitBreakerConfig(
    failure_exceptions=is_failure,  # anything else is an answer: the request is wrong, or the key, or the model
    ignored_exceptions=openai.RateLimitError,  # too many requests of ours: the model is healthy
    retry_after=retry_after_hint,
)


def per_model(policy: RetryPolicy) -> Callable[[str], RetryPolicy]:
    """Return a function that gives each model its own policy, which differs only in its retry budget.

    With one budget for all, a single overloaded model would use it up, and no other model would get a retry.
    """
    return lru_cache(maxsize=1024)(lambda model: replace(policy, budget=RetryBudget()))


POLICY = RetryPolicy(max_retries=3, backoff_base=0.5, max_elapsed_s=30.0, retryable_exceptions=is_retryable)
RETRIES = per_model(POLICY)


class Models:
    """Asks models, each through a breaker of its own, with retries around it.

    Give the client a timeout, `OpenAI(timeout=30)`: the SDK itself waits for ten minutes.
    """

    def __init__(
        self,
        client: openai.OpenAI,
        breakers: CircuitBreakerRegistry,
        retries: Callable[[str], RetryPolicy] = RETRIES,
    ) -> None:
        self._client = client.with_options(max_retries=0)  # the retries of the SDK are off
        self._breakers = breakers
        self._retries = retries

    def answer(self, model: str, question: str) -> str:
        """Return the whole answer."""

        def ask() -> str:
            completion = self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}]
            )
            return completion.choices[0].message.content or ""

        ask.__qualname__ = f"answer({model})"  # the name of the call in log lines and events
        return self._retries(model)(self._breakers[model](ask))()

    def stream(self, model: str, question: str) -> Iterator[str]:
        """Yield the answer token by token. It is retried until there is a first token, and never after that."""

        def tokens() -> Iterator[str]:
            with self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], stream=True
            ) as chunks:
                for chunk in chunks:
                    if chunk.choices and (text := chunk.choices[0].delta.content):
                        yield text

        tokens.__qualname__ = f"stream({model})"
        return self._retries(model)(self._breakers[model](tokens))()


class AsyncModels:
    """The same for openai.AsyncOpenAI."""

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        breakers: CircuitBreakerRegistry,
        retries: Callable[[str], RetryPolicy] = RETRIES,
    ) -> None:
        self._client = client.with_options(max_retries=0)
        self._breakers = breakers
        self._retries = retries

    async def answer(self, model: str, question: str) -> str:
        """Return the whole answer."""

        async def ask() -> str:
            completion = await self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}]
            )
            return completion.choices[0].message.content or ""

        ask.__qualname__ = f"answer({model})"
        return await self._retries(model)(self._breakers[model](ask))()

    def stream(self, model: str, question: str) -> AsyncIterator[str]:
        """Yield the answer token by token. It is retried until there is a first token, and never after that."""

        async def tokens() -> AsyncIterator[str]:
            async with await self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], stream=True
            ) as chunks:
                async for chunk in chunks:
                    if chunk.choices and (text := chunk.choices[0].delta.content):
                        yield text

        tokens.__qualname__ = f"stream({model})"
        return self._retries(model)(self._breakers[model](tokens))()
