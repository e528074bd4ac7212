"""The documentation is true: its code prints what it shows, its tables are those of the code, its links lead somewhere.

A block that begins with ```python is run, after the blocks above it on its page. What it prints stands in it as
comments that begin with `#>`. One with a title, ```python title="test_shop.py", is a file of a small project: those of
a page are written into one folder, and pytest is run there. Blocks of ```py are those of recipes, which the tests in
`examples/` run against servers; they show no output. No other block may hold code in Python.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import os
import re
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from enum import Enum
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from garbage import collect
from log_settings import logging_as_before
from sybil import Document, Example, Region
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

import circuit_breaker
from circuit_breaker import (
    Bulkhead,
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerRegistry,
    RetryBudget,
    RetryPolicy,
    console,
    exceptions,
    insight,
    stores,
    testing,
)

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
GUIDE = REPOSITORY / ".github" / "CONTRIBUTING.md"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", GUIDE, *sorted(DOCS.rglob("*.md"))]
MODULES = sorted((REPOSITORY / "src").rglob("*.py"))
# Whose own code stands beside ours where one moves from them; it runs where they are installed.
PEERS = {"aiobreaker", "backoff", "circuitbreaker", "codomyrmex", "interlock", "pybreaker", "stamina", "tenacity"}

PYTHON = RawFencedCodeBlockLexer(re.compile(r'python(?: title="(?P<title>[\w./]+)")?\n'))
RECIPE = re.compile(r"^[ \t>]*```py\n(.*?)^[ \t>]*```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^[ \t>]*(?:```+|~~~+)(.*)$", re.MULTILINE)
NO_CODE = {"bash", "json", "sh", "text", "{eval-rst}"}


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


# Code


class Page:
    """The blocks of one page, run one after another in one namespace."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.files: dict[str, str] = {}
        self.missing: set[str] = set()
        self.said = io.StringIO()
        kind = PythonDocStringDocument if path.suffix == ".py" else Document
        self.blocks = list(kind.parse(str(path), self._blocks).examples())

    def _blocks(self, document: Document) -> Iterator[Region]:
        for region in PYTHON(document):
            region.parsed, region.evaluator = region.lexemes["source"], self._evaluate
            yield region

    def run(self) -> None:
        with contextlib.redirect_stdout(self.said):
            for block in self.blocks:
                block.evaluate()
        self.namespace.clear()  # so that no breaker of this page lives on

    def _evaluate(self, block: Example) -> None:
        code: str = block.parsed.text
        title: str | None = block.region.lexemes["title"]
        if title is not None:
            self.files[title] = code
            return
        before = self.said.tell()
        with self._without_the_peers():
            exec(compile("\n" * block.line + code, str(self.path), "exec"), self.namespace)
            shown = [line.strip()[3:] for line in code.splitlines() if re.match(r"\s*#>( |$)", line)]
            printed = self.said.getvalue()[before:].splitlines()
            assert "\n".join(printed) == "\n".join(shown), f"{self.path}:{block.line}"

    @contextlib.contextmanager
    def _without_the_peers(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in PEERS:
                raise
            self.missing.add(error.name)


@contextlib.contextmanager
def as_if_alone() -> Iterator[None]:
    """Hide the breakers of other tests from a page, and let it set up logging by itself."""
    collect()
    alive, strangers = CircuitBreaker.instances, CircuitBreaker.instances()  # Celery, for one, keeps its tasks
    known = mock.patch.object(CircuitBreaker, "instances", lambda: [one for one in alive() if one not in strangers])
    with logging_as_before(), known, warnings.catch_warnings():
        logging.getLogger().handlers[:] = []
        warnings.filterwarnings("ignore", r".*use of fork\(\) may lead to deadlocks", DeprecationWarning)
        yield


RUN_BY_EXAMPLES = {
    "console",
    "shared-circuits",
}  # by tests/examples/test_shared_pages.py, with files and other libraries
with_code = [page for page in map(Page, PAGES + MODULES) if page.blocks]


@pytest.mark.parametrize("path", [page.path for page in with_code], ids=named)
def test_the_code_of_a_page_runs_and_prints_what_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page(path)
    monkeypatch.chdir(tmp_path)  # a page may write a file
    with as_if_alone():
        page.run()
    if page.files:
        for name, text in page.files.items():
            (tmp_path / name).write_text(text, "utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    if page.missing:
        pytest.skip(f"all ran but what needs the extra bench: {', '.join(sorted(page.missing))}")


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_no_code_of_a_page_is_left_out(path: Path) -> None:
    opening = FENCE.findall(path.read_text("utf-8"))[::2]
    assert len([fence for fence in opening if fence.startswith("python")]) == len(Page(path).blocks)
    of_recipes = {"py"} if path.stem.startswith("recipes-") or path.stem in RUN_BY_EXAMPLES else set()
    assert {fence for fence in opening if not fence.startswith("python")} <= NO_CODE | of_recipes


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_code_of_a_recipe_shows_no_output_that_nobody_compares(path: Path) -> None:
    text = path.read_text("utf-8")
    blocks = RECIPE.findall(text)
    assert len(blocks) == FENCE.findall(text).count("py")
    assert [block for block in blocks if "#>" in block] == []


def test_the_code_of_this_many_pages_is_found() -> None:
    assert len(with_code) > 10


# Links

LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#(?P<name>[^)\s]+))?\)")
ANY_LINK = re.compile(r"\]\((?!\w+:)|^\[[^]]+\]: |<a\b[^>]*href=|<img\b", re.MULTILINE)
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and Python-Markdown make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def anchors(path: Path) -> set[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return set(re.findall(r"^\s*(?:async def|def|class) (\w+)", text, re.MULTILINE))
    named = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", text, re.MULTILINE)) | set(re.findall(r'id="([\w-]+)"', text))
    return named | {slug(heading) for heading in re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text("utf-8"))
    links = list(LINK.finditer(prose))
    assert len(links) == len(ANY_LINK.findall(prose)), "a link is written in a form that is not looked at here"
    for link in links:
        target = Path(os.path.normpath(page.parent / link["path"])) if link["path"] else page
        assert target.exists(), link[0]
        assert link["name"] is None or link["name"] in anchors(target), link[0]


# Reference


def test_the_api_page_has_every_public_name() -> None:
    documented = re.findall(
        r"^\.\. auto(?:class|function):: circuit_breaker\.(\S+)$", (DOCS / "reference/api.md").read_text("utf-8"), re.M
    )
    names = [*circuit_breaker.__all__, *(f"testing.{name}" for name in testing.__all__), "insight.CallLog"]
    names.append("console.application")
    names += [f"stores.{name}" for name in stores.__all__ if name != "Change"]  # which is an alias of a type
    assert sorted(documented) == sorted(names)


@pytest.mark.parametrize("name", circuit_breaker.__all__)
def test_every_public_name_and_member_has_a_docstring(name: str) -> None:
    found = getattr(circuit_breaker, name)
    assert inspect.getdoc(found)
    if isinstance(found, type):
        for member, value in vars(found).items():
            if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"


SETTINGS: dict[str, Callable[..., Any]] = {
    "CircuitBreakerConfig": CircuitBreakerConfig,
    "CircuitBreaker": circuit_breaker.CircuitBreaker,
    "CircuitBreakerRegistry": CircuitBreakerRegistry,
    "RetryPolicy": RetryPolicy,
    "RetryBudget": RetryBudget,
    "Bulkhead": Bulkhead,
    "SQLiteStore": stores.SQLiteStore,
    "RedisStore": stores.RedisStore,
    "MemoryStore": stores.MemoryStore,
    "CallLog": insight.CallLog,
    "application": console.application,
    "circuit_breaker": circuit_breaker.circuit_breaker,
    "retry": circuit_breaker.retry,
    "bulkhead": circuit_breaker.bulkhead,
}


def tabled(heading: str) -> list[tuple[str, str]]:
    """Return each setting and default of the table below a heading."""
    text = (DOCS / "reference/settings.md").read_text("utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (table,) = [part for part in section if part.startswith(f"`{heading}`\n")]
    return re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", table, re.MULTILINE)


def in_words(default: object) -> str:
    """Return how the table shows a default."""
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, Enum):
        return f"`{type(default).__name__}.{default.name}`"
    if isinstance(default, tuple):
        return f"`({default[0].__name__},)`" if default else "`()`"
    if callable(default):
        return f"`time.{default.__name__}`" if default.__module__ in ("time", None) else f"`{default.__name__}`"
    return f"`{default!r}`"


@pytest.mark.parametrize("heading", SETTINGS)
def test_the_table_of_settings_is_that_of_the_code(heading: str) -> None:
    parameters = inspect.signature(SETTINGS[heading]).parameters.values()
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    assert tabled(heading) == [(parameter.name, in_words(parameter.default)) for parameter in named]


def test_the_map_of_the_package_has_every_module_and_folder() -> None:
    named = re.findall(r"^``(\w+)``", circuit_breaker.__doc__ or "", re.MULTILINE)
    found = {path.stem for path in (REPOSITORY / "src" / "circuit_breaker").glob("[!.]*") if path.name != "py.typed"}
    assert sorted(named) == sorted(found - {"__init__", "__pycache__"})


def test_every_error_has_its_place() -> None:
    headings = re.findall(r"^## `(\w+)`", (DOCS / "reference/errors.md").read_text("utf-8"), re.MULTILINE)
    raised = [name for name in exceptions.__all__ if isinstance(getattr(exceptions, name), type)]
    assert set(raised) - {"CodomyrmexError"} <= set(headings)


# What contributors run


def test_the_hooks_run_what_is_run_before_a_merge() -> None:
    commands = re.findall(r"^ +entry: (.+)$", (REPOSITORY / ".pre-commit-config.yaml").read_text("utf-8"), re.MULTILINE)
    wanted = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    assert len(commands) == 6
    the_suite_does = [".venv/bin/sphinx-build -q -W --keep-going docs site", ".venv/bin/python -m pytest -q"]
    assert [command for command in commands if f" {command}\n" not in wanted] == the_suite_does


def test_the_files_that_contributors_run_exist() -> None:
    files = re.findall(r"`[^`]*?((?:\.ci|tests)/[\w/.]+)", GUIDE.read_text("utf-8"))
    assert len(files) > 10
    assert [file for file in files if not (REPOSITORY / file).exists()] == []


# Pictures and the site


def test_the_timeline_is_what_its_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "examples")
    script = importlib.import_module("outage")
    assert script.draw(script.happen()) == (DOCS / "pictures/outage.svg").read_text("utf-8")


ARROWS = {"CLOSED to OPEN", "OPEN to HALF_OPEN", "HALF_OPEN to CLOSED", "HALF_OPEN to OPEN"}


def test_every_arrow_is_linked_to_a_test() -> None:
    text = (DOCS / "development/index.md").read_text("utf-8")
    linked = dict(
        re.findall(r"^\| \d\. (\w+ to \w+) \|.*\(\.\./\.\./tests/[\w/]+\.py#(test_\w+)\)", text, re.MULTILINE)
    )
    assert linked.keys() >= ARROWS


def test_every_rule_of_the_contract_is_pinned_by_tests() -> None:
    text = (DOCS / "development/contract.md").read_text("utf-8")
    rules = {part.partition(" ")[0]: part for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]}
    assert len(rules) > 30
    unpinned = [name for name, rule in rules.items() if not re.search(r"\.py#test_\w+\)", rule)]
    assert unpinned == []
    numbers = [tuple(map(int, name[1:].split("."))) for name in rules]
    assert numbers == sorted(set(numbers))


def test_every_page_is_in_the_navigation_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    groups = runpy.run_path(str(DOCS / "conf.py"))["navigation"]
    pages = [f"{page}.md" for titles in groups.values() for page in titles.values()]
    assert sorted([*pages, "index.md"]) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `.ci/run` does: a warning fails it."""
    for module in ("furo", "myst_parser", "sphinx", "sphinx_copybutton"):
        pytest.importorskip(module, reason="the site needs the extra docs")
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(built / ".doctrees")]
    done = subprocess.run(
        [*command, str(DOCS), str(built / "html")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return built / "html"


class Parsed(HTMLParser):
    """What a page of the site links to and loads, its anchors, and the parameters in its signatures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.parameters: list[str] = []
        self._in_parameter = False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given.get("href", ""))
        if tag in ("img", "script", "source") and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(given["href"])
        if tag == "em" and "sig-param" in given.get("class", ""):
            self._in_parameter = True
            self.parameters.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_parameter &= tag != "em"

    def handle_data(self, data: str) -> None:
        if self._in_parameter:
            self.parameters[-1] += data


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Parsed]:
    return {path: Parsed(path) for path in site.rglob("*.html")}


def test_every_link_of_the_site_leads_somewhere(parsed: dict[Path, Parsed]) -> None:
    broken = []
    for page in parsed.values():
        for link in page.links:
            path, _, anchor = link.partition("#")
            if re.match(r"(https?|mailto):", link):
                continue
            target = Path(os.path.normpath(page.path.parent / path)) if path else page.path
            if target not in parsed or anchor not in parsed[target].anchors | {""}:
                broken.append((page.path.name, link))
    assert broken == []


def test_the_site_loads_nothing_from_elsewhere(parsed: dict[Path, Parsed]) -> None:
    loaded = {(page.path.parent / load.partition("?")[0]).resolve() for page in parsed.values() for load in page.loads}
    assert len(loaded) > 5
    assert [path for path in loaded if not path.is_file()] == []


def test_signatures_of_the_site_show_defaults_as_values(parsed: dict[Path, Parsed], site: Path) -> None:
    parameters = parsed[site / "reference" / "api.html"].parameters
    defaults = dict(parameter.split(" = ", 1) for parameter in parameters if " = " in parameter)
    names = {default for default in defaults.values() if re.match(r"[A-Za-z_]", default)}
    assert len(defaults) > 30
    assert names <= {"None", "True", "False", "CircuitMode.AUTO", "time.monotonic", "retry_after_hint"}
    untyped = [one for one in parameters if re.search(r"<|^\w+: Any$|ForwardRef", one)]
    assert untyped == ["client: Any"]  # a Redis client of any library
    assert max(map(len, parameters)) <= 88  # what fits on a line


def test_the_first_use_of_a_term_is_linked_to_the_glossary(parsed: dict[Path, Parsed], site: Path) -> None:
    links = parsed[site / "explanation" / "state-machine.html"].links
    to_streak = [link for link in links if link.endswith("glossary.html#streak")]
    assert len(to_streak) == 1
