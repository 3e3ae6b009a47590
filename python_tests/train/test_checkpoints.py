import json
import resource

import pytest
import torch
from runs import tiny_model
from safetensors.torch import load_file

from memofast import objectives
from memofast.errors import MemofastError
from memofast.objectives import Learner
from memofast.train.checkpoints import Checkpoints
from memofast.train.optimisation import adamw
from memofast.train.recipe import Train
from memofast.train.state import State


def learner_of(*names):
    return Learner(tiny_model(), objectives.build({name: {} for name in names}))


def stepped(learner):
    """Its optimiser after a step."""
    optimiser = adamw(learner, Train())
    for parameter in learner.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return optimiser


def trainer(step, best=None, **further):
    """What `trainer.json` holds."""
    loader = {"seed": 1, "updates": step, "streams": []}
    return State(step=step, best=best, loader=loader).to_json() | {"environment": {"torch": "2"}} | further


@pytest.fixture
def learner():
    return learner_of()


@pytest.fixture
def optimiser(learner):
    return stepped(learner)


def test_contents(tmp_path, learner, optimiser):
    folder = Checkpoints(tmp_path / "checkpoints").save(500, learner, optimiser, trainer(500))
    assert folder.name == "step-00000500"
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "optimizer.pt", "trainer.json"}
    assert type(learner.model).from_pretrained(folder).config.hidden_size == 16


def test_it_carries_the_vocabulary(tmp_path, learner, optimiser):
    (tmp_path / "words.txt").write_text("[PAD]\n[UNK]\nred")
    checkpoints = Checkpoints(tmp_path / "checkpoints", vocabulary=tmp_path / "words.txt")
    folder = checkpoints.save(1, learner, optimiser, {"best": None})
    assert (folder / "vocab.txt").read_text() == "[PAD]\n[UNK]\nred"
    (tmp_path / "words.txt").unlink()
    (tmp_path / "words.txt").mkdir()  # a folder without one
    assert not list(checkpoints.save(2, learner, optimiser, {"best": None}).glob("vocab*"))


def test_round_trip(tmp_path, learner, optimiser):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, learner, optimiser, trainer(3, 3, seconds=0.1))
    other = learner_of()
    restored = adamw(other, Train())
    assert checkpoints.load(3, other, restored) == trainer(3, 3, seconds=0.1)
    for (name, one), two in zip(learner.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), name
    for one, two in zip(optimiser.state.values(), restored.state.values(), strict=True):
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_last_two_and_best_are_kept(tmp_path, learner, optimiser):
    checkpoints = Checkpoints(tmp_path)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        checkpoints.save(step, learner, optimiser, trainer(step, best))
    assert checkpoints.steps() == [2, 4, 5]


def test_partial_checkpoints_are_not_seen(tmp_path, learner, optimiser):
    (tmp_path / ".step-00000007.partial").mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == []
    checkpoints.save(7, learner, optimiser, trainer(3))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000007"]


def test_no_room(tmp_path, learner, optimiser, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    with pytest.raises(MemofastError, match=r"needs .* are free\); free space, then continue with --resume .*run$"):
        checkpoints.save(1, learner, optimiser, trainer(1))
    assert checkpoints.steps() == []


def test_full_disk(tmp_path, learner, optimiser):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, learner, optimiser, trainer(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(MemofastError, match="cannot be written") as error:
            checkpoints.save(2, learner, optimiser, trainer(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_another_architecture(tmp_path, learner, optimiser):
    checkpoints = Checkpoints(tmp_path)
    folder = checkpoints.save(1, learner, optimiser, trainer(1))
    config = json.loads((folder / "config.json").read_text())
    kind, sizes = type(learner.model), type(learner.model.config)
    wider = Learner(kind(sizes(**{**config, "intermediate_size": 64})), {})
    with pytest.raises(MemofastError, match=r"another architecture.*intermediate"):
        checkpoints.load(1, wider, adamw(wider, Train()))
    deeper = Learner(kind(sizes(**{**config, "num_hidden_layers": 2})), {})
    with pytest.raises(MemofastError, match=r"another architecture.*layers\.1"):
        checkpoints.load(1, deeper, adamw(deeper, Train()))


def test_truncated_checkpoint(tmp_path, learner, optimiser):
    checkpoints = Checkpoints(tmp_path)
    folder = checkpoints.save(1, learner, optimiser, trainer(1))
    (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:500])
    with pytest.raises(MemofastError, match="cannot be read") as error:
        checkpoints.load(1, learner, optimiser)
    assert "\n" not in str(error.value)


def test_what_objectives_learn_is_kept_beside_the_model(tmp_path):
    learner, checkpoints = learner_of("view_contrast", "matching"), Checkpoints(tmp_path)
    optimiser = stepped(learner)
    folder = checkpoints.save(2, learner, optimiser, trainer(2))
    assert [*load_file(folder / "objectives.safetensors")] == ["view_contrast.log_scale"]
    assert not [name for name in load_file(folder / "model.safetensors") if "view_contrast" in name]
    other = learner_of("view_contrast", "matching")
    assert other.objectives["view_contrast"].log_scale != learner.objectives["view_contrast"].log_scale
    restored = adamw(other, Train())
    checkpoints.load(2, other, restored)
    assert torch.equal(other.objectives["view_contrast"].log_scale, learner.objectives["view_contrast"].log_scale)
    moments = restored.state[other.objectives["view_contrast"].log_scale]
    assert moments["exp_avg"] == optimiser.state[learner.objectives["view_contrast"].log_scale]["exp_avg"] > 0


def test_a_checkpoint_of_other_objectives_is_refused(tmp_path):
    checkpoints, plain, contrast = Checkpoints(tmp_path), learner_of("matching"), learner_of("view_contrast")
    checkpoints.save(1, plain, stepped(plain), trainer(1))
    with pytest.raises(MemofastError, match=r"another architecture \(only the recipe's model has view_contrast"):
        checkpoints.load(1, contrast, adamw(contrast, Train()))
    checkpoints.save(2, contrast, stepped(contrast), trainer(2))
    with pytest.raises(MemofastError, match=r"another architecture \(only the checkpoint has view_contrast"):
        checkpoints.load(2, plain, adamw(plain, Train()))


def test_other_groups_are_refused_before_anything_is_loaded(tmp_path, learner, optimiser):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, learner, optimiser, trainer(3, 3))
    other = learner_of()
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    grouped = adamw(other, Train(groups={"heads.*": {"lr": 0.5}}))
    with pytest.raises(MemofastError, match=r"other groups of parameters.*train\.groups") as error:
        checkpoints.load(3, other, grouped)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in other.model.state_dict().items())


def test_options_of_the_optimiser_are_those_asked_for_now(tmp_path, learner):
    groups = {"memobert.pooler.*": {"lr": 0.5}}
    optimiser = adamw(learner, Train(groups=groups))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, learner, optimiser, trainer(3, 3))
    changed = Train(
        weight_decay=0.5, eps=1e-3, betas=(0.5, 0.6), groups={"memobert.pooler.*": {"lr": 0.25, "weight_decay": 0.1}}
    )
    other = learner_of()
    restored = adamw(other, changed)
    checkpoints.load(3, other, restored)
    found = {(group["name"], group["weight_decay"]): group for group in restored.param_groups}
    assert set(found) == {("", 0.5), ("", 0.0), ("memobert.pooler.*", 0.1), ("memobert.pooler.*", 0.0)}
    assert all((group["eps"], group["betas"]) == (1e-3, (0.5, 0.6)) for group in restored.param_groups)
    assert found["memobert.pooler.*", 0.1]["factor"] == 0.25
