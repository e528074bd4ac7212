"""OpenAI and compatible APIs: one breaker for each model, the SDK's retries off and ours on, answers and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai

from circuit_breaker import CircuitBreakerConfig, CircuitBreakerRegistry, RetryBudget, RetryPolicy, retry_after_hint


def is_failure(error: BaseException) -> bool:
    """Tell whether the model cannot: no answer in time, a broken stream, an error in it, a status of 500 or more."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500
    return isinstance(error, openai.APIError)


def may_be_repeated(error: BaseException) -> bool:
    """Tell whether another attempt may help; it costs what the first one has cost, and does no other harm."""
    if isinstance(error, openai.RateLimitError):
        return error.code != "insufficient_quota"  # which no waiting changes
    return is_failure(error)


CONFIG = CircuitBreakerConfig(
    failure_exceptions=is_failure,  # what else the SDK raises is an answer: the request was wrong, the key, the model
    ignored_exceptions=openai.RateLimitError,  # a wish to be left alone, for retries to heed; the model is well
    retry_after=retry_after_hint,
)
RETRIES = RetryPolicy(4, 0.5, retryable_exceptions=may_be_repeated, max_elapsed_s=120, budget=RetryBudget())


class Models:
    """Asks models, each through a breaker of its own; `retries` are around it.

    The timeout of the SDK is ten minutes unless `OpenAI(timeout=...)` says otherwise; give it one.
    """

    def __init__(self, client: openai.OpenAI, breakers: CircuitBreakerRegistry, retries: RetryPolicy = RETRIES) -> None:
        self._client = client.with_options(max_retries=0)
        self._breakers = breakers
        self._retries = retries

    def answer(self, model: str, question: str) -> str:
        """Return the whole answer."""

        def ask() -> str:
            completion = self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}]
            )
            return completion.choices[0].message.content or ""

        return self._retries.call(self._breakers[model].call, ask)

    def stream(self, model: str, question: str) -> Iterator[str]:
        """Give the answer token by token; it is tried again until there is a first token, and never after that."""

        def tokens() -> Iterator[str]:
            with self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], stream=True
            ) as chunks:
                for chunk in chunks:
                    if chunk.choices and (text := chunk.choices[0].delta.content):
                        yield text

        return self._retries(self._breakers[model](tokens))()


class AsyncModels:
    """The same for openai.AsyncOpenAI."""

    def __init__(
        self, client: openai.AsyncOpenAI, breakers: CircuitBreakerRegistry, retries: RetryPolicy = RETRIES
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

        return await self._retries.call_async(self._breakers[model].call_async, ask)

    def stream(self, model: str, question: str) -> AsyncIterator[str]:
        """Give the answer token by token; it is tried again until there is a first token, and never after that."""

        async def tokens() -> AsyncIterator[str]:
            async with await self._client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], stream=True
            ) as chunks:
                async for chunk in chunks:
                    if chunk.choices and (text := chunk.choices[0].delta.content):
                        yield text

        return self._retries(self._breakers[model](tokens))()
