"""What an editor shows of the decorators: every argument, with its default as a value.

The answers are those of the language server of basedpyright, which shares its hover with Pylance, the one of VS Code.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import IO, Any

import pytest

import circuit_breaker

SERVER = Path(sys.executable).with_name("basedpyright-langserver")
LONGER_THAN_IT_TAKES_S = 60
DECORATORS = ("bulkhead", "circuit_breaker", "retry")
PROGRAM = """\
from circuit_breaker import bulkhead, circuit_breaker, retry

@{decorator}{arguments}
def function() -> int:
    return 1
"""


class Editor:
    """As much of the Language Server Protocol as it takes to hover over a word."""

    def __init__(self, to: IO[bytes], answers: IO[bytes], folder: Path) -> None:
        self._to, self._answers, self._folder = to, answers, folder
        self._number = 0
        root = {"name": "it", "uri": folder.as_uri()}
        capabilities = {"textDocument": {"hover": {"contentFormat": ["markdown"]}}}
        self._ask("initialize", {"processId": None, "workspaceFolders": [root], "capabilities": capabilities})
        self._send({"method": "initialized", "params": {}})

    def hover(self, program: str, line: int) -> str:
        """Return what is shown over the first word after the @ of this line."""
        self._number += 1
        uri = (self._folder / f"program{self._number}.py").as_uri()
        document = {"uri": uri, "languageId": "python", "version": 1, "text": program}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        place = {"textDocument": {"uri": uri}, "position": {"line": line, "character": 2}}
        shown: str = self._ask("textDocument/hover", place)["contents"]["value"]
        return shown

    def _ask(self, method: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": parameters})
        while True:
            message = self._receive()
            if "method" in message and "id" in message:  # it asks us
                self._send({"id": message["id"], "result": None})
            elif message.get("id") == self._number:
                return message["result"]

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._to.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._to.flush()

    def _receive(self) -> dict[str, Any]:
        length = 0
        for line in iter(self._answers.readline, b"\r\n"):
            assert line, "the language server has ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(self._answers.read(length))
        return message


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    folder = tmp_path_factory.mktemp("editor")
    source = Path(circuit_breaker.__file__).parents[1]
    (folder / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(source)]}), "utf-8")
    with subprocess.Popen(
        [SERVER, "--stdio"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        alarm = Timer(LONGER_THAN_IT_TAKES_S, server.kill)
        alarm.start()
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Editor(server.stdin, server.stdout, folder)
        finally:
            alarm.cancel()
            server.kill()


@pytest.mark.parametrize("arguments", ["", "()"])
@pytest.mark.parametrize("decorator", DECORATORS)
def test_hovering_shows_every_argument_with_its_default_as_a_value(
    editor: Editor, decorator: str, arguments: str
) -> None:
    shown = editor.hover(PROGRAM.format(decorator=decorator, arguments=arguments), line=2)
    defaults = dict(re.findall(r"^ {4}(\w+): .+ = (.+?),?$", shown, re.MULTILINE))
    assert list(defaults) == list(inspect.signature(getattr(circuit_breaker, decorator)).parameters)
    names = {default for default in defaults.values() if re.match(r"[A-Za-z_.]", default)}
    assert names <= {"None", "True", "False", "CircuitMode.AUTO", "time.monotonic", "retry_after_hint"}


@pytest.mark.parametrize("decorator", DECORATORS)
def test_hovering_shows_what_the_arguments_mean(editor: Editor, decorator: str) -> None:
    shown = editor.hover(PROGRAM.format(decorator=decorator, arguments="()"), line=2)
    assert inspect.getdoc(getattr(circuit_breaker, decorator)).splitlines()[0] in shown
