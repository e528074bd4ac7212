"""Marks for tests that need something of the system."""

from __future__ import annotations

import os
import signal
import sys

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
needs_timer = pytest.mark.skipif(
    not hasattr(signal, "setitimer") or sys.gettrace() is not None,
    reason="no interval timer here, or a tracer whose own locks an interrupt would leave held",
)
