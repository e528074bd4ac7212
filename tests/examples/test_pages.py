"""The pages of recipes: what they quote stands in the examples; what they show of its use works, and prints nothing."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from example_files import EXAMPLES, HOW_TO, code_blocks
from faulty_server import FaultyServer

PAGES = sorted(HOW_TO.glob("recipes-*.md"))
SOURCES = [path.read_text("utf-8") for path in EXAMPLES.glob("*.py")]


@pytest.fixture
def _examples_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules, root = set(sys.modules), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    root.handlers[:], root.level = handlers, level  # one of them configures logging
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()
    for name in set(sys.modules) - modules:
        if (EXAMPLES / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.usefixtures("_examples_can_be_imported")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_quoted_is_in_an_example_and_what_is_not_works_and_prints_nothing(
    page: Path, server: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = {"__name__": page.stem}
    blocks = code_blocks(page)
    assert blocks
    for block in blocks:
        if any(block in source for source in SOURCES):
            continue
        for module in re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE):
            pytest.importorskip(module, reason="needs the extra recipes: pip install -e .[test,recipes]")
        exec(compile(block.replace("https://api.example/", server.url), str(page), "exec"), namespace)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("with_*.py")), ids=lambda path: path.stem)
def test_every_recipe_has_its_page(example: Path) -> None:
    assert any(f"(../examples/{example.name})" in page.read_text("utf-8") for page in PAGES)
