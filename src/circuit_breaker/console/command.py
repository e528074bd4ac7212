"""`python -m circuit_breaker console` and `... watch`: what they are asked, and what they print."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from .._terminal import Arguments
from . import screen
from .application import Application, checked_token
from .server import Server, is_loopback
from .sources import Source, opened
from .watcher import INTERVAL_S, Watcher

PORT: Final = 8765
CONSOLE: Final = "python -m circuit_breaker console"
ABOUT_CONSOLE: Final = """\
Serve a page that shows every circuit of a store, and reads it once a second.
Only browsers on this machine reach it, unless you say otherwise.
"""
AFTER_CONSOLE: Final = """\
The page only shows, unless --control is given: then whoever has the token may
force a circuit open or closed, end that, and reset it, for all processes. The
token is part of the second address that is printed. Every order is printed.

exit status:
  2    there is something wrong with the arguments, or the port is in use
  130  ended by Ctrl-C
"""
WATCH: Final = "python -m circuit_breaker watch"
ABOUT_WATCH: Final = """\
Show every circuit of a store in the terminal, once a second. Where the output
is no terminal, it has a line for each circuit, and one whenever one changes.
"""
AFTER_WATCH: Final = """\
Colours are for terminals, and not used when NO_COLOR is set.

exit status:
  0    with --once: the circuits are shown
  1    with --once: the store could not be read
  2    there is something wrong with the arguments
  130  ended by Ctrl-C
"""
STORE: Final = "sqlite:PATH of the file that your processes share, or the address of their Redis, redis://HOST"


def console(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C ends it."""
    parser = _console_arguments()
    given = parser.parse_args(arguments)
    try:
        source, token = _opened(given), _token(given)
        if not (is_loopback(given.address) or given.public):
            raise ValueError(
                f"other machines reach {given.address}, and whoever reaches the page sees all circuits: "
                "say --public as well if that is meant"
            )
        watcher = Watcher(source.store)
        application = Application(watcher, token, source.label)
        server = Server(given.address, given.port, application, given.name, given.public)
    except (OSError, ValueError) as error:
        parser.error(_cause(error, given))
    ended: SimpleQueue[None] = SimpleQueue()
    with server:
        watcher.look()  # so that the first browser finds something
        _announce(server, source, token, given)
        Thread(target=_look_until, args=(ended, watcher), name="circuit-breaker-console", daemon=True).start()
        try:
            server.run()
        finally:
            ended.put(None)
    return 0


def watch(arguments: Sequence[str]) -> int:
    """Show the circuits in the terminal."""
    parser = Arguments(WATCH, ABOUT_WATCH, AFTER_WATCH)
    _add_store(parser)
    parser.add_argument("--once", action="store_true", help="show all circuits as they are now, and end")
    parser.add_argument("--plain", action="store_true", help="lines, as when the output is no terminal")
    given = parser.parse_args(arguments)
    try:
        source = _opened(given)
    except ValueError as error:
        parser.error(str(error))
    shown = screen.screen(sys.stdout, given.plain, os.environ)
    watcher = Watcher(source.store)
    if given.once:
        view = watcher.look()
        shown.show_once(view, source.label)
        return 0 if view.error is None else 1
    while True:
        shown.show(watcher.look(), source.label)
        time.sleep(INTERVAL_S)


def _look_until(ended: SimpleQueue[None], watcher: Watcher) -> None:
    while True:
        try:
            return ended.get(timeout=INTERVAL_S)
        except Empty:
            watcher.look()


# Arguments


def _console_arguments() -> Arguments:
    parser = Arguments(CONSOLE, ABOUT_CONSOLE, AFTER_CONSOLE)
    _add_store(parser)
    parser.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"default: {PORT}; 0: any that is free")
    parser.add_argument("--control", action="store_true", help="take orders from whoever has the token")
    parser.add_argument(
        "--token-file", metavar="FILE", help="the token is in this file; else a new one is made, and printed"
    )
    network = parser.add_argument_group("reachable from elsewhere")
    network.add_argument("--address", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    network.add_argument("--public", action="store_true", help="the address may be one that other machines reach")
    network.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a host name in the address of browsers, such as that of a proxy in front; may be repeated",
    )
    return parser


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help=STORE)
    parser.add_argument("--prefix", help="of the keys in Redis, if your processes give one to RedisStore")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"takes a number from 0 to 65535, got {text!r}")
    return int(text)


def _opened(given: argparse.Namespace) -> Source:
    return opened(given.store, given.prefix)


def _token(given: argparse.Namespace) -> str | None:
    if given.token_file is None:
        return secrets.token_urlsafe(24) if given.control else None
    if not given.control:
        raise ValueError("--token-file is for --control")
    try:
        text = Path(given.token_file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the token: {error}") from None
    return checked_token("--token-file", text)


def _cause(error: Exception, given: argparse.Namespace) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"cannot listen at {given.address} port {given.port}: {error.strerror or error}; --port takes another one"


def _announce(server: Server, source: Source, token: str | None, given: argparse.Namespace) -> None:
    lines = [f"The circuits of {source.label}: {server.url}"]
    if token is not None:
        shown = "TOKEN, which is in the file" if given.token_file else token
        lines.append(f"To give orders, open: {server.url}#token={shown}")
        _print_orders()
    if given.public:
        lines.append(
            "Other machines reach this page, and nothing is encrypted: put a proxy with TLS and a login in front."
        )
    lines.append("Ctrl-C ends it.")
    print("\n".join(lines), flush=True)  # noqa: T201 - what a command is for


def _print_orders() -> None:
    """Print every order that is given, as the application logs it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("circuit_breaker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
