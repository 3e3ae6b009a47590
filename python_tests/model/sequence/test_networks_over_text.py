"""What every network over a text encoder does within a model: learns, is kept, takes what a sample lacks."""

import numpy as np
import pytest
import torch
from spoken_corpus import answers_of, spoken_bert, spoken_corpus, spoken_model, spoken_task

from memofast.data.conditions import keep
from memofast.errors import MemofastError
from memofast.model.sequence.emotion import open_sequence_model
from memofast.model.sequence.networks import NETWORKS as NETWORK_OPTIONS
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer

NETWORKS = {
    "misa": {"width": 8, "feed_forward": 16},
    "self_mm": {"width_joint": 16},
    "mag": {"dropout": 0.1},
    "mmim": {"width": 16},
    "tfr_net": {"width": 8, "heads": 2, "layers": 1, "gru_layers": 1, "hidden": 16, "reconstruction_visual": 1.0},
}
LOSSES = {
    "misa": {"similarity", "difference", "reconstruction"},
    "self_mm": {"text_alone", "visual_alone", "speech_alone"},
    "mag": set(),
    "mmim": {"estimators", "information", "contrast", "entropy"},
    "tfr_net": {f"{name}_{of}" for name in ("text", "visual", "speech") for of in ("reconstruction", "similarity")},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return spoken_corpus(tmp_path_factory.mktemp("spoken") / "corpus", aligned=True)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return spoken_bert(tmp_path_factory.mktemp("spoken") / "bert")


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_learns_logs_its_losses_and_is_opened_again(corpus, bert, tmp_path, kind):
    model = spoken_model(corpus, {"init": str(bert), "network": {"kind": kind, **NETWORKS[kind]}})
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    epochs, lr = {"tfr_net": (6, 1e-2), "mag": (12, 2e-2)}.get(kind, (10, 5e-3))
    task = spoken_task(corpus, model, epochs=epochs, lr=lr, error="squared" if kind == "misa" else "absolute")
    trainer, split = Trainer(task, tmp_path, Processes()), corpus.split("validation")
    begun = trainer.validate().scores["spoken", "emotion"]["mae"]
    state = trainer.run()
    assert begun > 1.6 and state.scores["spoken", "emotion"]["mae"] < 0.75 * begun
    assert not [name for name, values in before.items() if torch.equal(values, model.get_parameter(name))]
    logged = (tmp_path / "metrics.jsonl").read_text()
    assert set(model.losses) == LOSSES[kind] and all(f'"objective": "{name}"' in logged for name in LOSSES[kind])
    wanted = answers_of(model, split)
    for sample in (0, 3, 4):
        torch.testing.assert_close(answers_of(model, split, [sample])[0], wanted[sample], rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path / "model")
    opened = open_sequence_model(tmp_path / "model")
    torch.testing.assert_close(answers_of(opened, split), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [*NETWORKS, "recurrent_fusion"])
def test_it_learns_in_bf16(corpus, bert, tmp_path, kind):
    """Of micro-batches of which one is a sample alone."""
    model = spoken_model(corpus, {"init": str(bert), "network": {"kind": kind, **NETWORKS.get(kind, {})}})
    task = spoken_task(corpus, model, epochs=2, precision="bf16", samples=7, accumulate=3)
    trainer = Trainer(task, tmp_path, Processes())
    assert trainer.run().step == 2 and trainer.state.scores["spoken", "emotion"]["mae"] < 2.5


@pytest.mark.parametrize("kind", NETWORKS)
def test_any_modality_may_be_absent(corpus, bert, kind):
    model = spoken_model(corpus, {"init": str(bert), "network": {"kind": kind, **NETWORKS[kind]}}).eval()
    batch, found = corpus.split("train").pack(np.arange(6)), {}
    with torch.no_grad():
        for condition in ("l", "v", "a", "lv", "la", "va", "lva"):
            found[condition] = model(keep(batch, condition))
    assert all(values.isfinite().all() for values in found.values())
    every = torch.stack(list(found.values()))[:, 1:, 0]  # the first has no speech
    apart = torch.cdist(every, every) + torch.eye(7)
    assert apart.min() > 1e-3 * every.std(0).min() > 0


@pytest.mark.parametrize("kind", NETWORKS)
def test_compat_within_a_model_and_what_is_refused(corpus, bert, kind):
    """Rows of an aligned corpus that are padded to its longest are read as without compat where nothing is padding."""
    section = {"init": str(bert), "standardise": "none", "network": {"kind": kind, **NETWORKS[kind]}}
    networks = [section["network"] | own for own in ({}, {"compat": True})]
    if kind == "tfr_net":
        networks[1]["temporal_heads"] = 7
    models = [spoken_model(corpus, section | {"network": network}) for network in networks]
    assert models[1].config.lengths == {"text": 7, "visual": 7, "speech": 7}
    longest = [sample for sample in range(20) if sample % 5 == 4]  # of 7 word pieces
    torch.testing.assert_close(*(answers_of(model, corpus.split("train"), longest) for model in models))
    with pytest.raises(MemofastError, match=f"model.network {kind} reads word pieces through a BERT; give its folder"):
        spoken_model(corpus, section | {"init": None})


def test_unknown_word_pieces_are_some_of_the_encoder(corpus, bert):
    with pytest.raises(MemofastError, match="unknown_piece 116 is none of the text encoder's 116 word pieces"):
        spoken_model(corpus, {"init": str(bert), "network": {"kind": "tfr_net", "unknown_piece": 116}})


@pytest.mark.parametrize("kind", NETWORKS)
def test_its_recipe_makes_a_plan(corpus, bert, kind):
    """Its options are the network's, its groups name parameters, and losses are weighted as published."""
    given = [f"corpus={corpus.path}", f"model.init={bert}", "folds.test=null"]
    recipe = read(f"mosi-{kind}", given)
    plan = make_fine_tuning_plan(recipe)
    assert (plan.metric, recipe.model.network.kind, recipe.train.schedule) == ("mae", kind, "constant")
    assert recipe.model.network == NETWORK_OPTIONS[kind][0](kind=kind)  # the defaults are what is published
    with pytest.raises(MemofastError, match=r"give its folder as model\.init"):
        make_fine_tuning_plan(read(f"mosi-{kind}", [given[0], given[2]]))
