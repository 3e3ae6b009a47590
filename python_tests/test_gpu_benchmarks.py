"""The benchmarks on a GPU and the ladder, called once on the CPU with a few samples: contestants give results of the same shapes as ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="bench/ is not beside the tests")

# In a process of its own, as benchmarks and tests have modules of the same names.
CODE = """
import itertools
import torch
from torch.utils._pytree import tree_leaves
import test_bias_gelu_gpu, test_cross_attention_gpu, test_dropout_add_norm_gpu, test_embed_gpu, test_span_mask_gpu, test_token_mask_gpu
from gpu_cases import DTYPES, STAGES

def results(contest):
    found = {"ours": contest["ours"](0)()}
    for name, make in contest["rivals"].items():
        if name not in ("compiled", "liger", "triton"):
            found[name] = make(0)()
    assert len(found) > 1 and contest["gigabytes"] > 0 and contest["bytes_of_one"] > 0
    return {name: tree_leaves(result) for name, result in found.items()}

def compare(contest, bits=()):
    ours, *rivals = results(contest).items()
    for name, theirs in rivals:
        same = torch.equal if name in bits else lambda a, b: a.shape == b.shape
        assert all(same(a, b) for a, b in zip(ours[1], theirs, strict=name != "pieces")), name

for dtype, backward in itertools.product(DTYPES.values(), STAGES.values()):
    compare(test_bias_gelu_gpu.contest(2, dtype, backward, "cpu"))
    for option in (False, True):
        compare(test_dropout_add_norm_gpu.contest(2, 0.1 * option, dtype, backward, "cpu"))
        compare(test_embed_gpu.contest(2, option, dtype, backward, "cpu"))
    asked = test_cross_attention_gpu.contest(2, 0.0, dtype, backward, "cpu")
    ours, whole, _ = (make(0)() for make in (asked["ours"], *list(asked["rivals"].values())[:2]))
    if not backward:
        torch.testing.assert_close(ours, whole)
for modality in ("visual", "speech"):
    compare(test_span_mask_gpu.contest(2, modality, "cpu"), bits=("eager",))
for kind in ("whole_word", "token"):
    compare(test_token_mask_gpu.contest(2, kind, "cpu"), bits=("eager",))
compare(test_token_mask_gpu.contest_of_all(2, "cpu"), bits=("eager", "one_by_one"))
"""


LADDER = '''
import sys
import torch
from torch.utils.flop_counter import FlopCounterMode
from packed_batches import random_batch, small_config
from padded_step import PaddedModel, collate, wanted
from step_facts import word_step_flop
import test_ladder
from test_ladder import OBJECTIVE, Rungs
from memofast import objectives
from memofast.train.step import Step

config = small_config()
ladder = Rungs(3, "cpu", small_config(vocab_size=30522, visual_positions=64, speech_positions=64))
for name, facts in ladder.facts().items():
    assert facts["peak_bytes"] > 10_000, name

class Replayed(Step):
    """Takes what a captured step takes, where nothing can be captured."""
    pool = None
    def __init__(self, *arguments):
        super().__init__(*arguments[:-1])

test_ladder.CapturedStep, test_ladder.pool_bytes = Replayed, lambda pool: 7
for rung in ladder.rungs.values():
    rung()
ladder.rungs["cuda graphs"] = ladder._captured()
weights = sum(parameter.nbytes for parameter in ladder.ours.parameters())
assert ladder.facts()["cuda graphs"]["peak_bytes"] > weights

batch = random_batch(config, [(9, 5, 8)] * 6)  # of one length: the padded model pads nothing
corruption = objectives.corrupt(batch, objectives.build({OBJECTIVE: {}}), OBJECTIVE, torch.tensor([1, 1]))
padded = PaddedModel(config)
with FlopCounterMode(display=False) as counter:
    padded.loss(*wanted(batch, config, corruption)[:1], collate(batch, config, corruption), wanted(batch, config, corruption)[1]).backward()
# The padded model adds its mask to all features, and so has a gradient of the projections' inputs too.
inputs = 2 * config.hidden_size * sum(len(getattr(batch, m)) * config.feature_width(m) for m in ("visual", "speech"))
assert counter.get_total_flops() == word_step_flop(config, batch, corruption.targets[OBJECTIVE].count) + inputs
'''


def run(code: str) -> None:
    path = os.pathsep.join(p for p in (str(ROOT), str(ROOT / "python_tests"), os.environ.get("PYTHONPATH")) if p)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_contestants_agree():
    run(CODE)


def test_ladder_and_its_facts():
    run(LADDER)
