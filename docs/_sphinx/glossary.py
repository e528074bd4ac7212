"""Link the first use of a term on each page to its entry in the glossary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from . import may_link

GLOSSARY = "reference/glossary"
FILE = Path(__file__).parents[1] / f"{GLOSSARY}.md"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def link_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Link what a reader of this page meets for the first time."""
    page = app.env.docname
    if page == GLOSSARY:
        return
    app.env.note_dependency(str(FILE))
    met: set[str] = set()
    for text in list(doctree.findall(nodes.Text)):
        if may_link(text):
            text.parent.replace(text, list(_linked(text.astext(), met, page)))


def _linked(text: str, met: set[str], page: str) -> Iterator[nodes.Node]:
    """Yield the text in parts, with a link for each term that is not among those met before."""
    end = 0
    for found in _pattern().finditer(text):
        anchor = _terms()[" ".join(found[1].lower().split())]
        if anchor not in met:
            met.add(anchor)
            yield nodes.Text(text[end : found.start()])
            link = addnodes.pending_xref(refdomain="doc", reftype="myst", reftarget=GLOSSARY, reftargetid=anchor)
            link.attributes |= {"refdoc": page, "refexplicit": True}
            link += nodes.inline("", found[0])
            yield link
            end = found.end()
    yield nodes.Text(text[end:])


@cache
def _terms() -> dict[str, str]:
    """Return the anchor of each term: its heading in the glossary, which may name several forms, split by commas."""
    return {
        form.lower(): re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^### (.+)$", FILE.read_text("utf-8"), re.MULTILINE)
        for form in heading.split(", ")
    }


@cache
def _pattern() -> re.Pattern[str]:
    """Match each form, also in the plural, the longest first; but not the name of a library with its version."""
    longest_first = sorted(_terms(), key=len, reverse=True)
    alternatives = "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in longest_first)
    return re.compile(rf"(?<![\w-])({alternatives})s?(?![\w-]| \d)", re.IGNORECASE)
