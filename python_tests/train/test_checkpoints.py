import json
import pickle
import re
import resource
import shutil

import pytest
import torch
from runs import tiny_model
from safetensors.torch import load_file, save_file

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
    (tmp_path / "run").mkdir()
    with pytest.raises(MemofastError, match=r"needs .* are free\); free space, then continue with --resume .*run$"):
        checkpoints.save(1, learner, optimiser, trainer(1))
    assert checkpoints.steps() == []


def test_a_run_that_was_removed_is_not_written_anew(tmp_path, learner, optimiser):
    kept = Checkpoints(tmp_path / "run" / "checkpoints")
    (tmp_path / "run").mkdir()
    kept.save(500, learner, optimiser, trainer(500))
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(MemofastError, match=r"run was removed while it was trained; nothing of it is kept"):
        kept.save(501, learner, optimiser, trainer(501))
    assert not (tmp_path / "run").exists()


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


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """The checkpoints of updates 2 and 5, and the learner that they are of."""
    folder, learner = tmp_path_factory.mktemp("saved"), learner_of()
    optimiser = stepped(learner)
    for step in (2, 5):
        Checkpoints(folder).save(step, learner, optimiser, trainer(step))
    return folder, learner


@pytest.fixture
def saved(two_saved, tmp_path):
    """Checkpoints to damage, and a learner to load them."""
    shutil.copytree(two_saved[0], tmp_path / "saved")
    return Checkpoints(tmp_path / "saved"), two_saved[1]


def refused(checkpoints, step, learner, whole=True):
    """The line with which a checkpoint is refused; nothing was loaded."""
    optimiser = adamw(learner, Train())
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    with pytest.raises(MemofastError) as error:
        checkpoints.load(step, learner, optimiser, whole)
    assert "\n" not in str(error.value) and not optimiser.state
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    return str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "text"])
def test_a_damaged_file_is_named_with_what_to_do(saved, name, damage):
    checkpoints, learner = saved
    path = checkpoints.path(5) / name
    contents = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "torn": contents[: len(contents) // 2], "text": b"\xff no \n"}[damage])
    line = refused(checkpoints, 5, learner)
    assert line.startswith(f"{path} is missing" if damage == "missing" else f"{path} cannot be read (")
    assert line.endswith(f"restore it, or remove {path.parent} to go on after update 2")
    (checkpoints.path(2) / "trainer.json").write_text("{}")
    assert "trainer.json cannot be read (step: is missing); restore it, or start a new run" in refused(
        checkpoints, 2, learner
    )


def test_weights_of_another_type_or_not_finite_are_refused(saved, tmp_path):
    checkpoints, learner = saved
    path = checkpoints.path(5) / "model.safetensors"
    weights = load_file(path)
    name = sorted(weights)[3]
    save_file({**weights, name: weights[name].half()}, path)
    assert f"{name} is torch.float16, not torch.float32" in refused(checkpoints, 5, learner)
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, path)
    assert f"{name} is not finite" in refused(checkpoints, 5, learner)


def in_moments(kind, change, number=3):
    """Change one tensor of one parameter."""
    return lambda state: state["state"][number].update({kind: change(state["state"][number][kind])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_moments("exp_avg", lambda t: t.flatten()[:-1]), "exp_avg of model.* is .*, the parameter's"),
        (in_moments("exp_avg", torch.Tensor.double), "torch.float64, the parameter's"),
        (in_moments("exp_avg", lambda t: torch.zeros(1).expand(t.shape)), "no dense tensor"),
        (in_moments("exp_avg_sq", lambda t: t.to("meta")), "no dense tensor"),
        (in_moments("exp_avg_sq", lambda t: t.to_sparse()), "no dense tensor"),
        (in_moments("exp_avg_sq", lambda t: -1 - t), "exp_avg_sq of .* is negative"),
        (in_moments("exp_avg", lambda t: t + float("inf")), "exp_avg of .* is not finite"),
        (in_moments("step", lambda t: t * float("nan")), "step of .* is not finite"),
        (in_moments("step", lambda t: t + 1e9), "counts 1e.09 updates"),
        (in_moments("step", lambda t: t + 0.5), "counts 1.5 updates"),
        (in_moments("step", float), "no dense tensor"),
        (lambda state: state["state"].pop(3), "lacks the numbers of"),
        (lambda state: state["state"].update({999: state["state"][3]}), "numbers of other parameters"),
        (lambda state: state["state"][3].update(more=1), "other numbers of .* than AdamW has"),
        (lambda state: state["state"].update({3: [1]}), "other numbers of"),
        (lambda state: state["state"][3].update(exp_avg=state["state"][3]["exp_avg_sq"]), "several numbers in one"),
        (lambda state: state["names"].reverse(), "parameters with other names"),
        (lambda state: state.update(param_groups=5), "no groups of parameters"),
        (lambda state: state["param_groups"][0]["params"].reverse(), "other groups of parameters"),
        (lambda state: state.pop("state"), "no state of an optimiser"),
        (lambda state: state.update(state=[1]), "numbers of other parameters"),
    ],
)
def test_no_optimiser_sees_numbers_that_do_not_fit(saved, change, message):
    checkpoints, learner = saved
    path = checkpoints.path(5) / "optimizer.pt"
    state = torch.load(path)
    change(state)
    torch.save(state, path)
    assert re.search(message, refused(checkpoints, 5, learner))


def test_a_pickle_that_runs_code_and_one_of_another_kind_are_refused(saved, tmp_path):
    checkpoints, learner = saved
    path = checkpoints.path(5) / "optimizer.pt"

    class Code:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    torch.save({"state": Code(), "param_groups": []}, path)
    assert "holds something else than the numbers of an optimiser" in refused(checkpoints, 5, learner)
    path.write_bytes(pickle.dumps({"state": {}, "param_groups": []}))
    assert "no file that torch.save wrote" in refused(checkpoints, 5, learner)
    assert not (tmp_path / "ran").exists()


def test_parameters_that_were_never_stepped_are_right_where_a_task_allows_it(saved):
    checkpoints, _ = saved
    path = checkpoints.path(5) / "optimizer.pt"
    state = torch.load(path)
    del state["state"][3]
    torch.save(state, path)
    other = learner_of()
    restored = adamw(other, Train())
    checkpoints.load(5, other, restored)
    assert len(restored.state) == len(state["state"]) > 3


def test_a_checkpoint_goes_by_another_name_first(tmp_path, learner, optimiser, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, learner, optimiser, trainer(step))
    (tmp_path / ".step-00000009.partial").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: None)  # killed before anything of it is gone
    checkpoints.save(3, learner, optimiser, trainer(3))
    assert checkpoints.steps() == [2, 3]
    hidden = tmp_path / ".step-00000001.deleted"
    assert {path.name for path in tmp_path.iterdir()} > {hidden.name}
    monkeypatch.undo()
    for step in (4, 5):
        (tmp_path / "step-00000002").rename(tmp_path / f"step-0000000{step}")  # of one killed before it removed others
        (tmp_path / "step-00000002").mkdir()
    checkpoints.sweep(2)
    assert checkpoints.steps() == [2, 4, 5] and len([*tmp_path.iterdir()]) == 3


def test_only_folders_with_the_name_of_a_checkpoint_are_one(tmp_path):
    for name in ("step-5", "step-00000007", "step-x", "step-\u0665\u0665\u0665\u0665\u0665\u0665\u0665\u0665"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000008").write_text("")
    assert Checkpoints(tmp_path).steps() == [7]
