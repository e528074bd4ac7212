"""Which tests a planted fault meets, and in which order."""

from __future__ import annotations

import pytest

pytest.importorskip("cosmic_ray", reason="needs the extra mutation: pip install -e .[test,mutation]")

from run import BEHAVIOUR, PACKAGE, ROOT, steps

MODULES = [
    ".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts) for path in sorted((ROOT / PACKAGE).rglob("*.py"))
]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("_decorators", [["tests/test_decorators.py"], BEHAVIOUR]),
        ("_breaker.cache", [["tests/breaker/test_cache.py"], ["tests/breaker"], BEHAVIOUR]),
        ("_breaker.states.open", [["tests/breaker"], BEHAVIOUR]),
        ("insight.outages", [["tests/insight/test_outages.py"], ["tests/insight"]]),
        ("insight.report.svg", [["tests/insight"]]),
        ("_shared.record", [["tests/stores/test_record.py", "tests/stores/test_record_model.py"], ["tests/stores"]]),
        ("_demo.screen", [["tests/test_demo.py"], ["tests/test_main.py"]]),
    ],
)
def test_fault_meets_the_tests_of_its_room_then_of_its_folder_then_all(module: str, expected: list[list[str]]) -> None:
    assert steps(module) == expected


@pytest.mark.parametrize("module", MODULES)
def test_tests_that_a_fault_meets_are_there(module: str) -> None:
    for step in steps(module):
        assert step
        for name in step:
            assert (ROOT / name).exists(), name
