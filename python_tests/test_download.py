import hashlib

import pytest

from memofast import download
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
    assert download.fetch(source.as_uri(), target, SHA) == target
    assert target.read_bytes() == CONTENT
    source.unlink()
    assert download.fetch(source.as_uri(), target, SHA) == target  # right already: nothing is fetched


def test_a_wrong_checksum_leaves_nothing(source, tmp_path):
    target = tmp_path / "cache" / "model"
    with pytest.raises(MemofastError, match="another file"):
        download.fetch(source.as_uri(), target, "0" * 64)
    assert list(target.parent.iterdir()) == []


def test_an_address_that_does_not_answer(tmp_path):
    for url in ((tmp_path / "none").as_uri(), "http://127.0.0.1:9/model", "nonsense"):
        with pytest.raises(MemofastError, match="cannot be fetched"):
            download.fetch(url, tmp_path / "model", SHA)


def test_names_and_places(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path))
    assert download.home_of("yunet") == tmp_path / "yunet.onnx"
    with pytest.raises(MemofastError, match="there is yunet"):
        download.main("resnet")


@pytest.mark.real
def test_the_real_model_has_the_known_checksum(real_data, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path))
    download.main("yunet", url=(real_data / "models" / "yunet_n_640_640.onnx").as_uri())
    assert download.home_of("yunet").stat().st_size > 200_000
