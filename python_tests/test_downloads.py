"""Files that are fetched once, with the checksum they must have."""

import hashlib

import pytest

from memofast.downloads import downloaded, fetch, home_of
from memofast.errors import MemofastError

CONTENT = b"a model" * 1000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "server" / "model"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_fetches_and_keeps_what_is_right(source, tmp_path):
    target = tmp_path / "cache" / "model"
    assert fetch(source.as_uri(), target, SHA) == target
    assert target.read_bytes() == CONTENT
    source.unlink()
    assert fetch(source.as_uri(), target, SHA) == target  # right already: nothing is fetched


def test_a_wrong_checksum_leaves_nothing(source, tmp_path):
    target = tmp_path / "cache" / "model"
    with pytest.raises(MemofastError, match="another file"):
        fetch(source.as_uri(), target, "0" * 64)
    assert list(target.parent.iterdir()) == []


def test_an_address_that_does_not_answer(tmp_path):
    for url in ((tmp_path / "none").as_uri(), "http://127.0.0.1:9/model", "nonsense"):
        with pytest.raises(MemofastError, match="cannot be fetched"):
            fetch(url, tmp_path / "model", SHA)


def test_a_download_lies_in_the_cache_once_it_was_fetched(source, monkeypatch, tmp_path):
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path / "cache"))
    assert home_of("yunet") == tmp_path / "cache" / "yunet.onnx" and downloaded("yunet") is None
    fetch(source.as_uri(), home_of("yunet"), SHA)
    assert downloaded("yunet") == home_of("yunet")
