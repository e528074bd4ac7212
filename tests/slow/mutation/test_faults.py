"""Which faults are planted: telling ones, each once, and none where nothing runs."""

from __future__ import annotations

import textwrap

import pytest

pytest.importorskip("cosmic_ray", reason="needs the extra mutation: pip install -e .[test,mutation]")

from faults import Fault, faults


def planted(source: str) -> list[tuple[str, str]]:
    return [(fault.before, fault.after) for fault in faults("_room", textwrap.dedent(source))]


def test_boundaries_conditions_numbers_and_results_are_changed() -> None:
    assert sorted(planted("def f(x):\n    if x < 1:\n        return x\n")) == [
        ("if x < 1:", "if not x < 1:"),
        ("if x < 1:", "if x < 0:"),
        ("if x < 1:", "if x < 2:"),
        ("if x < 1:", "if x <= 1:"),
        ("return x", "return None"),
    ]


def test_statements_are_deleted_except_the_first_assignment_of_a_name() -> None:
    assert planted("def f(x):\n    y = x\n    y = g(x, a=y)\n    g(x)\n    raise y\n") == [
        ("y = g(x, a=y)", "pass"),
        ("y = g(x, a=y)", "y = g(x, )"),
        ("g(x)", "pass"),
        ("raise y", "pass"),
    ]


def test_equal_faults_are_planted_once() -> None:
    assert planted("def f(x):\n    if x is None:\n        g(x)\n") == [
        ("if x is None:", "if not x is None:"),
        ("g(x)", "pass"),
    ]


def test_faults_with_the_same_text_are_numbered_by_line() -> None:
    assert list(faults("_room", "def f(x):\n    g(x)\n    g(x)\n")) == [
        Fault("_room", "g(x)", "pass"),
        Fault("_room", "g(x)", "pass", 2),
    ]


@pytest.mark.parametrize(
    "source",
    [
        '"""1 < 2"""',
        "from __future__ import annotations\nx: int | None",
        "def f(x: int | None) -> list[int] | None: ...",
        "if TYPE_CHECKING:\n    x = 1 < 2",
        "@overload\ndef f(x: int = 1): ...",
        "class A(Protocol):\n    x = 1 < 2",
        'T = TypeVar("T", bound=int)',
        "def f(x, *, y): ...",
    ],
)
def test_code_for_type_checkers_is_not_changed(source: str) -> None:
    assert planted(source) == []
