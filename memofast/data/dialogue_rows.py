"""Face and speech rows of an utterance in its dialogue: its own first, then those of the utterances around it.

    own rows, 0, rows of the one before, 0, rows of the one before that, ...

Its own rows have the places that they have without context; a row of zeros stands between utterances.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

import numpy as np

from memofast.data.store_in_dialogues import StoreInDialogues
from memofast.store import FeatureStore
from memofast.store.memory import TYPE_IDS

_BYTES = {number: dtype.itemsize for dtype, number in TYPE_IDS.items()}


def that_fit(own: int, earlier: Iterable[int], later: Iterable[int], most: int) -> tuple[int, int]:
    """How many of the earlier and of the later utterances are read beside an utterance, each whole or not at all: the
    earliest are left out first, then the latest.

    Args: own, earlier, later: rows of each, the others from the nearest on; those without rows take no room. most: rows
        in all, with the zeros between. An utterance without rows has none of others either.
    """
    room = most - own if own else 0
    found = []
    for others in (later, earlier):
        count = 0
        for rows in others:
            if rows and rows + 1 > room:
                break
            room, count = room - rows - bool(rows), count + 1
        found.append(count)
    return found[1], found[0]


def joined(own: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Rows [n, width] of an utterance and of those that are read beside it, in the order of `that_fit`: earlier ones
    from the nearest on, then later ones."""
    between = np.zeros((1, own.shape[1]), own.dtype)
    parts = [own]
    for rows in others:
        parts += [between, rows] if len(rows) else []
    return np.concatenate(parts)


class DialogueRows(StoreInDialogues, FeatureStore):
    """A store of feature rows, whose batches have those of the utterances around; `read` gives an utterance's own.

    Args: dialogues: places in the store, -1 of what it does not hold, in the order in which they were said. earlier,
        later: most utterances that are read; most: rows, see `that_fit`.
    """

    def __init__(self, store: FeatureStore, dialogues: Sequence[np.ndarray], earlier: int, later: int, most: int):
        super().__init__(store)
        beside: list[list[int]] = [[] for _ in store.ids]
        self.cut = 0
        for dialogue in dialogues:
            rows = [int(store.lengths[place]) if place >= 0 else 0 for place in dialogue]
            for number, place in enumerate(dialogue.tolist()):
                if place < 0:
                    continue
                before = range(number - 1, max(number - earlier, 0) - 1, -1)
                after = range(number + 1, min(number + later + 1, len(dialogue)))
                asked = [rows[n] for n in before], [rows[n] for n in after]
                kept = that_fit(rows[number], *asked, most)
                self.cut += bool(rows[number]) and kept != (len(before), len(after))
                beside[place] = [dialogue[n] for n in (*before[: kept[0]], *after[: kept[1]]) if rows[n]]
        counts = np.array([len(others) + 1 for others in beside], np.int64)
        self._first = np.append(0, counts.cumsum())
        self._records = np.array([one for place, others in enumerate(beside) for one in (place, *others)], np.int64)
        taken = store.lengths[self._records].astype(np.int64) + 1  # with the zeros after each but the last
        self._begin = np.append(0, taken.cumsum())
        self.lengths = (np.diff(self._begin[self._first]) - 1).astype(np.int32)

    def gather(
        self,
        places: np.ndarray,
        rows: np.ndarray,
        first_row: np.ndarray,
        columns: Sequence[tuple[str, int, int, int]],
    ) -> None:
        """As `Store.gather`, with what is read beside. All columns are of rows; the zeros between are zero in each."""
        if not len(places):
            return
        counts = self._first[places + 1] - self._first[places]
        sample = np.repeat(np.arange(len(places)), counts)
        chosen = np.arange(counts.sum()) + (self._first[places] - np.append(0, counts.cumsum())[:-1])[sample]
        begins = first_row[sample] + self._begin[chosen] - self._begin[self._first[places]][sample]
        records = self._records[chosen]
        between = begins[np.append(False, sample[1:] == sample[:-1])] - 1
        self.store.gather(records, self.store.lengths[records].astype(np.int64), begins, columns)
        total = int((first_row + rows).max())
        for _, padded, dtype, address in columns:
            values = (ctypes.c_uint8 * (total * padded * _BYTES[dtype])).from_address(address)
            np.frombuffer(values, np.uint8).reshape(total, -1)[between] = 0
