"""Marks for tests that need something of the system."""

from __future__ import annotations

import os
import signal
import sys

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

CPYTHON = sys.implementation.name == "cpython"

needs_reference_counts = pytest.mark.skipif(
    not CPYTHON, reason="only CPython counts references, and finalizes at once what nobody refers to"
)
needs_exceptions_without_attributes = pytest.mark.skipif(
    not CPYTHON, reason="PyPy looks at attributes of what is raised, and raises what that raises instead"
)
needs_counted_memory = pytest.mark.skipif(not CPYTHON, reason="PyPy does not say how much memory is in use")
needs_closed_coroutines = pytest.mark.skipif(
    not CPYTHON, reason="PyPy does not close a coroutine that is dropped, not even when it is collected"
)
needs_context_of_what_is_thrown = pytest.mark.skipif(
    not CPYTHON, reason="PyPy gives no context to what asyncio throws into a coroutine that handles an error"
)
needs_moments = pytest.mark.skipif(not CPYTHON, reason="PyPy lets interrupts come between any two instructions")
needs_timer = pytest.mark.skipif(
    not CPYTHON or not hasattr(signal, "setitimer") or sys.gettrace() is not None,
    reason="interrupts may come between any two instructions here (PyPy), there is no interval timer, or there is a "
    "tracer whose own locks an interrupt would leave held",
)
