"""Choose the settings of a breaker from one's own traffic: record calls, replay them, simulate.

==================  ====================================================================================
``call_log``        a listener that records calls: `CallLog`
``calls``           calls as columns of numbers, and the order in which they end
``reading``         logs of calls as files: JSON Lines, tables, lines that match a pattern
``replay``          what a breaker would have done; only this module knows the state machine
``outages``         where a log has outages, and what ordinary times are like
``figures``         what a setting would have done, in figures
``made``            outages that are made, to try settings on
``recommend``       settings derived from a log
``study``           all of this about one log
``report``          the findings as a page, as text and as data
``simulate``        a model of a service under load, with and without a breaker
``command``         the commands `replay` and `simulate`
==================  ====================================================================================
"""

from .call_log import CallLog

__all__ = ["CallLog"]
