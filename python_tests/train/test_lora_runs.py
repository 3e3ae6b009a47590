"""Fine-tuning of adapters: what is told, trained, saved, gone on with, opened, merged and exported."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from adapted_models import pre_trained
from mood_runs import mood_corpus
from rich.console import Console
from runs import here, the_run
from safetensors.torch import load_file
from talks import MODEL, telling_talks

from memofast import load
from memofast.data import Corpus
from memofast.data.dialogue import Context
from memofast.errors import MemofastError
from memofast.inference.split_predictions import predict_split
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.model.families import FAMILIES, open_emotion_model
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_run import FoldRun
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.optimisation import adamw
from memofast.train.trainer import Trainer

LORA = {"target_modules": ["qkv", "output"], "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    return mood_corpus(tmp_path_factory.mktemp("lora") / "moods")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    widths = {"vocab_size": 9000, "visual_width": 4, "speech_width": 5, "hidden_dropout_prob": 0.1}
    return pre_trained(tmp_path_factory.mktemp("lora") / "base", **widths)


@pytest.fixture
def recipe(moods, base, tmp_path):
    def make(*overrides, lora=LORA, **model):
        values = {
            "corpus": str(moods), "model": {"init": str(base), "head": "emocls", "lora": lora, **model},
            "train": {"epochs": 3, "samples": 8, "lr": 1e-2, "patience": 20, "precision": "fp32", "device": "cpu"},
        }  # fmt: skip
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return read(str(path), list(overrides))

    return make


def run(recipe, folder):
    plan = make_fine_tuning_plan(recipe)
    return plan, fine_tune(plan, folder, Console(quiet=True))


def test_what_is_told_trained_and_kept(recipe, base, tmp_path, monkeypatch):
    seen = {}

    def spied(learner, options, real=adamw):
        seen["learner"], seen["optimiser"] = learner, real(learner, options)
        return seen["optimiser"]

    saved = {}

    def looked_at(self, real=Trainer._save):
        real(self)
        saved.update({path.name: path.stat().st_size for path in self.folder.rglob("step-*/*")})

    monkeypatch.setattr("memofast.train.optimisation.adamw", spied)
    monkeypatch.setattr(Trainer, "_save", looked_at)
    plan, _ = run(recipe(), tmp_path / "run")
    names = {name for name, p in seen["learner"].named_parameters() if p.requires_grad}
    of_optimiser = [p for group in seen["optimiser"].param_groups for p in group["params"]]
    assert all(p.requires_grad for p in of_optimiser) and len(of_optimiser) == len(names)
    assert len([name for name in names if "lora_" in name]) == 2 * 2 * 2
    assert set(saved) == {
        "config.json", "adapter_config.json", "adapter_model.safetensors", "base.json", "trained.safetensors",
        "optimizer.pt", "trainer.json",
    }  # fmt: skip
    assert sum(saved.values()) < 60_000 < (base / "model.safetensors").stat().st_size
    told = plan.describe()
    assert f"LoRA on 4 maps (qkv, output) of {base}: r 4, lora_alpha 8, lora_dropout 0.1, bias none" in told
    trained = 2 * (4 * (32 + 96) + 4 * (64 + 32)) + 2 * 32 + 2
    assert f"\n{trained:,} of " in told and "parameters are trained" in told
    model, folder = open_emotion_model(tmp_path / "run"), tmp_path / "run" / "model"
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
    assert json.loads((folder / "base.json").read_text())["path"] == str(base)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in load_file(folder / "adapter_model.safetensors")} == {
        "lora_A", "lora_B",
    }  # fmt: skip
    for _, _, condition, part, _, predicted in answers(plan, tmp_path / "run"):
        split = getattr(plan.folds[0], part)
        again = predict_split(model, split, plan.target, condition=condition)
        np.testing.assert_allclose(again.scores, predicted.scores, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [(), ("model.lora.dtype=float16",), ("losses.alike={kind: spcl, weight: 0.5}", "train.decode=nearest_centre")],
    ids=["plain", "fp16", "losses"],
)
def test_an_interrupted_run_goes_on_to_the_same_bits(recipe, tmp_path, monkeypatch, overrides):
    chosen = recipe("train.validations=3", "protocol=last", *overrides)
    plan, whole = run(chosen, tmp_path / "whole")
    updates = iter(range(7))

    def interrupted(self, update, real=Trainer.update):
        if next(updates, None) is None:
            raise KeyboardInterrupt
        return real(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(chosen, tmp_path / "cut")
    assert list((tmp_path / "cut").rglob("step-*/adapter_model.safetensors"))
    torch.manual_seed(99)
    again = fine_tune(plan, tmp_path / "cut", Console(quiet=True))
    assert [one["score"] for one in again] == [one["score"] for one in whole]
    for one, other in zip(answers(plan, tmp_path / "cut"), answers(plan, tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one[-1].scores, other[-1].scores)
    model = open_emotion_model(tmp_path / "cut")
    found = [load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert {tensor.dtype for tensor in found[0].values()} == {
        torch.float16 if "float16" in "".join(overrides) else torch.float32
    }
    for _, _, condition, part, _, predicted in answers(plan, tmp_path / "cut"):
        split = getattr(plan.folds[0], part)
        again = predict_split(model, split, plan.target, condition=condition)
        np.testing.assert_allclose(again.scores, predicted.scores, atol=2e-6)


def test_utterances_are_read_in_their_dialogues(tmp_path):
    corpus = telling_talks(tmp_path / "talks")
    torch.manual_seed(4)
    sizes = {name: value for name, value in MODEL.items() if name != "head"}
    config = MemoBertConfig(**sizes, visual_width=0, speech_width=0)
    MemoBertForPreTraining(config).save_pretrained(tmp_path / "base")
    values = {
        "corpus": str(corpus), "context": {"utterances": 1, "tokens": 40},
        "model": {"init": str(tmp_path / "base"), "head": "emocls", "lora": LORA},
        "modalities": {"train": ["l"], "evaluate": ["l"]},
        "train": {"epochs": 2, "samples": 16, "lr": 1e-2, "precision": "fp32", "device": "cpu"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    plan, _ = run(read(str(tmp_path / "recipe.yaml"), []), tmp_path / "run")
    model = open_emotion_model(tmp_path / "run")
    assert model.context == Context(utterances=1, tokens=40)
    split = Corpus.open(corpus).split("test")
    (kept,) = [p for _, _, _, part, _, p in answers(plan, tmp_path / "run") if part == "test"]
    found = predict_split(model, split, plan.target, "fp32", "l")
    np.testing.assert_allclose(found.scores, kept.scores, atol=1e-6)


def test_graphs_of_adapters_were_never_tried(recipe, tmp_path):
    eager = replace(FAMILIES["memobert"], capturable=lambda *_: True)
    found = {}
    for name, lora in {"lora": LORA, "full": None}.items():
        plan = make_fine_tuning_plan(recipe(lora=lora))
        task = FoldRun(plan, plan.folds[0], 42, tmp_path, tmp_path).task()
        task.family = eager
        found[name] = task.capturable("fp32", torch.device("cpu"))
    assert found == {"lora": False, "full": True}


def test_a_search_chooses_the_rank(recipe, tmp_path):
    chosen = recipe("search={model.lora.r: [2, 4]}", "inner_folds=validation", "train.epochs=1")
    _, (done,) = run(chosen, tmp_path / "run")
    assert done["settings"]["model.lora.r"] in (2, 4)
    shape = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors").popitem()[1].shape
    assert done["settings"]["model.lora.r"] in shape


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.lora.r=0"], "model.lora.r: input should be greater than or equal to 1"),
        (["model.lora.alpha=3"], "unknown key model.lora.alpha; did you mean model.lora.lora_alpha"),
        (
            ["model.lora.target_modules=[query]"],
            "model.lora.target_modules: 'query' is no module of the encoder; there",
        ),
        (["model.lora.target_modules=[word]"], "means embeddings.word, of which no adapter would take part"),
        (["model.init=null"], "lora adapts a checkpoint; add model.init=FOLDER"),
        (["model.freeze=1"], "freeze is of a training of weights, lora keeps them all"),
        (["train.compile=true"], "train.compile passes a model through torch.compile"),
        (["prompt={soft_from_words: true}"], "soft_from_words changes rows of words, which model.lora keeps"),
        (["train.groups={memobert.embedding.*: {lr: 2}}"], "no parameter has such a name"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(recipe, tmp_path, overrides, message):
    with pytest.raises(MemofastError) as caught:
        plan = make_fine_tuning_plan(recipe(*overrides))
        fine_tune(plan, tmp_path / "run", Console(quiet=True))
    assert message in str(caught.value)


def test_groups_of_fixed_parameters_alone_are_told(recipe):
    groups = ["train.groups={memobert.embeddings.*: {lr: 2}, memobert.*: {lr: 0.5}}", "train.weight_decay=0.1"]
    told = make_fine_tuning_plan(recipe(*groups)).describe()
    assert "train.groups.memobert.embeddings.*: none of its parameters is trained, so it changes nothing" in told
    assert "train.groups.memobert.*: none" not in told  # which has the adapters


def test_what_is_adapted_must_be_said(recipe):
    with pytest.raises(MemofastError, match=r"model.lora.target_modules: is missing"):
        recipe(lora={"r": 4})


def test_a_family_without_such_maps_refuses_it(recipe, tmp_path):
    values = yaml.safe_load((recipe(), (tmp_path / "recipe.yaml").read_text())[1])
    values["model"] = {"family": "sequence", "lora": LORA}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(MemofastError, match=r"unknown key model\.lora"):
        read(str(tmp_path / "other.yaml"), [])


def test_a_run_is_evaluated_merged_exported_and_started_from(recipe, moods, base, tmp_path):
    line = [f"corpus={moods}", f"model.init={base}", "model.head=emocls", "train.samples=8", "train.epochs=1"]
    line += ["baselines=false", f"model.lora={json.dumps(LORA)}", "train.lr=1e-2", "train.precision=fp32"]
    told = here(tmp_path, "finetune", *line)
    assert told.returncode == 0 and "LoRA on 4 maps" in told.stdout, told.stderr
    made = the_run(tmp_path)
    told = here(tmp_path, "evaluate", made, "--corpus", moods, "--conditions", "va")
    assert told.returncode == 0, told.stderr
    told = here(tmp_path, "export", made, "--out", "adapted.pt2")
    assert told.returncode == 0, told.stderr
    failed = here(tmp_path, "finetune", *[one.replace(str(base), str(made)) for one in line])
    assert failed.returncode == 2 and "merge both first: memofast convert" in failed.stderr
    assert failed.stderr.count("\n") == 1
    told = here(tmp_path, "convert", made, "--out", "merged")
    assert told.returncode == 0 and "merged: " in told.stdout, told.stderr
    merged, opened = open_emotion_model(tmp_path / "merged"), open_emotion_model(made)
    for name, tensor in opened.state_dict().items():
        assert torch.equal(tensor, merged.state_dict()[name])
    rows = {"visual": [[0.5, -1, 2, 0]], "speech": [[1.0] * 5, [0.5] * 5]}
    (answer,), (again,) = (load(folder).predict(features=rows) for folder in (made, tmp_path / "merged"))
    assert answer.probabilities == again.probabilities and set(answer.probabilities) == {"calm", "glad"}
    assert (tmp_path / "merged" / "preparation.json").is_file() and not (tmp_path / "merged" / "base.json").exists()
    for out, message in {"merged": "is there; choose a new folder", "file.pt": "merge both first"}.items():
        failed = here(tmp_path, "convert", made, "--out", out)
        assert failed.returncode == 2 and message in failed.stderr and failed.stderr.count("\n") == 1
    told = here(tmp_path, "finetune", *[one.replace(str(base), "merged") for one in line], "--dry-run")
    assert told.returncode == 0, told.stderr
