"""Calls as columns: their order, and what is counted over it."""

from __future__ import annotations

from array import array

from call_by_call import circuit

from circuit_breaker.insight.calls import FAILURE, IGNORED, SUCCESS, Calls, Circuit, Log

MIXED = circuit((0.0, 5.0, SUCCESS), (1.0, 1.0, FAILURE), (2.0, 0.0, IGNORED), (2.0, 4.0, SUCCESS), (3.0, 0.5, SUCCESS))


def test_calls_end_in_the_order_of_ends_then_of_beginnings() -> None:
    assert list(MIXED.ends) == [2.0, 2.0, 3.5, 5.0, 6.0]
    assert list(MIXED.order) == [1, 2, 4, 0, 3]
    assert list(MIXED.rank) == [3, 0, 1, 4, 2]


def test_successes_and_answers_are_counted_up_to_each_rank() -> None:
    assert list(MIXED.successes) == [0, 0, 0, 1, 2, 3]
    assert list(MIXED.answers()) == [0, 1, 1, 2, 3, 4]
    assert list(circuit((0.0, 1.0, SUCCESS), (1.0, 1.0, FAILURE)).answers()) == [0, 1, 2]


def test_marks_are_failures_and_slow_successes() -> None:
    assert list(MIXED.marks()) == [0]
    assert list(MIXED.marks(4.0)) == [0, 3, 4]
    assert MIXED.marks(4.0) is MIXED.marks(4.0)


def test_calls_are_found_by_their_time() -> None:
    calls = MIXED.calls
    assert (calls.at(2.0), calls.at(2.5)) == (2, 4)
    assert calls.between(1.0, 2.0) == (1, 4)
    assert list(calls.cut(1, 3).begin) == [1.0, 2.0]
    assert calls.failures() == b"\0\1\0\0\0"


def test_a_log_is_as_long_as_from_the_first_beginning_to_the_last() -> None:
    calls = Calls(array("d", [0.0, 7.0]), array("d", [1.0, 9.0]), bytearray(2))
    assert Log("name", 1000.0, calls, [Circuit(calls)]).length_s == 7.0
