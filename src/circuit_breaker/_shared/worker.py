"""One daemon thread that does the work that others hand it, one thing after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, get_ident
from typing import Final, TypeAlias

from .._common.events import log
from .._common.lock import RLock

DEBUG: Final = 10  # as logging has it
LONGEST_WAIT_S: Final = 3_600.0
MOST_WAITING: Final = 100  # pieces of work, where there is no thread and none can be started
INSISTING_S: Final = 0.05  # between two looks whether a fork has ended the thread

Work: TypeAlias = Callable[[], object]
Reply: TypeAlias = SimpleQueue[BaseException | None]


class Worker:
    """Starts its thread with the first work, and ends it when there is nothing left to do.

    Work is handed over by a `SimpleQueue`, which may be used by a destructor in the middle of itself; callers wait for
    replies in the same way. Where `manual` is set there is no thread, and work waits for `do_all`.
    """

    # A thread becomes the worker's when it runs, and only if there is no other one. Who starts it notes nothing that an
    # interrupt could leave wrong: if it comes to nothing, the next work starts another thread, and of two threads the
    # second one ends at once.
    #
    # `_lock` guards which thread is the worker's. Nothing is called under it. `_turn` is for tests alone: without a
    # thread, a caller does the work under it.

    def __init__(self, timeout_s: float, manual: bool) -> None:
        self.timeout_s = timeout_s
        self.manual = manual
        self._begin()

    def _begin(self) -> None:
        self._lock = RLock()
        self._turn = RLock()  # of who does the work where there is no thread
        self._thread: Thread | None = None
        self._coming: Thread | None = None  # it was started last, and has not looked yet whether there is another one
        self._pauser: int | None = None  # the thread that forks: until it has, there may be no other thread
        self._work: SimpleQueue[Work] = SimpleQueue()

    # For callers

    def here(self) -> bool:
        """Tell whether this is the worker's own thread: a destructor may run anywhere."""
        thread = self._thread
        return thread is not None and thread.ident == get_ident()

    def works(self) -> bool:
        """Tell whether somebody does the work: the thread, one that is on its way, or without threads whoever comes."""
        coming = self._coming  # read first: it becomes the thread
        return self.manual or self._thread is not None or (coming is not None and coming.is_alive())

    def request(self, work: Work) -> bool:
        """Have something done; False: nobody knows when, for there is no thread, and none may or can be started now."""
        try:
            self._put(work)
            return self.manual or self._start()
        except RuntimeError:
            return False

    def insist(self, work: Work, reply: Reply) -> BaseException | None:
        """Have something done, and return the reply to it, however long that takes, and whoever forks meanwhile.

        Raises:
            RuntimeError: there is no thread for it, or it would be this one.
        """
        if self.here() or self._pauser == get_ident():
            raise RuntimeError("neither the store's own thread nor one that forks can wait for the store")
        self._put(work)
        while True:
            self._start()
            try:
                return reply.get(timeout=INSISTING_S)
            except Empty:
                pass

    def ask(self, work: Work, waited_s: float = 0.0) -> None:
        """Have something done, and wait for that, see `wait`."""
        if self.manual:
            with self._turn:
                self._do(work)
            return
        reply: Reply = SimpleQueue()
        if self.request(partial(self._answer, work, reply)):
            self.wait(reply, waited_s)

    def wait(self, reply: Reply, waited_s: float = 0.0) -> None:
        """Wait for a reply, at most `timeout_s` less what was waited; on the worker's own thread not at all."""
        if not self.here():
            try:
                reply.get(timeout=max(0.0, self.timeout_s - waited_s))
            except Empty:
                pass

    def stop(self, last: Work | None = None) -> Thread | None:
        """Let the thread end after the work that it has, and after this; return it if one can wait for it."""
        thread = self._thread or self._coming
        if thread is None or not thread.is_alive() or thread.ident == get_ident():
            return None
        self._work.put(partial(self._stop, thread, last))
        return thread

    def pause(self) -> Thread | None:
        """Let the thread end after what is due, and no other begin until `resume`; return it if one can wait for it."""
        pauser = get_ident()
        with self._lock:
            self._pauser = pauser
        return self.stop(self._tick)

    def resume(self) -> None:
        """Let the next work start a thread again."""
        self._pauser = None

    def give_up(self) -> None:
        """Wait no longer for the thread: another one may begin, and what it does then comes to nothing."""
        with self._lock:
            self._thread = None

    # The thread

    def _wait_s(self) -> float:
        """Return for how long the thread waits for work before it calls `_tick`."""
        raise NotImplementedError

    def _tick(self) -> None:
        """Do what is to be done now and then."""
        raise NotImplementedError

    def _is_idle(self) -> bool:
        """Tell whether the thread may end."""
        raise NotImplementedError

    def _put(self, work: Work) -> None:
        """Let work wait for the thread.

        Raises:
            RuntimeError: there is none, none can be started, and too much waits already.
        """
        if self._work.qsize() >= MOST_WAITING and not self.manual:
            self._start()
        self._work.put(work)

    def _start(self) -> bool:
        """Start the thread, unless there is one; False: there may be none while another thread forks.

        Raises:
            RuntimeError: there are too many threads, or the interpreter ends.
        """
        if self._pauser is not None:
            return False
        if not self.works():
            self._coming = thread = Thread(target=self._run, name="circuit-breaker-store", daemon=True)
            thread.start()
        return True

    def _run(self) -> None:
        thread = current_thread()
        with self._lock:
            if self._coming is thread:
                self._coming = None
            if self._thread is None and self._pauser is None:
                self._thread = thread
        try:
            self._work_on()
        finally:
            self._leave(thread)

    def _work_on(self) -> None:
        while self.here():
            try:
                work = self._work.get(timeout=max(0.0, min(self._wait_s(), LONGEST_WAIT_S)))
            except Empty:
                work = self._tick
            self._do(work)
            if self._is_idle() and self._work.empty():
                self._rest(current_thread())

    def _rest(self, thread: Thread) -> None:
        """End the thread, unless work has come from somebody who saw it still."""
        self._leave(thread)
        if not self._work.empty():
            with self._lock:
                if self._thread is None and self._pauser is None:
                    self._thread = thread

    def _leave(self, thread: Thread) -> None:
        with self._lock:
            if self._thread is thread:
                self._thread = None

    def _do(self, work: Work) -> None:
        """Do something; what it raises is the store's, and no reason for the thread to end."""
        try:
            work()
        except BaseException as error:
            log(DEBUG, "the store of shared circuits raised", error=error)

    def do_all(self) -> None:
        """Do all work that is there, on this thread."""
        while not self._work.empty():
            self._do(self._work.get())

    def _answer(self, work: Work, reply: Reply) -> None:
        try:
            work()
        finally:
            reply.put(None)

    def _stop(self, thread: Thread, last: Work | None) -> None:
        if current_thread() is not thread:
            return  # that one was given up
        if last is not None:
            self._do(last)
        self._leave(thread)
