"""The command `memofast download`."""

import pytest

from memofast.download import main
from memofast.downloads import home_of
from memofast.errors import MemofastError


def test_an_unknown_name_is_refused():
    with pytest.raises(MemofastError, match="there is yunet"):
        main("resnet")


def test_a_file_with_another_checksum_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").write_bytes(b"no model")
    with pytest.raises(MemofastError, match="another file"):
        main("yunet", url=(tmp_path / "model").as_uri())
    assert not home_of("yunet").exists()


@pytest.mark.real
def test_the_real_model_has_the_known_checksum(real_data, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MEMOFAST_CACHE", str(tmp_path))
    main("yunet", url=(real_data / "models" / "yunet_n_640_640.onnx").as_uri())
    assert home_of("yunet").stat().st_size > 200_000
