"""Turn plain Markdown into what Sphinx expects: navigation, titles of code blocks, links to files outside of docs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge
from sphinx.util import logging

DOCS = Path(__file__).parents[1]
REPOSITORY = DOCS.parent
TITLE = re.compile(r'^```python title="(?P<title>[^"]+)"$', re.MULTILINE)
LINK = re.compile(r"\]\((?P<path>[\w./-]+)(?:#(?P<name>[\w-]+))?\)")
SCHEME = "repository:"
LANGUAGES = {".md": "markdown", ".py": "python", ".toml": "toml", ".yaml": "yaml"}

log = logging.getLogger(__name__)  # a warning here fails a strict build


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("navigation", {}, "env")
    app.connect("source-read", prepare)
    app.connect("doctree-read", link_to_files)
    app.connect("html-collect-pages", pages_of_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def prepare(app: Sphinx, page: str, source: list[str]) -> None:
    """Add what would look strange where Markdown is read as it is."""
    text = LINK.sub(lambda link: _marked(page, link), source[0])
    text = TITLE.sub(r"```{code-block} python\n:caption: \g<title>\n", text)
    if page == app.config.root_doc:
        for group, titles in app.config.navigation.items():
            entries = "\n".join(f"{title} <{name}>" for title, name in titles.items())
            text += f"\n```{{toctree}}\n:hidden:\n:caption: {group}\n\n{entries}\n```\n"
    source[0] = text


def _marked(page: str, link: re.Match[str]) -> str:
    path = _elsewhere(page, link["path"])
    return link[0] if path is None else f"]({SCHEME}{path}#{link['name'] or ''})"


def _elsewhere(page: str, link: str) -> str | None:
    """Return the path in the repository of a file that Sphinx does not know; None for pages and pictures."""
    path = PurePosixPath(os.path.normpath(PurePosixPath("docs", page).parent / link))
    known = path.parts[0] == "docs" and path.suffix in (".md", ".png", ".svg")
    return None if known else str(path)


def link_to_files(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to files of the repository lead to the pages that show them."""
    here = PurePosixPath(app.env.docname).parent
    for link in doctree.findall(nodes.reference):
        target = link.get("refuri", "")
        if target.startswith(SCHEME):
            path, _, name = target.removeprefix(SCHEME).partition("#")
            if not (REPOSITORY / path).is_file():
                log.warning("there is no file %s", path, location=link)
            link["refuri"] = os.path.relpath(f"{_shown(path)}.html", here) + (f"#{name}" if name else "")


def _shown(path: str) -> str:
    return f"source/{path}"


def pages_of_files(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Make a page for each file of the repository that a page links to."""
    linked: dict[str, set[str]] = {}
    for page in app.env.found_docs:
        for link in LINK.finditer(Path(app.env.doc2path(page)).read_text("utf-8")):
            path = _elsewhere(page, link["path"])
            if path is not None:
                linked.setdefault(path, set()).add(link["name"] or "")
    highlighter: PygmentsBridge = app.builder.highlighter  # type: ignore[attr-defined]
    for path, names in linked.items():
        if (REPOSITORY / path).is_file():
            body = _body(path, names - {""}, highlighter)
            yield _shown(path), {"title": path, "body": f"<h1>{escape(path)}</h1>\n{body}"}, "page.html"


def _body(path: str, names: set[str], highlighter: PygmentsBridge) -> str:
    """Return the file as HTML, with an anchor at each function or class that is linked."""
    text = (REPOSITORY / path).read_text("utf-8")
    lines = highlighter.highlight_block(text, LANGUAGES.get(PurePosixPath(path).suffix, "text")).split("\n")
    for name in sorted(names):
        definition = re.search(rf"^[ ]*(?:async def|def|class) {name}\b", text, re.MULTILINE)
        if definition is None:
            log.warning("there is no %s in %s", name, path)
        else:
            line = text.count("\n", 0, definition.start())
            lines[line] = f'<span id="{name}"></span>{lines[line]}'
    return "\n".join(lines)
