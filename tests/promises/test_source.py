"""Rules that the source keeps: who imports whom, and what may not be written at all."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "src" / "circuit_breaker"
LONGEST = 400  # lines of a file

# Each room, and the rooms it may import from. What is imported under TYPE_CHECKING does not count.
COMMON = {
    "exceptions",
    *(f"_common.{room}" for room in "words checks fork lock async_library streams typing retry_after".split()),
    *(f"_common.{room}" for room in "judging events fallback pattern given seconds".split()),
}
BREAKER = {
    *("rules", "window", "totals", "config", "states", "reading", "machine", "open_blocks", "admission", "steering"),
    *("permit", "stream", "breaker", "cache"),
}


def breaker(*rooms: str) -> set[str]:
    assert BREAKER.issuperset(rooms)
    return COMMON | {f"_breaker.{room}" for room in rooms}


ROOMS: dict[str, set[str]] = {
    "exceptions": {"_common.words"},
    "_common": set(),
    "_common.words": set(),
    "_common.checks": set(),
    "_common.fork": set(),
    "_common.lock": set(),
    "_common.async_library": {"exceptions"},
    "_common.streams": set(),
    "_common.retry_after": {"_common.events"},
    "_common.events": {"_common.words", "_common.checks", "_common.fork"},
    "_common.judging": {"exceptions", "_common.words", "_common.checks", "_common.async_library"},
    "_common.fallback": {"exceptions", "_common.async_library", "_common.judging", "_common.streams"},
    "_common.pattern": {"exceptions", "_common.checks", "_common.streams", "_common.fallback"},
    "_common.given": {"_common.checks", "_common.judging", "_common.fallback", "_common.pattern"},
    "_common.seconds": set(),
    "_common.typing": {"_common.pattern"},
    "_breaker": set(),
    "_breaker.rules": COMMON,
    "_breaker.window": breaker("rules"),
    "_breaker.totals": COMMON,
    "_breaker.config": breaker("rules"),
    "_breaker.states.period": breaker("rules", "window", "totals", "config"),
    "_breaker.states.open": breaker("rules", "window", "totals") | {"_breaker.states.period"},
    "_breaker.states.closed": breaker("rules", "window", "totals", "config") | {"_breaker.states.period"},
    "_breaker.states.half_open": breaker("rules", "window", "totals", "config")
    | {"_breaker.states.period", "_breaker.states.open"},
    "_breaker.states": {f"_breaker.states.{state}" for state in ("period", "open", "closed", "half_open")},
    "_breaker.reading": breaker("rules", "window", "totals", "states"),
    "_breaker.machine": breaker("rules", "window", "totals", "config", "states", "reading"),
    "_breaker.open_blocks": breaker("states"),
    "_breaker.admission": breaker("config", "totals", "states", "machine", "open_blocks"),
    "_breaker.steering": breaker("config", "totals", "states", "admission"),
    "_breaker.permit": breaker("states", "open_blocks", "admission"),
    "_breaker.stream": breaker("states", "open_blocks", "admission"),
    "_breaker.breaker": breaker(*BREAKER - {"breaker", "cache"}),
    "_breaker.decorator": breaker("config", "breaker"),
    "_breaker.cache": {"_common.lock"},
    "_breaker.registry": breaker("config", "admission", "stream", "breaker", "cache"),
    "_bulkhead": set(),
    "_bulkhead.snapshot": set(),
    "_bulkhead.gates": COMMON,
    "_bulkhead.line": COMMON,
    "_bulkhead.admission": COMMON | {"_bulkhead.gates", "_bulkhead.line"},
    "_bulkhead.stream": COMMON | {"_bulkhead.line", "_bulkhead.admission"},
    "_bulkhead.bulkhead": COMMON | {f"_bulkhead.{room}" for room in ("line", "admission", "stream", "snapshot")},
    "_bulkhead.decorator": COMMON | {"_bulkhead.bulkhead"},
    "_retry": set(),
    "_retry.backoff": set(),
    "_retry.budget": COMMON,
    "_retry.totals": COMMON,
    "_retry.waiting": COMMON,
    "_retry.settings": COMMON | {"_retry.backoff", "_retry.budget", "_retry.totals"},
    "_retry.plan": COMMON | {"_retry.settings", "_retry.waiting"},
    "_retry.loop": COMMON | {"_retry.settings", "_retry.plan"},
    "_retry.policy": COMMON | {"_retry.settings", "_retry.totals", "_retry.plan", "_retry.loop"},
    "_retry.decorator": COMMON | {"_retry.policy"},
}
# Shared circuits: loaded by those alone who have a store.
SHARED = {
    "_shared": set(),
    "_shared.record": COMMON,
    "_shared.changes": COMMON | {"_shared.record"},
    "_shared.protocol": COMMON | {"_shared.record"},
    "_shared.events": set(),
    "_shared.store": COMMON | {"_shared.changes", "_shared.protocol", "_shared.record"},
    "_shared.evidence": breaker("config") | {"_shared.protocol", "_shared.record"},
    "_shared.states": breaker("rules", "states", "config") | {"_breaker.states.half_open", "_breaker.states.period"},
    "_shared.identity": COMMON,
    "_shared.worker": COMMON,
}
SHARED["_shared.states"] |= {"_shared.record"}
SHARED["_shared.link"] = breaker("states", "totals") | set(SHARED)
SHARED["_shared.machine"] = breaker("rules", "states", "config", "machine") | {"_shared.link", "_shared.states"}
SHARED["_shared.circuit"] = breaker("config", "machine") | set(SHARED) - {"_shared.machine"}
SHARED["_shared.talker"] = COMMON | set(SHARED) - {"_shared.machine"}
SHARED["_shared.process"] = breaker("config") | set(SHARED)
SHARED["_shared.check"] = COMMON | set(SHARED)
SHARED["stores._client"] = COMMON
SHARED |= {f"stores.{room}": COMMON | set(SHARED) for room in ("memory", "sqlite", "redis")}
SHARED["stores"] = breaker("totals") | set(SHARED)
ROOMS["testing"] = set(ROOMS)
ROOMS["__init__"] = set()  # loads each of them when it is asked for a name
ROOMS |= SHARED
# Imported from below, in the one function that needs it.
LATE = {
    "_breaker.admission": {"_shared.process"},
    "_shared.store": {"_shared.process"},
    "testing": {"_shared.check"},
}
# The demonstration uses what everybody can: `from circuit_breaker import ...`, and its own rooms.
ROOMS |= {"_demo": set(), "_demo.plan": set(), "_demo.server": {"_demo.plan"}}
ROOMS["_demo.story"] = {"_demo.plan", "_demo.server"}
ROOMS["_demo.screen"] = ROOMS["_demo.threads"] = ROOMS["_demo.tasks"] = {"_demo", "_demo.plan", "_demo.story"}
ROOMS["_demo.caller"] = {"_demo", "_demo.plan", "_demo.server", "_demo.story", "_demo.threads", "_terminal", "stores"}
ROOMS["_demo.processes"] = {"_demo", "_demo.plan", "_demo.story", "stores"}
ROOMS["_demo.command"] = {room for room in ROOMS if room.startswith("_demo")} | {"_terminal"}
ROOMS["_demo.screen"] = ROOMS["_demo.screen"] | {"_terminal"}
ROOMS["_terminal"] = set()
ROOMS["__main__"] = {"_terminal"}  # it loads commands by their names
THE_DEMONSTRATION = {"_demo.tasks"}

READING = {f"insight.reading.{room}" for room in ("problems", "files", "conditions", "formats", "columns", "log")}
REPORT = {f"insight.report.{room}" for room in ("wording", "verdict", "pictures", "svg", "charts", "more_charts")}
FOUND = {f"insight.{room}" for room in ("calls", "outages", "replay", "figures", "made", "recommend", "study")}
ROOMS |= {
    "insight.call_log": COMMON,
    "insight": {"insight.call_log"},
    "insight.calls": set(),
    "insight.outages": {"insight.calls"},
    # Nothing but this room knows the state machine; the others know the configuration.
    "insight.replay": breaker("config", "machine", "states") | {"insight.calls"},
    "insight.figures": breaker("config") | {"insight.calls", "insight.outages", "insight.replay"},
    "insight.made": breaker("config") | FOUND - {"insight.made", "insight.recommend", "insight.study"},
    "insight.recommend": breaker("config") | FOUND - {"insight.recommend", "insight.study"},
    "insight.study": breaker("config") | FOUND - {"insight.study"} | {"insight.reading.problems"},
    "insight.reading": set(),
    "insight.reading.problems": set(),
    "insight.reading.files": {"insight.reading.problems"},
    "insight.reading.conditions": set(),
    "insight.reading.formats": {"insight.calls", "insight.reading.conditions", "insight.reading.problems"},
    "insight.reading.columns": READING - {"insight.reading.columns", "insight.reading.log"},
    "insight.reading.log": READING - {"insight.reading.log"} | {"insight.calls"},
    "insight.report": set(),
    "insight.report.svg": set(),
    "insight.report.style": set(),
    "insight.report.wording": breaker("config"),
    "insight.report.verdict": FOUND | {"insight.report.wording"},
    "insight.report.pictures": COMMON | FOUND,
    "insight.report.charts": COMMON | FOUND | REPORT - {"insight.report.charts", "insight.report.more_charts"},
    "insight.report.more_charts": FOUND | {"insight.report.svg", "insight.report.wording"},
    "insight.report.page": FOUND | REPORT | {"insight.report.style"},
    "insight.report.terminal": COMMON | FOUND | REPORT | {"_terminal"},
    "insight.report.data": breaker("config") | FOUND | REPORT,
    "insight.progress": {"_terminal"},
    "insight.model": breaker("config", "breaker", "permit") | {"exceptions", "_retry.policy"},
    "insight.simulate": breaker("config") | REPORT | {"insight.model", "insight.report.data", "_terminal"},
    "insight.options": breaker("config", "breaker") | READING | {"insight.model"},
}
ROOMS["insight.command"] = breaker("config") | {room for room in ROOMS if room.startswith("insight")} | {"_terminal"}

# The console reads stores, and knows nothing of breakers.
CONSOLE_STORES = COMMON | set(SHARED)
ROOMS |= {
    "console.rows": CONSOLE_STORES,
    "console.history": CONSOLE_STORES | {"console.rows"},
    "console.watcher": CONSOLE_STORES | {"console.rows", "console.history"},
    "console.data": CONSOLE_STORES | {"console.rows", "console.history", "console.watcher"},
    "console.application": CONSOLE_STORES | {"console.data", "console.watcher"},
    "console": {"console.application"},
    "console.server": {"console.application"},
    "console.sources": {"stores"},
    "console.table": {"_terminal", "console.rows", "console.history", "console.watcher"},
    "console.screen": {"_terminal", "console.rows", "console.table", "console.watcher"},
}
ROOMS["console.command"] = {room for room in ROOMS if room.startswith("console")} | {"_terminal"}

PACKAGES = {"_breaker.states", "_common", "_breaker", "_retry", "_bulkhead", "_demo"}
PACKAGES |= {"_shared", "console", "insight", "insight.reading", "insight.report", "stores"}

Source: TypeAlias = dict[str, ast.Module]


def source() -> Source:
    rooms = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        room.removesuffix(".__init__"): ast.parse(path.read_text("utf-8"), str(path)) for room, path in rooms.items()
    }


def sample(text: str, room: str = "_breaker.window") -> Source:
    return {room: ast.parse(text)}


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over everything but what stands under TYPE_CHECKING."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from at_run_time(child)


def imported(room: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the line and the absolute dotted name of every import; of `from . import a`, that of a."""
    folder = f"circuit_breaker.{room}".split(".")
    for node in at_run_time(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(folder[: -node.level] + ([node.module] if node.module else []))
            if is_package := room in PACKAGES:
                base = ".".join(folder[: len(folder) + 1 - node.level] + ([node.module] if node.module else []))
            assert is_package or node.level < len(folder)
            rooms = [f"{base}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name if name.partition(".")[2] in ROOMS else base) for name in rooms)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""


# Each check takes the source and gives what breaks its rule.


def loops_that_could_keep_a_lock(rooms: Source) -> Iterator[str]:
    """A `while` directly under `with ...lock` or under a `try`: a Ctrl-C at its closing jump escapes giving back."""
    for room, tree in rooms.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.With):
                guarded = any("lock" in ast.unparse(item.context_expr).lower() for item in node.items)
            else:
                guarded = isinstance(node, ast.Try | ast.TryStar)
            if guarded and isinstance(node, ast.With | ast.Try | ast.TryStar):
                yield from (f"{room}:{loop.lineno} a while" for loop in loops_in(node.body))


def loops_in(body: list[ast.stmt]) -> Iterator[ast.While]:
    """Give each `while` in this very function: what is called from here is another frame."""
    for statement in body:
        if isinstance(statement, ast.While):
            yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
            blocks += [part.body for name in ("handlers", "cases") for part in getattr(statement, name, [])]
            for block in blocks:
                yield from loops_in(block)


# What may stand in a locked section. Nothing of it calls or makes anything, so that the interpreter looks neither for
# signals nor for garbage there; up to three values are exchanged without making a tuple of them.
PLAIN = (
    *(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Delete, ast.If, ast.Return, ast.Continue, ast.Break, ast.Tuple),
    *(ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Name, ast.Attribute, ast.Subscript, ast.Constant),
    *(ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop),
)
LOCKED = ("_breaker.", "_bulkhead.", "_retry.", "_common.", "_shared.", "stores.", "console.", "testing")


def locked_sections(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Give the body of each `with ...lock:`, and of each `try:` that follows on `_ = ...lock.taken`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr).endswith("lock"):
            yield node.body
        for before, after in neighbours(node):
            if isinstance(after, ast.Try) and ast.unparse(before).endswith("lock.taken"):
                yield after.body


def neighbours(node: ast.AST) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    """Give each statement of the blocks of this node and the one after it, which is `pass` after the last."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, [])
        if isinstance(block, list):
            yield from pairwise([*block, ast.Pass()])


def locks_that_are_not_given_back(rooms: Source) -> Iterator[str]:
    """After `_ = ...lock.taken` comes at once a `try:` that ends by releasing the same lock."""
    for room, tree in rooms.items():
        for node in ast.walk(tree):
            for before, after in neighbours(node):
                if isinstance(before, ast.Assign) and ast.unparse(before).endswith("lock.taken"):
                    end = after.finalbody if isinstance(after, ast.Try) else []
                    release = f"{ast.unparse(before.value).removesuffix('.taken')}.release()"
                    if [ast.unparse(statement) for statement in end] != [release]:
                        yield f"{room}:{before.lineno} {ast.unparse(before)}"


def calls_in_a_locked_section(rooms: Source) -> Iterator[str]:
    for room, tree in rooms.items():
        for section in locked_sections(tree) if room.startswith(LOCKED) else ():
            for statement in section:
                for node in ast.walk(statement):
                    if not isinstance(node, PLAIN) or (isinstance(node, ast.Tuple) and len(node.elts) not in (0, 2, 3)):
                        yield f"{room}:{statement.lineno} {ast.unparse(statement)}"
                        break


def heavy_primitives(rooms: Source) -> Iterator[str]:
    """Condition, Semaphore and Event are Python code that an interrupt can leave half done."""
    banned = {"Barrier", "BoundedSemaphore", "Condition", "Event", "Semaphore"}
    for room, tree in rooms.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "threading":
                yield from (f"{room}:{node.lineno} {alias.name}" for alias in node.names if alias.name in banned)
            if isinstance(node, ast.Attribute) and node.attr in banned and ast.unparse(node.value) == "threading":
                yield f"{room}:{node.lineno} {node.attr}"


def imports_beyond_the_standard_library(rooms: Source) -> Iterator[str]:
    known = sys.stdlib_module_names | {"circuit_breaker"}
    for room, tree in rooms.items():
        yield from (
            f"{room}:{line} {name}" for line, name in imported(room, tree) if name.partition(".")[0] not in known
        )


def imports_of_an_event_loop(rooms: Source) -> Iterator[str]:
    """Not even under TYPE_CHECKING or in a function: what runs is found in sys.modules."""
    for room, tree in rooms.items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.partition(".")[0] in {"asyncio", "trio", "anyio"} and room not in THE_DEMONSTRATION:
                    yield f"{room}:{getattr(node, 'lineno', 0)} {name}"


def imports_from_below(rooms: Source) -> Iterator[str]:
    for room, tree in rooms.items():
        if room not in ROOMS:
            yield f"{room} is a room that the table does not know"
            continue
        for line, name in imported(room, tree):
            package, _, part = name.partition(".")
            if package == "circuit_breaker" and part and part not in ROOMS[room] | LATE.get(room, set()):
                yield f"{room}:{line} {name}"


CHECKS: dict[Callable[[Source], Iterator[str]], list[Source]] = {
    loops_that_could_keep_a_lock: [
        sample("with self._lock:\n    while x:\n        pass"),
        sample("with a, lock():\n    if x:\n        while x:\n            pass"),
        sample("with self._lock:\n    for a in b:\n        pass\n    else:\n        while x:\n            pass"),
        sample("try:\n    while x:\n        pass\nfinally:\n    give_back()"),
        sample("try:\n    with other:\n        while x:\n            pass\nexcept E:\n    give_back()"),
        sample("try:\n    match x:\n        case 1:\n            while x:\n                pass\nexcept E:\n    pass"),
        sample("with lock:\n    try:\n        pass\n    except E:\n        while x:\n            pass"),
    ],
    calls_in_a_locked_section: [
        sample("with self._lock:\n    self._count.add(1)"),
        sample("with machine.lock:\n    if x:\n        y = [1]"),
        sample("with self.lock:\n    a, b, c, d = e"),
        sample("with self.lock:\n    for a in b:\n        pass"),
        sample(
            "def f():\n    _ = self.lock.taken\n    try:\n        call()\n    finally:\n        self.lock.release()"
        ),
    ],
    locks_that_are_not_given_back: [
        sample("_ = self.lock.taken\nx = 1"),
        sample("if x:\n    _ = lock.taken"),
        sample("_ = a.lock.taken\ntry:\n    x = 1\nfinally:\n    b.lock.release()"),
        sample("_ = a.lock.taken\ntry:\n    x = 1\nexcept E:\n    a.lock.release()"),
    ],
    heavy_primitives: [
        sample("import threading\nthreading.Condition()"),
        sample("from threading import Lock, Semaphore"),
        sample("def f(self):\n    self._ready = threading.Event()"),
    ],
    imports_beyond_the_standard_library: [
        sample("import requests"),
        sample("def f():\n    from trio.lowlevel import x"),
        sample("import os, yaml.nodes"),
    ],
    imports_of_an_event_loop: [
        sample("import asyncio"),
        sample("import os, asyncio.events"),
        sample("from trio import sleep"),
        sample("def f():\n    import trio"),
        sample("if TYPE_CHECKING:\n    import asyncio"),
    ],
    imports_from_below: [
        sample("from .breaker import CircuitBreaker", "_breaker.machine"),
        sample("from .._retry import policy", "_bulkhead.bulkhead"),
        sample("import circuit_breaker._common.words", "_window"),
        sample("def f():\n    from circuit_breaker._breaker.registry import x", "_breaker"),
        sample("", "_cellar"),
    ],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_source_keeps_the_rule(check: Callable[[Source], Iterator[str]]) -> None:
    assert list(check(source())) == []


@pytest.mark.parametrize(("check", "bad"), [(check, bad) for check, samples in CHECKS.items() for bad in samples])
def test_planted_breach_is_found(check: Callable[[Source], Iterator[str]], bad: Source) -> None:
    assert len(list(check(bad))) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        "with lock():\n    for a in b:\n        pass\nwhile x:\n    pass",
        "with lock():\n    def later():\n        while x:\n            pass",
        "with self._lock:\n    a, b = b, a\n    if a is not b:\n        self.count += 1",
        "try:\n    pass\nfinally:\n    while x:\n        pass",
        "with open(path):\n    while x:\n        pass",
        "if TYPE_CHECKING:\n    from ._breaker import CircuitBreaker",
        "import threading, sys\nfrom threading import Lock\nthreading.local()",
    ],
)
def test_harmless_code_is_accepted(harmless: str) -> None:
    assert [breach for check in CHECKS for breach in check(sample(harmless))] == []


def test_the_import_table_has_no_circle() -> None:
    assert set(TopologicalSorter(ROOMS).static_order()) == set(ROOMS)


def test_the_whole_package_is_read() -> None:
    assert source().keys() == ROOMS.keys()


def test_no_file_is_too_long_to_read_at_one_sitting() -> None:
    lines = {
        path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8").count("\n") for path in PACKAGE.rglob("*.py")
    }
    assert {name for name, count in lines.items() if count > LONGEST} == set()
