"""`python -m circuit_breaker`: the demonstration; with the name of a command first, that command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from circuit_breaker._terminal import CANNOT_WRITE, INTERRUPTED, PROGRAM, WRONG_ARGUMENTS, OutputError, discard

# The module and the function of each command, loaded when it is asked for; without a name it is the demonstration.
COMMANDS: Final = {
    "": ("circuit_breaker._demo.command", "main"),
    "console": ("circuit_breaker.console.command", "console"),
    "watch": ("circuit_breaker.console.command", "watch"),
    "replay": ("circuit_breaker.insight.command", "replay"),
    "simulate": ("circuit_breaker.insight.command", "simulate"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    name = given.pop(0) if given and not given[0].startswith("-") else ""
    if name not in COMMANDS:
        known = ", ".join(filter(None, COMMANDS))
        print(f"{PROGRAM}: {name!r} is not a command: there are {known}", file=sys.stderr)  # noqa: T201 - it is a program
        return WRONG_ARGUMENTS
    module, function = COMMANDS[name]
    try:
        status: int = getattr(import_module(module), function)(given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the pipe has gone, so nobody reads a message
        discard(sys.stdout)
        return 1
    except OutputError as error:
        discard(sys.stdout)
        print(f"{PROGRAM}: cannot write: {error}", file=sys.stderr)  # noqa: T201 - it is a program
        return CANNOT_WRITE
    return status


if __name__ == "__main__":
    sys.exit(main())
