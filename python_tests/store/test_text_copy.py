"""A text store written anew keeps every record, or says which one it cannot keep."""

import shutil

import numpy as np
import pytest

from memofast.errors import MemofastError
from memofast.store import TextStore, TextWriter
from memofast.store.text_copy import fields_of, writer_like


def test_a_copy_is_the_same_store_and_a_damaged_sentence_is_named(tmp_path):
    with TextWriter(tmp_path / "one", classes=("sad", "glad")) as writer:
        writer.put("a", np.array([2000, 2001], np.int32), np.array([0, 1]), utf8="un café", label=1)
        writer.put("b", np.array([2002], np.int32), np.array([0]), utf8="oui")
    text = TextStore.open(tmp_path / "one")
    with writer_like(text, tmp_path / "two") as writer:
        for id in text.ids:
            writer.put(id, **fields_of(text, id))
    assert TextStore.open(tmp_path / "two").meta["digest"] == text.meta["digest"]

    shutil.copytree(tmp_path / "two", tmp_path / "three")
    data = (tmp_path / "two" / "data.mdb").read_bytes()
    (tmp_path / "three" / "data.mdb").write_bytes(data.replace("un café".encode(), b"un caf\xff\xa9"))
    damaged = TextStore.open(tmp_path / "three")
    assert fields_of(damaged, "b")["utf8"] == "oui"
    with pytest.raises(MemofastError, match="three: the sentence of 'a' is no UTF-8"):
        fields_of(damaged, "a")
