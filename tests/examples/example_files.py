"""Loads the example programs of the documentation, and the code on its pages."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
HOW_TO = EXAMPLES.parent / "how-to"
_BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path) -> list[str]:
    """Return the code of a page, but for what a test runner of documentation runs."""
    return _BLOCK.findall(page.read_text("utf-8"))


def example(name: str, instead: tuple[str, str] | None = None) -> ModuleType:
    """Run an example as a module of its own; `instead` is a line of it, and the line to run in its place."""
    path = EXAMPLES / f"{name}.py"
    source = path.read_text("utf-8")
    if instead is not None:
        assert instead[0] in source
        name, source = f"{name} with {instead[1]}", source.replace(*instead)
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(EXAMPLES))  # an example may import another
        try:
            exec(compile(source, str(path), "exec"), vars(module))
        finally:
            sys.path.remove(str(EXAMPLES))
    return sys.modules[name]
