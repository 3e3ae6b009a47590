"""What fixed encoders make of whole splits, ahead of any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memofast.data import Split
from memofast.data.view import View

if TYPE_CHECKING:
    from memofast.model.towers.emotion import TowersForEmotion

_AT_ONCE = 16  # samples between two looks at the disk


def fill_cache(model: TowersForEmotion, splits: Sequence[Split]) -> tuple[int, int]:
    """Make what a model's caches lack of the samples of splits, each once. Returns: vectors made, and those that were
    there."""
    towers, seen, read = [tower for tower in model.eval().towers.values() if tower.kept], set(), 0
    for split in splits:
        chosen = [place for place, id in enumerate(split.ids) if (split.corpus.path, id) not in seen]
        seen |= {(split.corpus.path, split.ids[place]) for place in chosen}
        for first in range(0, len(chosen), _AT_ONCE):
            view = View.of(split.pack(chosen[first : first + _AT_ONCE]))
            for tower in towers:
                if len(there := tower.there(view).nonzero().flatten()):
                    tower.kept.pooled(tower, view, there)
                    read += len(there)
    made = sum(tower.kept.made for tower in towers)
    return made, read - made
