"""That shuffled rows, partners and second views teach something: on the demo corpus, by models as of its recipe, with
two seeds."""

import pytest
import torch

from memofast.data.demo import demo_corpus
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.processes import Processes
from memofast.train.recipe import read
from memofast.train.trainer import Trainer

# of the trivial predictor's loss: ln 2, a uniform guess over a clip's shuffled places, ln of a batch's samples
WANTED = 0.95
UPDATES = {"matching": 60, "visual_order": 300, "speech_order": 300, "view_contrast": 30}
# matching: faces alone are another clip's; weights begin large enough for products of inputs, for which those of BERT's
# size would need far longer
OPTIONS = {
    "matching": [
        "objectives.matching.replaced=[visual]", "model.hidden_size=64", "model.intermediate_size=256",
        "model.initializer_range=0.15", "train.lr=1e-3", "train.warmup=20",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return demo_corpus(tmp_path_factory.mktemp("demo") / "corpus")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", UPDATES)
def test_it_beats_its_trivial_predictor(corpus, tmp_path, name, seed):
    updates = UPDATES[name]
    overrides = [
        f"corpora=[{{path: {corpus}}}]", f"objectives={{{name}: {{}}}}", f"train.seed={seed}",
        f"train.updates={updates}",
        f"train.save_every={updates}", f"validate.every={updates}", "train.mixing=update", "train.device=cpu",
    ]  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = PreTraining(make_plan(read("demo", [*overrides, *OPTIONS.get(name, [])])))
        state = Trainer(task, tmp_path, Processes()).run()
    finally:
        torch.set_num_threads(threads)
    (score,) = state.scores.values()
    assert score["loss"] <= WANTED * score["trivial"], score
