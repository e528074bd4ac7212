"""Which tests are asked about the faults of a module: its own, the most telling first, then the others."""

from __future__ import annotations

BREAKER = (
    "test_machine test_breaker test_modes test_snapshot test_permit test_reconfigure test_drop_in_faults test_judging"
    " test_logging test_interrupts test_events test_rules test_stream test_reentrancy test_breaker_fork"
    " test_breaker_async test_breaker_model test_found"
).split()
BULKHEAD = "test_bulkhead test_bulkhead_fork test_bulkhead_async test_bulkhead_model".split()
RETRY = (
    "test_policy test_loop test_policy_async test_testing test_retry_after test_budget test_backoff test_retry_model"
).split()
SHARED = (
    "test_public_names test_checks test_streams test_exceptions test_decorators test_config test_registry"
    " test_hostile test_package test_together_model"
).split()
LEFT_OUT = [
    "test_bulkhead.py::test_under_the_lock_nothing_is_called_made_or_repeated",  # it refuses a fault by its looks
    "test_backoff.py::test_no_delay_is_negative_nan_or_above_the_cap_over_a_million_settings",  # slow, as are these
    "test_budget.py::test_tokens_are_exact_when_many_threads_put_in_and_take_out",
    "test_bulkhead_async.py::test_four_loops_and_four_threads_share_a_breaker_and_three_slots_and_the_totals_are_exact",
    "test_registry.py::test_memory_stays_flat_however_many_keys_come",
    "test_policy.py::test_one_object_raised_ten_thousand_times_carries_one_note_of_ours_the_latest",
    "test_policy.py::test_one_object_raised_in_many_threads_at_once_carries_one_note_of_ours",
]

# Those not named here have the file of their own name, in the suite that has it.
OWN = {
    "_retry.plan": ["test_loop", "test_policy", "test_policy_async", "test_testing"],
    "_retry.backoff": ["test_backoff", "test_policy"],
    "_breaker.open_blocks": ["test_breaker", "test_breaker_async", "test_machine", "test_permit"],
    "_breaker.breaker": (
        "test_breaker test_snapshot test_modes test_events test_breaker_async test_machine test_rules test_reconfigure"
        " test_decorators test_registry test_reentrancy"
    ).split(),
    "_retry.budget": ["test_budget", "test_policy", "test_public_names"],
    "_bulkhead.bulkhead": ["test_bulkhead", "test_logging", "test_bulkhead_fork", "test_bulkhead_async"],
    "_breaker.config": ["test_config", "test_rules"],
    "_breaker.admission": (
        "test_breaker test_exceptions test_machine test_events test_modes test_logging test_judging test_registry"
        " test_rules test_breaker_fork test_reentrancy"
    ).split(),
    "_common.events": ["test_events", "test_logging"],
    "_common.fork": ["test_breaker_fork", "test_bulkhead_fork", "test_budget"],
    "_breaker.stream": ["test_stream"],
    "_bulkhead.line": ["test_bulkhead", "test_bulkhead_fork", "test_bulkhead_async"],
    "_breaker.totals": ["test_snapshot", "test_breaker"],
    "_breaker.machine": (
        "test_machine test_modes test_rules test_snapshot test_reconfigure test_breaker test_permit test_interrupts"
        " test_breaker_fork test_events test_reentrancy"
    ).split(),
    "exceptions": ["test_exceptions", "test_public_names", "test_breaker"],
    "_common.words": ["test_public_names", "test_snapshot", "test_breaker", "test_bulkhead", "test_events"],
    "_common.judging": ["test_judging", "test_config", "test_policy"],
    "_breaker.states": (
        "test_machine test_modes test_rules test_snapshot test_reconfigure test_permit test_breaker test_registry"
    ).split(),
    "_retry.policy": [
        "test_policy",
        "test_policy_async",
        "test_loop",
        "test_backoff",
        "test_testing",
        "test_logging",
        "test_package",
    ],
    "_common.async_library": ["test_bulkhead_async", "test_policy_async", "test_testing"],
    "_common.streams": ["test_streams", "test_stream", "test_bulkhead"],
    "_common.typing": ["test_decorators"],
    "_breaker.window": ["test_window", "test_rules"],
    "_common.pattern": ["test_decorators", "test_breaker", "test_stream"],
}


def stages(module: str) -> tuple[list[str], list[str], list[str]]:
    """Return the tests that find most, for speed, then the rest of the module's own, then all others of behaviour.

    Those of documents, types, examples and benchmarks are none.
    """
    if module == "__main__" or module.startswith("_demo"):
        return ["test_demo"], ["test_main"], []
    own = OWN.get(module, [f"test_{module.rpartition('.')[2]}"])
    suites = sorted((BREAKER, BULKHEAD, RETRY, SHARED), key=lambda suite: -len(set(suite) & set(own)))
    return own[:1], own[1:], [name for suite in suites for name in suite if name not in own]
