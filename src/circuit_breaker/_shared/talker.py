"""What talks to one store for one process: it exchanges, changes records, and knows when the store is away."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from .._common import fork
from .._common.events import INFO, WARNING, log, notify
from .circuit import AWAY_AFTER_INTERVALS, LONGEST_PAUSE_INTERVALS, Circuit
from .events import StoreFound, StoreLost
from .identity import member_of
from .link import Demand, Link, machine_of
from .protocol import MemberLine, Store, member_text
from .record import Edit, Record, Step, printable
from .states import Answer
from .store import whoami
from .worker import DEBUG, Reply, Work, Worker

if TYPE_CHECKING:
    from .._breaker.breaker import CircuitBreaker

LEASE_INTERVALS: Final = 10
MEMBER_LASTS_INTERVALS: Final = 10
MEMBER_WRITTEN_INTERVALS: Final = 5
JITTER: Final = 0.05
LOOKS_AN_INTERVAL: Final = 12  # at the breakers, for failures that cannot wait until it is over


class Talker(Worker):
    """Talks to one store. Callers hand it work; all else happens on its thread.

    Attributes:
        name: of this process, for people.
        away: the store does not answer, so each breaker goes on by itself.
        heard_at: when it answered last, on the talker's clock.
    """

    def __init__(self, store: Store) -> None:
        given: Any = store
        self.store = store
        self.interval_s: float = getattr(given, "interval_s", 1.0)
        self.clock: Callable[[], float] = getattr(given, "clock", time.monotonic)
        self.lease_s = LEASE_INTERVALS * self.interval_s
        self._links: dict[fork.Reference, None] = {}  # to those of all breakers that are alive
        super().__init__(getattr(given, "timeout_s", 0.25), getattr(given, "manual", False))
        fork.survive(self)

    def _begin(self) -> None:
        """Be a member that nobody knows yet."""
        super()._begin()
        self.name = whoami()
        self.away = False
        self.heard_at: float | None = None
        self._who = member_of(self.store)
        self._key = f"{self.name}:{self._who}".encode("ascii", "replace").decode()
        self._began_at = self.clock()
        self._circuits: dict[str, Circuit] = {}
        self._waiting: list[Reply] = []  # for the next exchange
        self._due = -inf
        self._trying_since: float | None = None  # something has been asked of the store that has not succeeded yet
        self._pause_intervals = 1.0  # until the next exchange; it doubles while the store is away
        self._reason = ""  # why it was away last
        self._states: dict[str, str] = {}  # what this process has said of its circuits
        self._said_at = -inf

    def _after_fork_in_child(self) -> None:
        self._begin()

    # For callers

    def add(self, link: Link) -> None:
        """Know the link of a breaker, which nobody has called yet."""
        self._links[fork.Reference(link, self._links.__delitem__)] = None

    def links(self) -> list[Link]:
        """Return the links of all breakers that are alive."""
        return [link for reference in self._links.copy() if (link := reference()) is not None]

    def join(self, link: Link) -> bool:
        """Learn where a circuit is, which takes at most `timeout_s`; False: nothing can be learnt on this thread."""
        reply: Reply = SimpleQueue()
        if self.manual:
            with self._turn:
                self._join(link, reply)
                self._exchange_now()
            return True
        if self.here() or not self.request(partial(self._join, link, reply)):
            return False
        self.notice()
        if not self.away:
            self.wait(reply)
        return True

    def hangs(self) -> bool:
        """Tell whether the thread has not come back from the store for too long."""
        since = self._trying_since
        return since is not None and self.clock() - since > AWAY_AFTER_INTERVALS * self.interval_s

    def notice(self) -> None:
        """Notice that the thread has not come back from the store for too long."""
        if self.hangs() and not self.away:
            self._lose(f"no answer for more than {AWAY_AFTER_INTERVALS * self.interval_s:.3g} s")

    def has_lost(self, name: str) -> bool:
        """Tell whether nothing can be learnt of this circuit, though the store may answer."""
        circuit = self._circuits.get(name)
        return circuit is not None and circuit.lost is not None

    def circuit(self, name: str) -> Circuit | None:
        """Return what is known of a circuit, for a look at it."""
        return self._circuits.get(name)

    def sync(self) -> None:
        """Exchange now, for all breakers; raise what the store raised.

        Raises:
            RuntimeError: there is no thread for it.
        """
        links, reply = self.links(), Reply()
        work: list[Work] = [partial(self._join, link, Reply()) for link in links]
        work.append(partial(self._await, reply))
        if self.manual:
            with self._turn:
                self.do_all()
                self._do_each(work)
                self._exchange_now()
            _publish(self._changed())
            error = reply.get()
        else:
            error = self.insist(partial(self._do_each, work), reply)
        for link in links:
            breaker = link.breaker
            if breaker is not None:
                machine_of(breaker).join(self.works())  # a fork may have ended the thread
        if error is not None:
            raise error

    # Work, for the thread

    def _await(self, reply: Reply) -> None:
        """Exchange as soon as there is no other work, and tell whoever waits for that reply."""
        self._waiting.append(reply)  # to the list of this moment: each exchange begins another one
        self._due = -inf

    def _join(self, link: Link, reply: Reply) -> None:
        self._await(reply)
        self.activate(link)

    def _do_each(self, work: list[Work]) -> None:
        for each in work:
            self._do(each)

    def activate(self, link: Link) -> None:
        """Let the circuit of a breaker take part in exchanges, and send what there is to send."""
        breaker = link.breaker
        if breaker is not None:
            circuit = self._circuit(breaker.name)
            self._take_in(circuit, link)
            self._take_steps(circuit, circuit.urgent_steps())

    def send(self, name: str, answer: Answer) -> None:
        """Tell the store how a probe ended; if that fails now, it is sent after the next exchange."""
        circuit = self._circuit(name)
        circuit.add(answer)
        circuit.wake(self.clock())
        self._take_steps(circuit, circuit.urgent_steps())

    def want(self, link: Link, name: str, demand: Demand) -> None:
        """Do to the record what a breaker wants; if that fails now, it is tried again after the next exchange."""
        circuit = self._circuit(name)
        circuit.want(demand)
        self._take_in(circuit, link)
        self._take_steps(circuit, circuit.urgent_steps())

    def _take_in(self, circuit: Circuit, link: Link) -> None:
        breaker = link.breaker
        if breaker is not None and link not in circuit.links:
            circuit.links += (link,)
            if self.away or circuit.lost is not None:
                self._tell([breaker], StoreLost(breaker.name, circuit.lost or self._reason))
        circuit.wake(self.clock())

    def change(self, name: str, step: Step) -> tuple[Record | None, float]:
        """Change a record; return the one that stands, and the store's time."""
        circuit, edit = self._circuit(name), Edit(step)
        began_at = self._begin_to_try()
        try:
            self.store.update(name, edit)
        except BaseException as error:
            if circuit.fails(began_at):
                self._lose_circuit(circuit, error)
            raise
        self._trying_since = circuit.failing_since = None
        circuit.take(edit.record, edit.now)
        return edit.record, edit.now

    def farewell(self) -> None:
        """Send what must not be lost when the process ends."""
        if self.away:
            return
        circuits = self._active()
        self.store.exchange([circuit.report(self.clock()) for circuit in circuits], MemberLine(self._key, None))
        for circuit in circuits:
            self._take_steps(circuit, circuit.last_steps())

    def _circuit(self, name: str) -> Circuit:
        circuit = self._circuits.get(name)
        if circuit is None:
            circuit = self._circuits[name] = Circuit(
                name, self.name, self._who, self.clock, self.interval_s, self.lease_s
            )
        return circuit

    def _active(self) -> list[Circuit]:
        return [circuit for circuit in self._circuits.copy().values() if circuit.active]

    def _take_steps(self, circuit: Circuit, steps: Iterable[Step]) -> None:
        """Change the record; the first change that fails ends it, and after the next exchange there are steps again."""
        try:
            for step in steps:
                self.change(circuit.name, step)
        except Exception as error:
            log(DEBUG, "circuit %r: the store did not change the record", circuit.name, error=error)

    def _begin_to_try(self) -> float:
        now = self.clock()
        if self._trying_since is None:
            self._trying_since = now
        return now

    # Exchanges

    def _wait_s(self) -> float:
        looks_s = inf if self.away else self.interval_s / LOOKS_AN_INTERVAL
        return min(self._due - self.clock(), looks_s)

    def _is_idle(self) -> bool:
        return not self._waiting and not self._active()

    def _tick(self) -> None:
        """Exchange if it is time, or for circuits that cannot wait for that."""
        now = self.clock()
        if now >= self._due:
            self._exchange_now()
            return
        hurrying = [circuit for circuit in self._active() if circuit.hurries(now)]
        if hurrying:
            try:
                self._exchange(self._begin_to_try(), hurrying, None)
            except BaseException as error:
                self._fail(error)
            self._publish_elsewhere()

    def _exchange_now(self) -> None:
        """Report and learn; everybody who waits learns how that went."""
        now = self._begin_to_try()
        waiting, self._waiting = self._waiting, []
        failure: BaseException | None = None
        try:
            circuits = self._active()
            self._exchange(now, circuits, self._member_line(now, circuits))
        except BaseException as error:
            failure = error
            self._fail(error)
        finally:
            jitter = random.uniform(1.0 - JITTER, 1.0 + JITTER)  # noqa: S311 - no secret
            self._due = now + self.interval_s * self._pause_intervals * jitter
            for reply in waiting:
                reply.put(failure)
        self._let_rest(now)
        self._publish_elsewhere()

    def _exchange(self, now: float, circuits: list[Circuit], line: MemberLine | None) -> None:
        reports = [circuit.report(now) for circuit in circuits]
        answer = self.store.exchange(reports, line)
        if not self.manual and not self.here():
            return  # this thread has been given up
        self._succeed(now)
        for circuit, found in zip(circuits, answer.found, strict=True):
            try:
                circuit.receive(found, answer.time, now)
            except Exception as error:
                self._lose_circuit(circuit, error)
            else:
                self._find_circuit(circuit, now)
        for circuit in circuits:
            self._take_steps(circuit, circuit.steps(now))

    def _let_rest(self, now: float) -> None:
        """Do no more for circuits that nobody calls, or that have no breaker any more, whatever the store does."""
        if not self.manual and not self.here():
            return  # this thread has been given up
        for circuit in self._active():
            circuit.rest_if_silent(now)
            if not circuit.links and not (circuit.active and circuit.pending):
                del self._circuits[circuit.name]

    def _member_line(self, now: float, circuits: list[Circuit]) -> MemberLine | None:
        """Return what this process says of itself, if it has changed or was said long ago."""
        states = {circuit.name: circuit.own_state() for circuit in circuits}
        if states == self._states and now - self._said_at < MEMBER_WRITTEN_INTERVALS * self.interval_s:
            return None
        self._states, self._said_at = states, now
        return MemberLine(
            self._key, member_text(states, now - self._began_at, MEMBER_LASTS_INTERVALS * self.interval_s)
        )

    # Lost and found

    def _succeed(self, now: float) -> None:
        self._trying_since, self._pause_intervals, self.heard_at = None, 1.0, now
        if self.away:
            self.away = False
            log(INFO, "the store of shared circuits answers again")
            for circuit in self._circuits.values():
                self._tell(circuit.breakers(), StoreFound(circuit.name))

    def _fail(self, error: BaseException) -> None:
        if self.away:
            self._pause_intervals = min(2.0 * self._pause_intervals, LONGEST_PAUSE_INTERVALS)
        self._said_at = -inf
        since = self._trying_since
        if since is not None and self.clock() - since >= AWAY_AFTER_INTERVALS * self.interval_s:
            self._lose(_text(error))

    def _lose(self, reason: str) -> None:
        with self._lock:
            news, self.away, self._reason = not self.away, True, reason
        if news:
            log(WARNING, "the store of shared circuits is away, and each process goes on by itself: %s", reason)
            for circuit in self._circuits.copy().values():
                self._tell(circuit.breakers(), StoreLost(circuit.name, reason))

    def _lose_circuit(self, circuit: Circuit, error: BaseException) -> None:
        news, circuit.lost = circuit.lost is None, _text(error)
        if news:
            log(WARNING, "circuit %r: the store has nothing that can be used: %s", circuit.name, circuit.lost)
            self._tell(circuit.breakers(), StoreLost(circuit.name, circuit.lost))

    def _find_circuit(self, circuit: Circuit, now: float) -> None:
        if circuit.lost is not None and circuit.may_be_found(now):
            circuit.lost = None
            log(INFO, "circuit %r: the store can be used again", circuit.name)
            self._tell(circuit.breakers(), StoreFound(circuit.name))

    # Telling others, on a short-lived thread: a slow listener delays no exchange

    def _tell(self, breakers: list[CircuitBreaker], event: StoreFound | StoreLost) -> None:
        listeners = [listener for breaker in breakers for listener in breaker._listeners]
        if listeners:
            self._elsewhere(partial(notify, listeners, event))

    def _publish_elsewhere(self) -> None:
        changed = [] if self.manual else self._changed()
        if changed:
            self._elsewhere(partial(_publish, changed))

    def _changed(self) -> list[CircuitBreaker]:
        breakers = [breaker for circuit in self._circuits.copy().values() for breaker in circuit.breakers()]
        return [breaker for breaker in breakers if breaker._machine.changes or breaker._machine.undelivered]

    def _elsewhere(self, work: Work) -> None:
        if self.manual:
            work()
            return
        try:
            Thread(target=work, name="circuit-breaker-listeners", daemon=True).start()
        except RuntimeError as error:  # whoever looks at the breaker next finds what has changed
            log(DEBUG, "no thread can be started to notify listeners", error=error)


def _publish(breakers: list[CircuitBreaker]) -> None:
    for breaker in breakers:
        breaker._publish()


def _text(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}")
