"""Stores: one LMDB of one kind of record each, one record per sample id."""

from memofast.store.description import RAW
from memofast.store.reader import FeatureStore, Store, TextStore
from memofast.store.text_writer import TextWriter
from memofast.store.writer import FeatureWriter, StoreWriter

__all__ = ["RAW", "FeatureStore", "FeatureWriter", "Store", "StoreWriter", "TextStore", "TextWriter"]
