"""Which items of a batch are run next, how many at a time, and what becomes of those whose worker died.

Pure: it knows no Ray and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

__all__ = ["Planner"]

#: What one chunk should take, seconds: short enough for a live count, long enough to be worth a task.
CHUNK_SECONDS = 0.2
#: What the values of one chunk should have at most, bytes: the runner holds some chunks at once.
CHUNK_BYTES = 8 << 20
#: Items of one chunk at most.
CHUNK_ITEMS = 200
#: So often an item is run again whose worker died, as Ray does it for its tasks by default.
WORKER_RETRIES = 3


class Planner:
    """Hands out items in chunks.

    Parameters
    ----------
    indices : sequence of int
        Numbers of the items, in the order in which they shall be run.
    retries : int
        How often an item that fails is run again.
    """

    def __init__(self, indices: Sequence[int], retries: int = 0) -> None:
        self._todo: deque[int] = deque(indices)
        self._alone: deque[int] = deque()
        self._deaths: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        self._retries = retries
        self._count = self._seconds = self._bytes = 0.0

    @property
    def waiting(self) -> int:
        """Number of items that nobody has taken."""
        return len(self._todo) + len(self._alone)

    def take(self, slots: int) -> list[int]:
        """Give the items of the next chunk, none if there is none.

        Parameters
        ----------
        slots : int
            So many chunks may run at once: the last items are shared out among them.
        """
        if self._alone:
            return [self._alone.popleft()]
        size = min(self._size(), max(1, len(self._todo) // (2 * max(1, slots))))
        return [self._todo.popleft() for _ in range(min(size, len(self._todo)))]

    def _size(self) -> int:
        if not self._count:
            return 1
        by_time = CHUNK_SECONDS * self._count / max(self._seconds, 1e-9)
        by_size = CHUNK_BYTES * self._count / max(self._bytes, 1.0)
        return int(max(1.0, min(CHUNK_ITEMS, by_time, by_size)))

    def learn(self, count: int, seconds: float, size: float) -> None:
        """Take in the seconds that a chunk took and the bytes that it brought; the newest counts most."""
        for name, value in (("_count", count), ("_seconds", seconds), ("_bytes", size)):
            setattr(self, name, getattr(self, name) / 2 + value)

    def give_back(self, indices: Sequence[int]) -> None:
        """Take back items that were not begun; they are the next."""
        self._todo.extendleft(reversed(indices))

    def again(self, index: int) -> bool:
        """Whether an item that has failed is run again, and let it be."""
        self._failures[index] = self._failures.get(index, 0) + 1
        if self._failures[index] > self._retries:
            return False
        self._todo.append(index)
        return True

    def died(self, indices: Sequence[int]) -> list[int]:
        """Take back the items of a chunk whose worker died, each to be run alone, for one may be why.

        Returns
        -------
        list of int
            Those that are given up: their workers have died too often.
        """
        given_up = []
        for index in indices:
            if len(indices) == 1:
                self._deaths[index] = self._deaths.get(index, 0) + 1
            if self._deaths.get(index, 0) > WORKER_RETRIES:
                given_up.append(index)
            else:
                self._alone.append(index)
        return given_up
