"""Which unsettled calls this code is inside of: one stack for every context, shared by all breakers.

Threads have a context each, and every task has a copy of the one it was made in. So what is entered here is seen by the
tasks made inside, and a frame can only be ended once, wherever that is.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from .states import Asker, Permission, Probe

OPEN_BLOCKS_REMEMBERED: Final = 1_000


class Frame:
    """One call or `with` block of one owner. When it is over, the owner is None, so that it keeps no breaker alive."""

    __slots__ = ("depth", "outer", "owner", "permission", "started")

    depth: int
    outer: Frame | None
    owner: object | None
    permission: Permission
    started: float

    def forget(self) -> None:
        """Forget what is over in the middle of the stack, and then the oldest if too many are left."""
        frames: list[Frame] = []
        frame: Frame | None = self
        while frame is not None and len(frames) < OPEN_BLOCKS_REMEMBERED:
            frames.append(frame)
            frame.outer = outer = _living(frame.outer)
            frame = outer
        frames[-1].outer = None
        for depth, kept in enumerate(reversed(frames), 1):
            kept.depth = depth


stack: ContextVar[Frame | None] = ContextVar("circuit_breaker_stack", default=None)
innermost, enter = stack.get, stack.set  # bound once: it is half of what they cost


def push(owner: object, permission: Permission, started: float) -> Frame:
    """Enter a call or block."""
    outer = innermost()
    while outer is not None and outer.owner is None:
        outer = outer.outer
    frame = Frame()  # filled in here: a constructor would be one more call for every block
    frame.owner = owner
    frame.permission = permission
    frame.started = started
    frame.outer = outer
    if outer is None:
        frame.depth = 1
    else:
        frame.depth = outer.depth + 1
        if frame.depth > OPEN_BLOCKS_REMEMBERED:
            frame.forget()
    enter(frame)
    return frame


def end(frame: Frame) -> None:
    """Leave a call or block, in any order and context. Those above it stay."""
    frame.owner = None
    top = innermost()
    if top is not None and top.owner is None:
        enter(_living(top))


def _living(frame: Frame | None) -> Frame | None:
    while frame is not None and frame.owner is None:
        frame = frame.outer
    return frame


def innermost_block(owner: object) -> Frame | None:
    """Return the last `with` block of this owner that was entered in this context and not yet left."""
    frame = innermost()
    while frame is not None and not (frame.owner is owner and _of_block(frame.permission)):
        frame = frame.outer
    return frame


def _of_block(permission: Permission) -> bool:
    return type(permission) is not Probe or permission.asker is Asker.BLOCK


def unsettled_probes(owner: object) -> tuple[Probe, ...]:
    """Return the unsettled probes of this owner that this code is inside of, the innermost first."""
    found: list[Probe] = []
    frame = innermost()
    while frame is not None:
        if frame.owner is owner and type(frame.permission) is Probe and not frame.permission.settled:
            found.append(frame.permission)
        frame = frame.outer
    return tuple(found)
