"""Towers whose encoders learn by adapters: what is trained and kept, the same bits after an interruption, opened and
merged."""

import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console
from runs import here
from seen_talks import small_encoders, tower_recipe, write_seen_talks

from memofast.errors import MemofastError
from memofast.inference.split_predictions import predict_split
from memofast.model.families import open_emotion_model
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.trainer import Trainer

LORA = {"target_modules": "all-linear", "r": 2, "lora_dropout": 0.2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    write_seen_talks(folder / "corpus")
    return folder, small_encoders(folder)


def plan_of(place, *overrides, **changes):
    folder, towers = place
    adapted = {
        "text": {"train": "lora", "lora": LORA},
        "visual": {"train": "frozen"},
        "speech": {"train": "lora", "lora": LORA},
    }
    changed = {name: own | (adapted | changes)[name] for name, own in towers.items()}
    recipe = tower_recipe(folder / "recipe.yaml", folder / "corpus", changed)
    return make_fine_tuning_plan(read(str(recipe), ["train.epochs=1", *overrides]))


@pytest.fixture(scope="module")
def ran(place):
    plan = plan_of(place)
    fine_tune(plan, place[0] / "run", Console(quiet=True))
    return plan, place[0] / "run"


def test_every_adapter_has_a_gradient_and_no_base(place):
    plan = plan_of(place)
    model = start_model(plan.recipe, plan.target, plan.folds[0].train).train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # which begins at 0, and hides its partner
            torch.nn.init.normal_(weight, std=0.1)
    model.represented(plan.folds[0].train.pack(range(12)), rng=torch.tensor([1, 2])).square().sum().backward()
    adapters = [(name, weight) for name, weight in model.named_parameters() if "lora_" in name]
    assert len(adapters) == 2 * (2 * 6 + 3 * 6 + 1)  # of text's layers, of speech's, and of its projection of features
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for _, weight in adapters)
    others = [weight for name, weight in model.named_parameters() if ".encoder." in name and "lora_" not in name]
    assert len(others) > 60 and not any(weight.requires_grad for weight in others)


def test_adapters_and_what_is_trained_are_kept(ran, place):
    plan, run = ran
    told = plan.describe()
    assert (
        f"of {place[0]}/bert: r 2" in told
        and f"of {place[0]}/data2vec: r 2" in told
        and "parameters are trained" in told
    )
    files = {str(path.relative_to(run / "model")) for path in (run / "model").rglob("*") if path.is_file()}
    of_adapters = {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    assert files == {"config.json", "trained.safetensors"} | {
        f"{m}/{f}" for m in ("text", "speech") for f in of_adapters
    }
    model = open_emotion_model(run)
    assert not any("lora_" in name for name in model.state_dict())
    for _, _, condition, part, _, predicted in answers(plan, run):
        again = predict_split(model, getattr(plan.folds[0], part), plan.target, condition=condition)
        np.testing.assert_allclose(again.scores, predicted.scores, atol=1e-5)


def test_merged_it_needs_no_base(ran, place, tmp_path):
    plan, run = ran
    moved = shutil.copytree(run, tmp_path / "run")
    done = here(tmp_path, "convert", moved, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    batch = plan.folds[0].train.pack(range(6))
    expected = open_emotion_model(moved)(batch)
    base = moved / "model" / "speech" / "base.json"
    base.write_text(json.dumps(json.loads(base.read_text()) | {"path": str(tmp_path / "nowhere")}))
    with pytest.raises(MemofastError, match=r"adapts .*nowhere, which is missing"):
        open_emotion_model(moved)
    config = moved / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"width": 60_000}))
    base.write_text((run / "model" / "speech" / "base.json").read_text())
    with pytest.raises(MemofastError, match=r"does not hold .* as \[.*60000.*; restore its config"):
        open_emotion_model(moved)
    torch.testing.assert_close(open_emotion_model(tmp_path / "whole")(batch), expected, rtol=1e-5, atol=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_bits(ran, tmp_path, monkeypatch):
    plan, whole = ran
    updates = iter(range(4))

    def interrupted(self, update, real=Trainer.update):
        if next(updates, None) is None:
            raise KeyboardInterrupt
        torch.rand(3)
        return real(self, update)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(plan, tmp_path, Console(quiet=True))
    fine_tune(plan, tmp_path, Console(quiet=True))
    for one, other in zip(answers(plan, tmp_path), answers(plan, whole), strict=True):
        np.testing.assert_array_equal(one[-1].scores, other[-1].scores)


def test_mistakes(place):
    for change, told in (
        ({"text": {"train": "lora"}}, r"train lora needs to know of which maps; add lora"),
        ({"text": {"lora": LORA}}, r"of which train full makes none; set train=lora"),
        ({"text": {"train": "lora", "lora": LORA | {"dtype": "float16"}}}, r"lora\.dtype is one for all adapters"),
        (
            {"text": {"train": "lora", "lora": {"target_modules": ["quer"]}}},
            r"model\.text\.lora\.target_modules: 'quer'",
        ),
    ):
        with pytest.raises(MemofastError, match=told):
            plan_of(place, **change)
