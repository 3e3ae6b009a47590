"""The operators' benchmarks and the ladder, called once on the CPU with a few samples: contestants compute what ours
does, or results of its shapes."""

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
import torch
from torch.utils._pytree import tree_leaves
import attention_rivals, test_attention, test_bias_gelu, test_cross_attention, test_dropout_add_norm
import test_embed, test_span_mask, test_token_mask
from contests import DTYPES, STAGES

test_embed.VOCABULARY = 2_000  # a table of 30,522 words takes longer to draw than all else to compute

def results(contest):
    found = {"ours": contest["ours"](0)()}
    for name, make in contest["rivals"].items():
        if name not in ("compiled", "python loop"):
            found[name] = make(0)()
    assert len(found) > 1 and contest["gigabytes"] > 0 and contest["bytes_of_one"] > 0
    return {name: tree_leaves(result) for name, result in found.items()}

def compare(contest, bits=()):
    ours, *rivals = results(contest).items()
    for name, theirs in rivals:
        same = torch.equal if name in bits else lambda a, b: a.shape == b.shape
        assert all(same(a, b) for a, b in zip(ours[1], theirs, strict=name != "pieces")), name

for dtype, backward in ((DTYPES["fp32"], STAGES["forward"]), (DTYPES["bf16"], STAGES["both"])):
    compare(test_bias_gelu.contest(2, dtype, backward, "cpu"))
    for option in (False, True):
        compare(test_dropout_add_norm.contest(2, 0.1 * option, dtype, backward, "cpu"))
        compare(test_embed.contest(2, option, dtype, backward, "cpu"))
    for p in (0.0, 0.1):
        for contest in (
            test_attention.contest(2, "memobert", p, dtype, backward, "cpu"),
            test_cross_attention.contest(2, p, dtype, backward, "cpu"),
        ):
            for name, make in {"ours": contest["ours"], **contest["rivals"]}.items():
                # on a CPU PyTorch has no flash attention with dropout
                if not (name == "compiled" or (p and "flash" in name)):
                    assert all(x.isfinite().all() for x in tree_leaves(make(0)())), name
for modality in ("visual", "speech"):
    compare(test_span_mask.contest(2, modality, "cpu"), bits=("eager",))
for kind in ("whole_word", "token"):
    compare(test_token_mask.contest(2, kind, "cpu"), bits=("eager",))
compare(test_token_mask.contest_of_all(2, "cpu"), bits=("eager",))
"""

ATTENTION = """
import functools
import torch
import attention_rivals, test_attention, test_cross_attention
from torch.nn.attention.flex_attention import flex_attention

def seen_by_rivals(module, *arguments):
    seen = []
    module.rivals = lambda *given: seen.append(given) or attention_rivals.rivals(*given)
    contest = module.contest(*arguments)
    return contest, *seen[0][:2]

for module, arguments in ((test_attention, (2, "uniform")), (test_cross_attention, (2,))):
    contest, case, tensors = seen_by_rivals(module, *arguments, 0.0, torch.float32, False, "cpu")
    ours = contest["ours"](0)()
    expected = attention_rivals.pad(ours, case.asked)
    real = torch.arange(expected.shape[2]) < case.asked[:, None]
    for name, make in contest["rivals"].items():
        if name == "all_rows":
            torch.testing.assert_close(make(0)(), ours)
        elif name != "compiled":
            theirs = make(0)()
            torch.testing.assert_close(theirs.movedim(1, 2)[real], expected.movedim(1, 2)[real], msg=name)
    mask = functools.cache(lambda: attention_rivals.block_mask(case))
    theirs = attention_rivals.flex(case, mask, *tensors(0), flex_attention)()
    torch.testing.assert_close(theirs[0].movedim(0, 1), ours)
    offered = attention_rivals.rivals(case, tensors, "cuda")
    assert {"flex", "flash_varlen", "torch_varlen", "padded_sdpa cudnn_attention"} < offered.keys()
"""

TIMING = """
import torch
import gpu_timing

x = torch.ones(1000, device="cuda")
looked_at = gpu_timing.Timed([lambda: x.sum().item()])  # waits for the device, which a capture forbids
assert looked_at.method == "events" and looked_at.gpu_seconds() > 0
drawn = gpu_timing.Timed([lambda: torch.nn.functional.dropout(x, 0.5)])  # by the generator that the failed capture held
assert drawn.method == "graph" and drawn.gpu_seconds() > 0 and drawn.call_seconds() > 0
assert torch.cuda.current_stream() == torch.cuda.default_stream()
"""

LADDER = '''
import sys
import torch
from torch.utils.flop_counter import FlopCounterMode
from packed_batches import random_batch, small_config
from padded_step import PaddedModel, collate, wanted
from step_facts import step_flop
import test_ladder
from test_ladder import Rungs
from test_step import OBJECTIVES, predicted
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
        super().__init__(*arguments[:-2])

test_ladder.CapturedStep, test_ladder.pool_bytes = Replayed, lambda pool: 7
for rung in ladder.rungs.values():
    rung()
ladder.rungs = {"cuda graphs": ladder._captured()}  # the others told theirs above
assert test_ladder.room_of(256) == {"text": 5503, "visual": 11008, "speech": 11008}
weights = sum(parameter.nbytes for parameter in ladder.ours.parameters())
assert ladder.facts()["cuda graphs"]["peak_bytes"] > weights

batch = random_batch(config, [(9, 5, 8)] * 6)  # of one length: the padded model pads nothing
# The padded model adds its mask to all features, and so has a gradient of the projections' inputs too.
inputs = 2 * config.hidden_size * sum(len(getattr(batch, m)) * config.feature_width(m) for m in ("visual", "speech"))
for objective in OBJECTIVES:
    (view,) = objectives.views_for(batch, objectives.build({objective: {}})[objective], torch.tensor([1, 1]))
    head, targets = wanted(view, config)
    with FlopCounterMode(display=False) as counter:
        PaddedModel(config).loss(head, collate(view, config), targets).backward()
    assert counter.get_total_flops() == step_flop(config, batch, len(targets), predicted(config, head)) + inputs
'''


def run(code: str) -> None:
    path = os.pathsep.join(p for p in (str(ROOT), str(ROOT / "python_tests"), os.environ.get("PYTHONPATH")) if p)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_contestants_agree_and_the_ladder_and_its_facts():
    """In one process, most of whose time goes to imports."""
    run(CODE + ATTENTION + LADDER)


@pytest.mark.gpu
def test_what_cannot_be_captured_is_timed_by_events():
    run(TIMING)
