"""The pages of recipes: an excerpt stands in its example; what else they show works, and prints nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_files import EXAMPLES, HOW_TO, code_blocks
from faulty_server import FaultyServer
from log_settings import logging_as_before

PAGES = sorted(HOW_TO.glob("recipes-*.md"))


@pytest.fixture
def _examples_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    prometheus_client = pytest.importorskip("prometheus_client", reason="needs the extra test")
    collectors = set(prometheus_client.REGISTRY._collector_to_names)
    modules = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES)
    with logging_as_before():  # one of them configures logging
        yield
    for collector in set(prometheus_client.REGISTRY._collector_to_names) - collectors:
        prometheus_client.REGISTRY.unregister(collector)
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()
    for name in set(sys.modules) - modules:
        if (EXAMPLES / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.usefixtures("_examples_can_be_imported")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_shows_of_the_use_of_its_example_works_and_prints_nothing(
    page: Path, server: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = {"__name__": page.stem}
    blocks = code_blocks(page)
    assert blocks
    for block in blocks:
        if excerpt_from(block, page) is not None:
            continue
        for module in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE):
            pytest.importorskip(module, reason="needs the extra recipes: pip install -e .[test,recipes]")
        exec(compile(block.replace("https://api.example/", server.url), str(page), "exec"), namespace)
    assert capsys.readouterr().out == ""


def excerpt_from(block: str, page: Path) -> str | None:
    """Return the file that the line above a block names as the one it is an excerpt from, if there is one."""
    before = page.read_text("utf-8").partition(f"```py\n{block}```")[0]
    named = re.search(r"^Excerpt from \[(\w+\.py)\]\(\.\./examples/(\w+\.py)\)[^\n]*:\n\n\Z", before, re.MULTILINE)
    if named is None:
        return None
    assert named[1] == named[2]
    return named[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_excerpt_says_from_which_file_it_is_and_all_else_can_be_run(page: Path) -> None:
    for block in code_blocks(page):
        name = excerpt_from(block, page)
        holders = [path.name for path in EXAMPLES.glob("*.py") if block in path.read_text("utf-8")]
        assert (name in holders) if name else not holders


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("with_*.py")), ids=lambda path: path.stem)
def test_every_recipe_has_its_page(example: Path) -> None:
    pages = (EXAMPLES.parent / "how-to").glob("*.md")
    assert any(f"(../examples/{example.name})" in page.read_text("utf-8") for page in pages)
