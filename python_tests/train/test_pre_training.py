"""Pre-training as a task: how it is validated."""

import torch
from runs import small_corpus

from memofast.objectives import Learner
from memofast.train.plan import make_model, make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.processes import Processes
from memofast.train.recipe import read


def validated(corpus, dropout):
    overrides = [
        f"corpora=[{{path: {corpus}}}]", "objectives={view_contrast: {}, whole_word_mlm: {}}", "train.samples=16",
        "model.hidden_size=32", "model.num_attention_heads=1", f"model.hidden_dropout_prob={dropout}",
    ]  # fmt: skip
    plan = make_plan(read("demo", overrides))
    task, learner = PreTraining(plan), Learner(make_model(plan), plan.objectives).eval()
    task.begin()
    verdict = task.validate(learner, "fp32", torch.device("cpu"), Processes())
    assert not learner.training and not learner.model.memobert.training
    return {name: verdict.scores["demo", name] for name in ("view_contrast", "whole_word_mlm")}


def test_views_that_differ_by_dropout_do_so_in_validation_and_nothing_else_is_dropped(tmp_path):
    corpus = small_corpus(tmp_path)
    little, again, much = (validated(corpus, dropout) for dropout in (0.05, 0.05, 0.8))
    assert little == again
    assert much["view_contrast"]["loss"] > 1.05 * little["view_contrast"]["loss"]
    assert much["whole_word_mlm"] == little["whole_word_mlm"]
