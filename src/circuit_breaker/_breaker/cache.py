"""What a registry keeps: one value for each key, in order of use, and known for as long as anybody holds it.

If a value is forgotten while somebody else holds it, its key finds the same value again. Otherwise two threads
could use two values of one key, of which neither knows what the other has seen.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from itertools import repeat
from operator import itemgetter
from typing import Any, Final, Generic, TypeAlias, TypeVar

from .._common.lock import RLock

V = TypeVar("V")


class Reference(weakref.ref[Any]):
    """A value for as long as anybody holds it, and the hash of its key."""

    __slots__ = ("hashed",)

    hashed: int


class Entry(Generic[V]):
    """A key and its value.

    Attributes:
        kept: the value; None while it is forgotten.
        reference: the value for as long as anybody holds it.
        used: the number of its last use; a later use has a higher one.
        removed: the key no longer leads to it.
    """

    __slots__ = ("kept", "key", "newer", "older", "reference", "removed", "used")

    def __init__(self, key: Hashable, reference: Reference) -> None:
        self.key = key
        self.reference = reference
        self.kept: V | None = None
        self.newer: Entry[V] | None = None
        self.older: Entry[V] | None = None
        self.used = 0
        self.removed = False


Bucket: TypeAlias = tuple[Entry[V], ...]
EMPTY: Final[Bucket[Any]] = ()


class Cache(Generic[V]):
    """Values by key. Safe from any thread; it forgets nothing by itself.

    Attributes:
        count: how many values are kept.
    """

    # Keys may have a hash and a comparison of their own, which must not run under a lock. So entries stand in buckets
    # by the hash of their key, and a bucket is never changed but replaced: without the lock a bucket is searched, and
    # the next one made; with it the next one takes its place, if the bucket is still there.
    #
    # The lock also guards the list of what is kept, from the least to the most recently used, and what changes in
    # entries. Under it nothing is called or made.

    def __init__(self) -> None:
        self._lock = RLock()
        self._buckets: dict[int, Bucket[V]] = {}
        self._oldest: Entry[V] | None = None
        self._newest: Entry[V] | None = None
        self.count = 0
        self._uses = 0
        self._dead: deque[Any] = deque()  # the references of values that nobody holds any more

    # Finding

    def use(self, key: Hashable) -> V | None:
        """Return the value of a key, if it is kept, and note that it was used."""
        bucket: Bucket[V] = self._buckets.get(hash(key), EMPTY)
        for entry in bucket:
            if entry.key is key or entry.key == key:
                value = entry.kept
                if value is not None and entry is not self._newest:
                    self.exchange(entry, value, value)
                return value
        return None

    def find(self, key: Hashable) -> Entry[V] | None:
        """Return the entry of a key, if there is one. Its value may be forgotten or gone."""
        return _entry_in(self._buckets.get(hash(key), EMPTY), key)

    def entries(self) -> list[Entry[V]]:
        """Return all entries, in no particular order."""
        return [entry for bucket in list(self._buckets.values()) for entry in bucket]

    def in_order(self) -> list[tuple[Entry[V], V]]:
        """Return the entries whose values are kept, and these, the least recently used first."""
        # The linked list cannot be used: other threads may change it while this one follows it.
        kept = [(entry.used, entry, value) for entry in self.entries() if (value := entry.kept) is not None]
        return [(entry, value) for _, entry, value in sorted(kept, key=itemgetter(0))]

    def least_used(self) -> Iterator[Entry[V]]:
        """Give entries that are kept from the least recently used on, without end; they may be used meanwhile."""
        entry = self._first()
        while entry is not None:
            newer = entry.newer
            yield entry
            # If another thread has used or forgotten this entry, there may be no next one: start again.
            entry = newer or self._first()

    def _first(self) -> Entry[V] | None:
        """Return the least recently used entry. Under the lock, so that no other thread is in the middle of a move."""
        with self._lock:
            return self._oldest

    # Changing

    def bring(self, key: Hashable, make: Callable[[Hashable], V]) -> tuple[Entry[V], V]:
        """Return the entry of a key and its value, which is kept from now on: the one that is known, or a new one.

        Of the values that several threads make for one key at the same time, all get one.
        """
        self._clear()
        hashed = hash(key)
        made: V | None = None
        while True:
            bucket = self._buckets.get(hashed, EMPTY)
            entry = _entry_in(bucket, key)
            value: V | None = None if entry is None else entry.reference()
            if entry is None or value is None:
                value = made = make(key) if made is None else made
                reference = Reference(value, self._dead.append)  # C code: Python code would swallow a Ctrl-C there
                reference.hashed = hashed
                new: Entry[V] = Entry(key, reference)  # Entry[V](...) would try to set an attribute, and fail
                if not self._replace(hashed, bucket, (*_without(bucket, entry), new)):
                    continue
                entry = new
            self.exchange(entry, None, value)
            return entry, value

    def exchange(self, entry: Entry[V], former: V | None, kept: V | None, above: int = -1) -> bool:
        """Keep a value as the most recently used, or none. False: nothing has changed.

        It changes only what is as it was before, and only while more than `above` values are kept.
        """
        more = (kept is not None) - (former is not None)
        with self._lock:
            if entry.kept is not former or (entry.removed and kept is not None) or self.count <= above:
                return False
            if former is not None:
                older, newer = entry.older, entry.newer
                if older is None:
                    self._oldest = newer
                else:
                    older.newer = newer
                if newer is None:
                    self._newest = older
                else:
                    newer.older = older
            entry.older = entry.newer = None
            if kept is not None:
                last = self._newest
                entry.older = last
                if last is None:
                    self._oldest = entry
                else:
                    last.newer = entry
                self._newest = entry
                self._uses += 1
                entry.used = self._uses
            entry.kept = kept
            self.count += more
            return True

    def remove(self, key: Hashable) -> bool:
        """Remove the key. Return whether it had a value."""
        hashed = hash(key)
        while True:
            bucket = self._buckets.get(hashed, EMPTY)
            entry = _entry_in(bucket, key)
            if entry is None or entry.reference() is None:
                return False
            self.exchange(entry, entry.kept, None)  # first, or an interrupt could leave it in the list for good
            if self._replace(hashed, bucket, _without(bucket, entry), removed=entry):
                self.exchange(entry, entry.kept, None)  # it may have been kept again in between, but is not from now on
                return True

    def _replace(self, hashed: int, bucket: Bucket[V], following: Bucket[V], removed: Entry[V] | None = None) -> bool:
        """Replace a bucket by another one. False: the bucket was not there any more, and nothing has changed."""
        buckets = self._buckets
        with self._lock:
            if hashed in buckets:
                if buckets[hashed] is not bucket:
                    return False
            elif bucket:
                return False
            if following:
                buckets[hashed] = following
            else:
                del buckets[hashed]
            if removed is not None:
                removed.removed = True
            return True

    def _clear(self) -> None:
        """Drop entries whose values are gone."""
        for _ in range(2):  # two for each one that is added, so that they do not pile up
            try:
                reference = self._dead.popleft()
            except IndexError:
                return
            for _ in repeat(None):
                bucket = self._buckets.get(reference.hashed, EMPTY)
                gone = next((entry for entry in bucket if entry.reference is reference), None)
                if gone is None or self._replace(reference.hashed, bucket, _without(bucket, gone)):
                    break

    def after_fork_in_child(self) -> None:
        """Repair what a thread of the parent may have left in the middle of a locked section."""
        self._lock = RLock()
        kept = self.in_order()
        self._oldest = self._newest = None
        self.count = 0
        for entry, value in kept:
            entry.kept = None
            self.exchange(entry, None, value)


def _entry_in(bucket: Bucket[V], key: Hashable) -> Entry[V] | None:
    for entry in bucket:
        if entry.key is key or entry.key == key:
            return entry
    return None


def _without(bucket: Bucket[V], gone: Entry[V] | None) -> Bucket[V]:
    return tuple(entry for entry in bucket if entry is not gone)
