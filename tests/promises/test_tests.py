"""The tests themselves: each can fail, and none looks as if it asserted what it does not."""

from __future__ import annotations

import ast
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import pytest

TESTS = Path(__file__).parents[1]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Helper: TypeAlias = Function | ast.ClassDef
Suite: TypeAlias = dict[str, ast.Module]

EXPECTS = {"pytest.fail", "pytest.raises", "pytest.warns"}
STEADY = {"examples", "thorough"}
IN_SUPPORT = {"Clock", "Down", "PATIENCE_S", "Pause", "Way", "drive", "fork", "raising", "storm"}


@cache
def suite() -> Suite:
    paths = sorted(TESTS.rglob("*.py"))
    return {path.relative_to(TESTS).as_posix(): ast.parse(path.read_bytes(), str(path)) for path in paths}


def sample(text: str) -> Suite:
    return {"test_sample.py": ast.parse(text)}


def holds_tests(file: str) -> bool:
    return PurePosixPath(file).name.startswith("test_")


def each_test(files: Suite) -> Iterator[tuple[str, Function]]:
    for file in filter(holds_tests, files):
        for node in ast.walk(files[file]):
            if isinstance(node, Function) and node.name.startswith("test_"):
                yield file, node


def expects(helper: Helper) -> bool:
    """Tell whether something in it fails a test: an assertion, or an exception that has to come."""
    for node in ast.walk(helper):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Raise) and node.exc is not None and "AssertionError" in ast.unparse(node.exc):
            return True
        if isinstance(node, ast.Call) and ast.unparse(node.func) in EXPECTS:
            return True
    return False


def helpers(tree: ast.Module) -> dict[str, Helper]:
    """Return the functions and classes of a file by their names; a class helps with all its methods."""
    return {node.name: node for node in ast.walk(tree) if isinstance(node, Helper)}


def defined(tree: ast.Module) -> Iterator[str]:
    """Give the names of what a file defines, without what is inside of it."""
    for node in tree.body:
        if isinstance(node, Helper):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from map(ast.unparse, node.targets)


# Each check takes the files and gives what breaks its rule.


def that_cannot_fail(files: Suite) -> Iterator[str]:
    """Tests with no assertion in them, nor in a helper that they call, of their own file or of one that is no test."""
    own = {file: helpers(tree) for file, tree in files.items()}
    shared = [own[file] for file in files if not holds_tests(file)]
    for file, test in each_test(files):
        known = ChainMap(own[file], *shared)
        seen: set[str] = set()
        ahead: list[Helper] = [test]
        while ahead and not any(map(expects, ahead)):
            names = {node.id for helper in ahead for node in ast.walk(helper) if isinstance(node, ast.Name)} - seen
            seen |= names
            ahead = [known[name] for name in names & known.keys()]
        if not ahead:
            yield f"{file}:{test.lineno} {test.name}"


def assertions_that_always_hold(files: Suite) -> Iterator[str]:
    """A constant, or a tuple or a generator, which is always true."""
    kinds = (ast.Constant, ast.Dict, ast.GeneratorExp, ast.JoinedStr, ast.Lambda, ast.List, ast.Set, ast.Tuple)
    for file, tree in files.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert) and isinstance(node.test, kinds):
                yield f"{file}:{node.lineno} {ast.unparse(node)}"


def assertions_that_are_never_reached(files: Suite) -> Iterator[str]:
    """Behind a `raise`, or at the end of the block that has to raise."""
    for file, tree in files.items():
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if not isinstance(body, list):
                continue
            for before, after in pairwise(body):
                leaves = isinstance(before, ast.Raise | ast.Return | ast.Break | ast.Continue)
                if leaves and isinstance(after, ast.Assert):
                    yield f"{file}:{after.lineno} is never reached"
            raising = isinstance(node, ast.With | ast.AsyncWith) and any(
                ast.unparse(item.context_expr).startswith("pytest.raises(") for item in node.items
            )
            if raising and isinstance(body[-1], ast.Assert):
                yield f"{file}:{body[-1].lineno} is never reached, or raises itself"


def of_one_name(files: Suite) -> Iterator[str]:
    """Two tests of one name, of which the second hides the first."""
    for file, tree in files.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef):
                names = [child.name for child in node.body if isinstance(child, Function)]
                yield from (
                    f"{file} {name}" for name in set(names) if name.startswith("test_") and names.count(name) > 1
                )


def leftovers(files: Suite) -> Iterator[str]:
    """What one puts in to look, and forgets."""
    for file, test in each_test(files):
        for node in ast.walk(test):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "breakpoint", "pdb.set_trace"}:
                yield f"{file}:{node.lineno} {ast.unparse(node)}"


def whose_examples_change(files: Suite) -> Iterator[str]:
    """Tests that draw other examples in each run, and fail on a busy machine because one took long."""
    for file, test in each_test(files):
        decorators = [ast.unparse(decorator) for decorator in test.decorator_list]
        if any(text.startswith("given(") for text in decorators) and not STEADY & {text[:8] for text in decorators}:
            yield f"{file}:{test.lineno} {test.name}"


def made_a_second_time(files: Suite) -> Iterator[str]:
    """A clock, a failure, a patience and the like, which are in `support/` for all."""
    for file, tree in files.items():
        if file.startswith("support/"):
            continue
        yield from (f"{file} {name}" for name in defined(tree) if name in IN_SUPPORT)


CHECKS: dict[Callable[[Suite], Iterator[str]], list[str]] = {
    that_cannot_fail: [
        "def test_a():\n    call()",
        "def test_a():\n    help()\ndef help():\n    call()",
        "def test_a():\n    other.help()\ndef help():\n    assert x",
        "async def test_a():\n    with pytest.suppress(E):\n        raise E",
    ],
    assertions_that_always_hold: [
        "def test_a():\n    assert True",
        "def test_a():\n    assert (x, 'message')",
        "def test_a():\n    assert (y for y in x)",
    ],
    assertions_that_are_never_reached: [
        "def test_a():\n    with pytest.raises(E) as raised:\n        call()\n        assert raised",
        "def test_a():\n    raise E\n    assert x",
        "def test_a():\n    return\n    assert x",
    ],
    of_one_name: [
        "def test_a():\n    assert x\ndef test_a():\n    assert y",
        "class Tests:\n    def test_a():\n        assert x\n    async def test_a():\n        assert y",
    ],
    whose_examples_change: ["@given(x)\ndef test_a(x):\n    assert x"],
    made_a_second_time: ["class Down(Exception): ...", "PATIENCE_S = 5.0", "def drive(coroutine):\n    assert x"],
    leftovers: ["def test_a():\n    print(x)\n    assert x", "def test_a():\n    assert x\n    breakpoint()"],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_tests_follow_the_rule(check: Callable[[Suite], Iterator[str]]) -> None:
    assert list(check(suite())) == []


@pytest.mark.parametrize(("check", "bad"), [(check, bad) for check, samples in CHECKS.items() for bad in samples])
def test_planted_breach_is_found(check: Callable[[Suite], Iterator[str]], bad: str) -> None:
    assert len(list(check(sample(bad)))) == 1


@pytest.mark.parametrize(
    "sound",
    [
        "def test_a():\n    assert x",
        "def test_a():\n    with pytest.raises(E):\n        call()",
        "def test_a():\n    help()\ndef help():\n    return more()\ndef more():\n    assert x",
        "def test_a():\n    run(help)\ndef help():\n    assert x",
        "def test_a():\n    if x:\n        raise AssertionError(x)",
    ],
)
def test_sound_tests_are_accepted(sound: str) -> None:
    assert [breach for check in CHECKS for breach in check(sample(sound))] == []


def test_the_whole_suite_is_read() -> None:
    assert len(list(each_test(suite()))) > 1000
    shared = {name for file in suite() if file.startswith("support/") for name in defined(suite()[file])}
    assert shared >= IN_SUPPORT


def test_no_two_modules_have_one_name() -> None:
    # pytest puts the folder of each test file on the path, so the first of two would be imported for both.
    programs = {TESTS / "slow", TESTS / "benchmarks"}
    paths = [*TESTS.rglob("*.py"), *(TESTS.parent / "docs" / "examples").glob("*.py")]
    imported = [path for path in paths if path.name.startswith("test_") or programs.isdisjoint(path.parents)]
    names = Counter(path.name for path in imported if path.name != "conftest.py")
    assert {name: number for name, number in names.items() if number > 1} == {}
