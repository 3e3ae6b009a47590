"""Towers: any transformers encoder for each of text, pictures and sound, joined and answered by one head."""

from memofast.model.towers.configuration import TowersConfig
from memofast.model.towers.emotion import TowersForEmotion
from memofast.model.towers.opening import open_towers

__all__ = ["TowersConfig", "TowersForEmotion", "open_towers"]
