"""The step replayed from CUDA graphs against the same step run operation by operation."""

import pytest
import torch
from runs import final_weights, losses, pretrain, small_corpus, small_recipe, the_run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("captured"))


def trained(folder, corpus, *overrides, resume_at=None, **train):
    folder.mkdir()
    recipe = small_recipe(folder, corpus, train={"device": "cuda", "updates": 40, "log_every": 1, **train})
    if resume_at:
        first = pretrain(folder, recipe, *overrides, f"train.save_every={resume_at}", "train.updates=40")
        assert first.returncode == 0, first.stderr
        for later in (the_run(folder) / "checkpoints").glob("step-*"):
            if int(later.name[5:]) > resume_at:
                for file in later.iterdir():
                    file.unlink()
                later.rmdir()
        result = pretrain(folder, "--resume", the_run(folder))
    else:
        result = pretrain(folder, recipe, *overrides)
    assert result.returncode == 0, result.stderr
    return the_run(folder)


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", ["update", "sample"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_replayed_steps_learn_the_same(corpus, tmp_path, mixing, accumulate):
    options = {"mixing": mixing, "accumulate": accumulate, "precision": "fp32"}
    replayed = losses(trained(tmp_path / "graphs", corpus, **options))
    eager = losses(trained(tmp_path / "eager", corpus, graphs=False, **options))
    for a, b in zip(replayed, eager, strict=True):
        assert [a[k] for k in ("step", "objective", "targets")] == [b[k] for k in ("step", "objective", "targets")]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.mark.gpu
def test_a_resumed_run_repeats_the_bits(corpus, tmp_path):
    """Warm-up and capture begin anew after a resume, so replayed and plain updates must agree to the bit."""
    whole = trained(tmp_path / "whole", corpus)
    resumed = trained(tmp_path / "resumed", corpus, resume_at=20)
    assert losses(resumed) == losses(whole)
    for name, weight in final_weights(whole).items():
        assert torch.equal(weight, final_weights(resumed)[name]), name
