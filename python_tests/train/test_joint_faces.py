"""A face network trained along: a run of raw faces, its resumption, two ranks, what is refused, and what follows it."""

import json
import shutil

import pytest
import torch
from joint_faces import NETWORK, joint_recipe, raw_corpus
from runs import (
    final_weights,
    finetune,
    first_updates,
    here,
    losses,
    pretrain,
    small_corpus,
    small_recipe,
    the_run,
    without_curves,
)
from safetensors.torch import load_file

from memofast.errors import MemofastError
from memofast.model.face_networks.denseface_file import DenseFaceMeta, save_denseface
from memofast.model.face_networks.densenet import DenseNet
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.fine_tuning_recipe import read as read_fine_tuning
from memofast.train.optimisation import parameter_groups
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read


@pytest.fixture(scope="module", autouse=True)
def _without_curves():
    with without_curves():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return raw_corpus(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def denseface(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "denseface.safetensors"
    torch.manual_seed(2)
    save_denseface(path, DenseNet(3).state_dict(), DenseFaceMeta(("a", "b", "c"), 110.0, 50.0, side=24))
    return path


def run_of(folder, *line):
    result = pretrain(folder, *line)
    assert result.returncode == 0, result.stderr
    return the_run(folder)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run of two micro-batches an update."""
    folder = tmp_path_factory.mktemp("whole")
    return run_of(folder, joint_recipe(folder, corpus), "train.accumulate=2")


def test_a_resumed_run_equals_an_uninterrupted_one(whole, tmp_path):
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    resumed = pretrain(tmp_path, "--resume", run)
    assert resumed.returncode == 0 and "warning" not in resumed.stderr, resumed.stderr
    assert losses(run) == losses(whole)
    one, other = final_weights(whole), final_weights(run)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_network_learns_and_its_norms_keep_their_statistics(whole):
    before, after = (
        torch.load(path, weights_only=True) if path.suffix == ".pt" else final_weights_of(path)
        for path in sorted((whole / "checkpoints").glob("step-*"))
    )
    own = [name for name in after if name.startswith(NETWORK)]
    assert {name for name in own if torch.equal(before[name], after[name])} == {
        name for name in own if name.endswith(("running_mean", "running_var"))
    }


def final_weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_every_parameter_is_in_exactly_one_group_and_the_network_in_its_own(corpus, tmp_path):
    plan = make_plan(read(str(joint_recipe(tmp_path, corpus))))
    learner = PreTraining(plan).learner()
    groups = parameter_groups(learner, plan.recipe.train)
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in learner.parameters())
    own = {id(parameter) for name, parameter in learner.named_parameters() if NETWORK in name}
    of_network = [group for group in groups if group["name"] == f"{NETWORK}*"]
    assert own == {id(parameter) for group in of_network for parameter in group["params"]}
    assert {(group["factor"], group["warmup"], group["clip"]) for group in of_network} == {(20, 2, False)}
    assert sorted(group["weight_decay"] for group in of_network) == [0.0, 5e-4]


def test_all_of_a_step_but_frozen_parts_gets_gradients(corpus, tmp_path):
    face, objectives = {"network": "resnet3d", "frozen": 2}, {"whole_word_mlm": {}, "matching": {}}
    plan = make_plan(read(str(joint_recipe(tmp_path, corpus, face=face, objectives=objectives))))
    task = PreTraining(plan)
    learner = task.learner().train()
    (update,) = first_updates(task, 1)
    rng = torch.tensor([1, 1])
    sum(loss.total for loss in learner(update.micro_batches[0].views, rng).values()).backward()
    idle = {name for name, parameter in learner.named_parameters() if parameter.grad is None}
    assert {name.split("network.body.")[1].split(".")[0] for name in idle} == {"stem", "norm", "blocks"}
    assert all("blocks.0" in name for name in idle if "blocks" in name)


def test_a_denseface_file_begins_the_network(corpus, denseface, tmp_path):
    path = joint_recipe(tmp_path, corpus, face={"network": "denseface", "init": str(denseface), "augment": False})
    plan = make_plan(read(str(path)))
    assert plan.config.face | {"augment": False} == {
        "network": "denseface", "crop": 24, "side": 24, "mean": 110.0, "std": 50.0, "frozen": 0, "augment": False,
        "noise": 0.0,
    }  # fmt: skip
    weights = PreTraining(plan).learner().model.state_dict()
    torch.manual_seed(2)
    trained = DenseNet(3).state_dict()
    names = [name for name in trained if not name.startswith("head.") and "num_batches" not in name]
    assert all(torch.equal(weights[f"{NETWORK}body.{name}"], trained[name]) for name in names)


def test_a_model_of_feature_rows_is_trained_on_with_a_network(corpus, denseface, tmp_path):
    """From a run on DenseFace rows its encoder and projection go on, the network begins with the file."""
    first = tmp_path / "first"
    first.mkdir()
    run = run_of(first, small_recipe(first, small_corpus(tmp_path), train={"updates": 2, "save_every": 2}))
    path = joint_recipe(tmp_path, corpus, face={"network": "denseface", "init": str(denseface)})
    plan = make_plan(read(str(path), [f"model.init={run}"]))
    ours, theirs = PreTraining(plan).learner().model.state_dict(), final_weights(run)
    assert torch.equal(
        ours["memobert.embeddings.visual.projection.weight"], theirs["memobert.embeddings.visual.projection.weight"]
    )


def test_what_follows_a_run(whole, corpus, tmp_path):
    """Fine-tuned, evaluated and its rows extracted; what reads ready rows is refused."""
    asked = ["finetune", f"model.init={whole}", f"corpus={corpus}", "model.head=emocls", "train.epochs=1"]
    asked += ["train.seeds=[1]", "train.precision=fp32", "modalities.train=[lva]", "modalities.evaluate=[lva,v]"]
    tuned = finetune(tmp_path, *asked)
    assert tuned.returncode == 0, tuned.stderr
    (line,) = (line for line in tuned.stdout.splitlines() if "baselines" in line)
    assert "no simple baselines: corpus" in line and "raw rows of visual" in line
    (run,) = (tmp_path / "runs").glob("finetune-*")
    again = here(tmp_path, "evaluate", run, "--corpus", corpus, "--split", "test")
    assert again.returncode == 0, again.stderr
    drawn = here(tmp_path, "extract", whole, "--corpus", corpus, "--split", "test", "--out", tmp_path / "rows.npz")
    assert drawn.returncode == 0, drawn.stderr
    ready = small_corpus(tmp_path / "ready")
    refused = here(tmp_path, "evaluate", run, "--corpus", ready, "--split", "test")
    assert refused.returncode == 2 and "raw rows of visual" in refused.stderr


def test_a_fine_tuning_begins_with_a_network_of_its_own(corpus, denseface):
    sizes = ["model.hidden_size=16", "model.num_hidden_layers=1", "model.num_attention_heads=2"]
    sizes += ["model.intermediate_size=32", "model.vocab_size=124", "model.face.network=denseface"]
    asked = [f"corpus={corpus}", *sizes, f"model.face.init={denseface}", "modalities.train=[v]"]
    plan = make_fine_tuning_plan(read_fine_tuning("finetune", [*asked, "modalities.evaluate=[v]"]))
    model = start_model(plan.recipe, plan.target, plan.folds[0].train)
    assert model.config.face["mean"] == 110.0 and model.config.visual_width == 342
    kept, begun = load_file(denseface), model.memobert.embeddings.visual.network.state_dict()
    weights = [name for name in kept if f"body.{name}" in begun]
    assert {"stem.weight", "stages.4.layers.9.squeeze.weight"} <= {*weights}
    assert all(torch.equal(begun[f"body.{name}"], kept[name]) for name in weights)


def refusal(folder, corpus, *overrides, **changed):
    with pytest.raises(MemofastError) as error:
        make_plan(read(str(joint_recipe(folder, corpus, **changed)), list(overrides)))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_objectives_whose_targets_would_move_are_refused(corpus, tmp_path):
    for name in ("span_visual_regression", "masked_autoencoder"):
        said = refusal(tmp_path, corpus, objectives={"whole_word_mlm": {}, name: {}})
        assert said.startswith(f"objectives.{name} gives rows of visual back") and "share to 0" in said
    for name in ("span_visual_contrast", "span_visual_emotion"):  # a face's neighbours show it to resnet3d
        said = refusal(tmp_path, corpus, face={"network": "resnet3d"}, objectives={"whole_word_mlm": {}, name: {}})
        assert said.startswith(f"objectives.{name} hides rows of visual, whose network makes the rows beside")
    spared = {"whole_word_mlm": {}, "masked_autoencoder": {"shows": ["text", "speech"]}}
    result = pretrain(tmp_path, joint_recipe(tmp_path, corpus, objectives=spared, updates=1), "validate.every=1")
    assert result.returncode == 0 and "masked_autoencoder" in result.stdout, result.stderr


def test_networks_and_corpora_that_do_not_go_together_are_refused(corpus, denseface, whole, tmp_path):
    ready = small_corpus(tmp_path / "other")
    assert "no raw faces" in refusal(tmp_path, ready)
    assert "raw faces, of which something must make rows" in refusal(tmp_path, corpus, face={})
    assert "4 parts, not 5" in refusal(tmp_path, corpus, face={"network": "denseface", "frozen": 5})
    assert "model.face.side" in refusal(tmp_path, corpus, face={"network": "denseface", "side": 25})
    given = {"network": "resnet3d", "init": str(denseface)}
    assert "leave one out" in refusal(tmp_path, corpus, face=given)
    said = refusal(tmp_path, corpus, f"corpora.1.path={ready}")
    assert "raw in corpus" in said or "both named" in said
    assert "model.face.network is resnet3d" in refusal(
        tmp_path, corpus, f"model.init={whole}", face={"network": "resnet3d"}
    )
    plain = small_recipe(tmp_path, ready)
    with pytest.raises(MemofastError, match="has them ready"):
        make_plan(read(str(plain), [f"model.init={whole}"]))
    assert "raw speech" in refusal(tmp_path, corpus, "corpora.0.features.speech=sound")


def test_a_damaged_network_is_no_partial_load(whole, corpus, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(max((whole / "checkpoints").glob("step-*")), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if name.startswith(NETWORK))
    save_file({name: weight for name, weight in weights.items() if name != lost}, folder / "model.safetensors")
    result = pretrain(tmp_path, joint_recipe(tmp_path, corpus, face={}), f"model.init={folder}")
    assert result.returncode == 2 and lost in result.stderr and result.stderr.count("\n") == 1
    config = json.loads((folder / "config.json").read_text())
    for entry, value in (("crop", 10**6), ("network", "vgg"), ("frozen", -1), ("std", 0)):
        (folder / "config.json").write_text(json.dumps(config | {"face": config["face"] | {entry: value}}))
        result = pretrain(tmp_path, joint_recipe(tmp_path, corpus, face={}), f"model.init={folder}")
        assert result.returncode == 2 and f"face.{entry}" in result.stderr, result.stderr
