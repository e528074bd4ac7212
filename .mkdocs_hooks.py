"""What the site does beyond MkDocs: show files of the repository that pages link to, and miss no public name."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

import circuit_breaker
from circuit_breaker import testing

REPOSITORY = Path(__file__).parent
LINK = re.compile(r"\]\((?P<path>(?:\.\./)+[\w./-]+)(?:#(?P<name>\w+))?\)")
API = "reference/api.md"

log = logging.getLogger("mkdocs.hooks")  # a warning here fails a strict build


def on_files(files: Any, config: Any) -> Any:
    """Add a page for every file outside of docs that a page of docs links to."""
    linked: dict[str, set[str]] = {}
    for page in files.documentation_pages():
        for link in LINK.finditer(page.content_string):
            path = _outside(page.src_uri, link["path"])
            if path is not None:
                linked.setdefault(path, set()).add(link["name"] or "")
    for path, names in linked.items():
        files.append(File.generated(config, _shown(path), content=_page(path, names - {""})))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links out of docs to those pages, and ask for every public name in the API."""
    if page.file.src_uri == API:
        wanted = [f"circuit_breaker.{name}" for name in circuit_breaker.__all__]
        wanted += [f"circuit_breaker.testing.{name}" for name in testing.__all__]
        for name in wanted:
            if not re.search(rf"^::: {re.escape(name)}$", markdown, re.MULTILINE):
                log.warning("%s: the public name %s is missing", API, name)
    return LINK.sub(lambda link: _rewritten(page.file.src_uri, link), markdown)


def _rewritten(page: str, link: re.Match[str]) -> str:
    path = _outside(page, link["path"])
    if path is None:
        return link[0]
    fragment = f"#{link['name']}" if link["name"] else ""
    return f"]({os.path.relpath(_shown(path), PurePosixPath(page).parent)}{fragment})"


def _outside(page: str, link: str) -> str | None:
    """Return the path in the repository of what lies outside of docs, else None."""
    path = os.path.normpath(PurePosixPath("docs", page).parent / link)
    return None if path.startswith("docs/") else path


def _shown(path: str) -> str:
    return f"source/{path}.md"


def _page(path: str, names: set[str]) -> str:
    """Return the file as code, with an anchor before each function or class of these names; a missing one is told."""
    file = REPOSITORY / path
    if not file.is_file():
        log.warning("there is no file %s", path)
        return ""
    page = f"# {path}\n\n````python\n"
    for part in re.split(r"(?<=\n)\n+(?=\S)", file.read_text("utf-8")):
        name = re.search(r"^(?:async def|def|class) (\w+)", part, re.MULTILINE)
        if name is not None and name[1] in names:
            page += f'````\n\n<a id="{name[1]}"></a>\n\n````python\n'
        page += part.rstrip("\n") + "\n\n"
    return page + "````\n"
