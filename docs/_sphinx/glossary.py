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


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


@cache
def terms() -> dict[str, str]:
    """Return the anchor of each term: its heading in the glossary, which may name several forms, split by commas."""
    text = (Path(__file__).parents[1] / f"{GLOSSARY}.md").read_text("utf-8")
    return {
        form.lower(): re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^### (.+)$", text, re.MULTILINE)
        for form in heading.split(", ")
    }


def link_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Link what a reader of this page meets for the first time."""
    page = app.env.docname
    if page == GLOSSARY:
        return
    unused = dict(terms())
    for text in list(doctree.findall(nodes.Text)):
        if unused and may_link(text):
            text.parent.replace(text, list(linked(text.astext(), unused, page)))


def linked(text: str, unused: dict[str, str], page: str) -> Iterator[nodes.Node]:
    """Yield the text in parts, a link for each term that is in `unused`, and take it out of there."""
    found = pattern(frozenset(unused)).search(text)
    while found is not None:
        yield nodes.Text(text[: found.start()])
        anchor = unused[" ".join(found[1].lower().split())]
        for form in [form for form, its in unused.items() if its == anchor]:
            del unused[form]
        link = addnodes.pending_xref(refdomain="doc", reftype="myst", reftarget=GLOSSARY, reftargetid=anchor)
        link.attributes |= {"refdoc": page, "refexplicit": True}
        yield link.__iadd__(nodes.inline("", found[0]))
        text = text[found.end() :]
        found = pattern(frozenset(unused)).search(text) if unused else None
    yield nodes.Text(text)


@cache
def pattern(forms: frozenset[str]) -> re.Pattern[str]:
    """Match each form, also in the plural, the longest first; but not the name of a library with its version."""
    longest_first = sorted(forms, key=len, reverse=True)
    alternatives = "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in longest_first)
    return re.compile(rf"(?<![\w-])({alternatives})s?(?![\w-]| \d)", re.IGNORECASE)
