"""Show signatures as a reader needs them, and link names in the pages to where they are explained."""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import circuit_breaker

from . import may_link

API = "reference/api"
DECORATORS = {"bulkhead", "circuit_breaker", "retry"}  # words with other meanings, too: links only where there is an @
NAMES = {
    (f"@{name}" if name in DECORATORS else name): f"circuit_breaker.{name}" for name in circuit_breaker.__all__
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-before-process-signature", name_functions)
    app.connect("autodoc-process-docstring", translate_code_blocks)
    app.connect("doctree-read", keep_the_full_signature)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Name:
    """A default that is shown by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def name_functions(app: Sphinx, function: Any, bound: bool) -> None:
    """Show `time.monotonic` where a default is that function."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    parameters = [
        parameter.replace(default=Name(_name(parameter.default)))
        if inspect.isroutine(parameter.default)
        else parameter
        for parameter in signature.parameters.values()
    ]
    if parameters != [*signature.parameters.values()]:
        function.__signature__ = signature.replace(parameters=parameters)


def _name(function: Any) -> str:
    module = function.__module__
    return function.__qualname__ if module.startswith("circuit_breaker") else f"{module}.{function.__qualname__}"


def translate_code_blocks(app: Sphinx, kind: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Turn the fenced blocks of Markdown, which editors show, into those of Sphinx."""
    inside = False
    for number, line in enumerate(lines):
        if line.strip().startswith("```"):
            inside = not inside
            lines[number] = line.replace("```python", ".. code-block:: python\n") if inside else ""
        elif inside:
            lines[number] = f"    {line}"
    lines[:] = "\n".join(lines).split("\n")


def keep_the_full_signature(app: Sphinx, doctree: nodes.document) -> None:
    """Of overloads, show the last one: the others are for type checkers, and say less."""
    for description in doctree.findall(addnodes.desc):
        for signature in [one for one in description.children if isinstance(one, addnodes.desc_signature)][:-1]:
            description.remove(signature)


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Link the first mention of each public name on a page, and each `api.md#circuit_breaker.Name`, to the API."""
    for link in doctree.findall(addnodes.pending_xref):
        if link.get("refdomain") == "doc" and link["reftarget"] == API and link.get("reftargetid"):
            link.attributes |= {"refdomain": "py", "reftype": "obj", "reftarget": link["reftargetid"], "refwarn": True}
    page, missing = app.env.docname, dict(NAMES)
    if page == API:
        return  # where docstrings mention a name, Sphinx links it
    for code in list(doctree.findall(nodes.literal)):
        text = code.astext().removesuffix("()")
        if text in missing and may_link(code):
            target = missing.pop(text)
            link = addnodes.pending_xref(refdomain="py", reftype="obj", reftarget=target, refdoc=page, refwarn=True)
            code.replace_self(link)
            link += code
