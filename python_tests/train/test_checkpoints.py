import json
import resource

import pytest
import torch
from runs import tiny_model

from memofast.errors import MemofastError
from memofast.train.checkpoints import Checkpoints
from memofast.train.optimisation import adamw
from memofast.train.recipe import Train


@pytest.fixture
def model():
    return tiny_model()


@pytest.fixture
def optimiser(model):
    optimiser = adamw(model, Train())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser


def test_contents(tmp_path, model, optimiser):
    folder = Checkpoints(tmp_path / "checkpoints").save(500, model, optimiser, {"step": 500, "best": None})
    assert folder.name == "step-00000500"
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "optimizer.pt", "trainer.json"}
    assert type(model).from_pretrained(folder).config.hidden_size == 16


def test_round_trip(tmp_path, model, optimiser):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, model, optimiser, {"step": 3, "best": 3, "x": 0.1})
    other = tiny_model()
    restored = adamw(other, Train())
    assert checkpoints.load(3, other, restored) == {"step": 3, "best": 3, "x": 0.1}
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), name
    for one, two in zip(optimiser.state.values(), restored.state.values(), strict=True):
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_last_two_and_best_are_kept(tmp_path, model, optimiser):
    checkpoints = Checkpoints(tmp_path)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        checkpoints.save(step, model, optimiser, {"best": best})
    assert checkpoints.steps() == [2, 4, 5]


def test_partial_checkpoints_are_not_seen(tmp_path, model, optimiser):
    (tmp_path / ".step-00000007.partial").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == []
    checkpoints.save(7, model, optimiser, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000007"]


def test_no_room(tmp_path, model, optimiser, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    with pytest.raises(MemofastError, match=r"needs .* are free\); free space, then continue with --resume .*run$"):
        checkpoints.save(1, model, optimiser, {})
    assert checkpoints.steps() == []


def test_full_disk(tmp_path, model, optimiser):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, model, optimiser, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(MemofastError, match="cannot be written") as error:
            checkpoints.save(2, model, optimiser, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_another_architecture(tmp_path, model, optimiser):
    checkpoints = Checkpoints(tmp_path)
    folder = checkpoints.save(1, model, optimiser, {})
    config = json.loads((folder / "config.json").read_text())
    wider = type(model)(type(model.config)(**{**config, "intermediate_size": 64}))
    with pytest.raises(MemofastError, match=r"another architecture.*intermediate"):
        checkpoints.load(1, wider, adamw(wider, Train()))
    deeper = type(model)(type(model.config)(**{**config, "num_hidden_layers": 2}))
    with pytest.raises(MemofastError, match=r"another architecture.*layers\.1"):
        checkpoints.load(1, deeper, adamw(deeper, Train()))


def test_truncated_checkpoint(tmp_path, model, optimiser):
    checkpoints = Checkpoints(tmp_path)
    folder = checkpoints.save(1, model, optimiser, {})
    (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:500])
    with pytest.raises(MemofastError, match="cannot be read") as error:
        checkpoints.load(1, model, optimiser)
    assert "\n" not in str(error.value)
