"""The states of a circuit: what each does with a call, and with the end of one.

One stay in one state is a period, an object of a class of its own. A state decides, then writes down: it reads what
there is, works out what follows without a lock, and takes the lock only to write, unless something it has read has
changed meanwhile; then it begins again. Under the lock nothing is called or made; `docs/development/design.md` tells
the reason.

To add a state, write a class, and say in the machine which period it follows.
"""

from .closed import Closed
from .half_open import HalfOpen, in_flight
from .open import ForcedOpen, Open
from .period import Asker, Book, LastFailure, Period, Permission, Probe, Unknown

__all__ = [
    "Asker",
    "Book",
    "Closed",
    "ForcedOpen",
    "HalfOpen",
    "LastFailure",
    "Open",
    "Period",
    "Permission",
    "Probe",
    "Unknown",
    "in_flight",
]
