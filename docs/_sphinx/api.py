"""Show signatures as a reader needs them, and link names in the pages to where they are explained."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from textwrap import indent
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import circuit_breaker

from . import may_link

API = "reference/api"
DECORATORS = {"bulkhead", "circuit_breaker", "retry"}  # words with other meanings, too: links only where there is an @
NAMES = {(f"@{name}" if name in DECORATORS else name): f"circuit_breaker.{name}" for name in circuit_breaker.__all__}

MADE_HERE = {"circuit_breaker.Attempt", "circuit_breaker.Permit"}
circuit_breaker.Attempt.__signature__ = inspect.Signature()  # type: ignore[attr-defined]  # an int has none to hide


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-before-process-signature", name_defaults)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("autodoc-process-docstring", translate_markdown)
    app.connect("doctree-read", keep_the_full_signature)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Shown:
    """A default that is shown in these words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __repr__(self) -> str:
        return self.words


def name_defaults(app: Sphinx, function: Any, bound: bool) -> None:
    """Show `time.monotonic`, `(Exception,)` and `...` where defaults are functions, types and an ellipsis."""
    function = getattr(function, "__func__", function)
    if inspect.isfunction(function):
        signature: Any = inspect.signature(function)
        parameters = [one.replace(default=_shown(one.default)) for one in signature.parameters.values()]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]


def _shown(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return default
    if default is ...:
        return Shown("...")
    if isinstance(default, tuple) and any(isinstance(one, type) for one in default):
        return tuple(_shown(one) for one in default)
    if isinstance(default, type) or inspect.isroutine(default):
        at_home = default.__module__ in ("builtins", None) or default.__module__.startswith("circuit_breaker")
        return Shown(default.__qualname__ if at_home else f"{default.__module__}.{default.__qualname__}")
    return default


def tidy_signature(
    app: Sphinx, kind: str, name: str, found: Any, options: Any, arguments: str | None, returned: str | None
) -> tuple[str, str] | None:
    """Hide the arguments of what callers never make themselves, and show names of types as they are written."""
    if kind == "class" and (issubclass(found, Enum) or name in MADE_HERE):
        return "", ""
    return (_readable(arguments), _readable(returned or "")) if arguments else None


def _readable(types: str) -> str:
    types = re.sub(r"Setting\[([^,\]]+), [^\]]+\]", r"\1", types)  # what it takes, not as what it is read
    types = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", types)
    return re.sub(r"~(?:\w+\.)*_([A-Z])", r"\1", types)  # type variables


def translate_markdown(app: Sphinx, kind: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Turn code blocks and tables of Markdown, which editors show, into those of Sphinx."""
    text = "\n".join(lines)
    text = re.sub(r"^( *)```python\n(.*?)^ *```$", _code, text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^( *)\|.*\n *\|[ |:-]+\|\n(?: *\|.*\n?)+", _table, text, flags=re.MULTILINE)
    lines[:] = text.split("\n")


def _code(block: re.Match[str]) -> str:
    return f"{block[1]}.. code-block:: python\n\n" + indent(block[2], "    ")


def _table(table: re.Match[str]) -> str:
    head, _, *rows = table[0].strip().split("\n")
    text = ".. list-table::\n   :header-rows: 1\n\n"
    for row in (head, *rows):
        first, *others = (cell.strip() for cell in row.strip().strip("|").split("|"))
        text += f"   * - {first}\n" + "".join(f"     - {cell}\n" for cell in others)
    return indent(text, table[1]) + "\n"


def keep_the_full_signature(app: Sphinx, doctree: nodes.document) -> None:
    """Of overloads, show the one with most parameters: the others are for type checkers, and say less."""
    for description in doctree.findall(addnodes.desc):
        signatures = [one for one in description.children if isinstance(one, addnodes.desc_signature)]
        if len(signatures) > 1:
            full = max(signatures, key=lambda one: len(list(one.findall(addnodes.desc_parameter))))
            full.update_all_atts(signatures[0])  # its anchor
            for one in signatures:
                if one is not full:
                    description.remove(one)


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
