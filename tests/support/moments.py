"""Ctrl-C at every moment at which CPython runs signal handlers, one after another."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any

from places import PACKAGE


@cache
def _operations(code: CodeType) -> dict[int, str]:
    return {each.offset: each.opname for each in dis.get_instructions(code)}


def interrupt_at(moment: int, body: Callable[[], object], inside: str | tuple[str, ...] = PACKAGE) -> bool:
    """Run body, with a KeyboardInterrupt at moment number `moment` of our code (the first is 1); False: it has fewer.

    CPython looks for signals at the entry of a Python function, when a generator is resumed, after a call of C code and
    at the jump back of a loop. No interrupt comes anywhere else.
    """
    moments = 0
    after_call: set[int] = set()  # the ids of frames, which are not kept alive

    def pass_moment() -> None:
        nonlocal moments
        moments += 1
        if moments == moment:
            raise KeyboardInterrupt

    def trace_code(frame: FrameType, event: str, _: Any) -> Any:
        if event == "exception":
            after_call.discard(id(frame))  # the call failed, after which CPython does not look
        elif event == "opcode":
            operation = _operations(frame.f_code).get(frame.f_lasti, "")
            is_moment = id(frame) in after_call or operation == "JUMP_BACKWARD"
            after_call.discard(id(frame))
            if operation.startswith("CALL"):
                after_call.add(id(frame))
            if is_moment:
                pass_moment()
        return trace_code

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        # What was called is Python code, after which CPython does not look; and another frame may have had this id.
        after_call.difference_update((id(frame.f_back), id(frame)))
        if not frame.f_code.co_filename.startswith(inside):
            return None
        frame.f_trace_opcodes = True
        if _operations(frame.f_code).get(frame.f_lasti) == "RESUME":
            pass_moment()
        return trace_code

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        body()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(tracing)
    return moments >= moment
