"""MMSA's own classes in training, with batch statistics and gradients, where MMSA 2.2.1 is installed."""

from types import SimpleNamespace

import pytest
import torch
from sequence_networks import NOTHING, ORDER, WIDTHS, a_network, padded, random_rows

from memofast.model.sequence.network import Shape
from memofast.model.sequence.originals import renamed

LENGTHS = {"text": 6, "visual": 11, "speech": 4}
VECTORS = {"hidden_dims": (8, 4, 6), "text_out": 5, "post_fusion_dim": 7, "dropouts": (0, 0, 0, 0), "rank": 3}
OURS = {"text_hidden": 8, "text_width": 5, "visual_width": 6, "speech_width": 4}
OURS |= {"visual_dropout": 0, "speech_dropout": 0}
FUSION = OURS | {"fusion_width": 7, "fusion_dropout": 0}
HEADS = {"post_text_dim": 5, "post_audio_dim": 4, "post_video_dim": 3, "post_dropouts": (0, 0, 0, 0)}
MANY = VECTORS | HEADS | {"dropouts": (0, 0, 0)}
OUR_HEADS = {"text_head": 5, "speech_head": 4, "visual_head": 3}
OUR_HEADS |= {f"{name}_head_dropout": 0 for name in WIDTHS}
CASES = {
    "tfn": (VECTORS, FUSION),
    "lf_dnn": (VECTORS, FUSION),
    "lmf": (VECTORS, OURS | {"text_width": 4}),
    "mtfn": (MANY, FUSION | OUR_HEADS),
    "mlf_dnn": (MANY, FUSION | OUR_HEADS),
    "mlmf": (MANY, OURS | OUR_HEADS | {"text_width": 4}),
    "ef_lstm": (
        {"hidden_dims": 8, "num_layers": 3, "dropout": 0, "need_model_aligned": True},
        {"width": 8, "layers": 3, "dropout": 0},
    ),
}  # fmt: skip


class Arguments(SimpleNamespace):
    def get(self, name, default=None):
        return getattr(self, name, default)

    def keys(self):
        return vars(self).keys()

    def __setitem__(self, name, value):
        setattr(self, name, value)

    def __getitem__(self, name):
        return getattr(self, name)


@pytest.mark.parametrize("kind", CASES)
def test_outputs_statistics_and_gradients(kind):
    amio = pytest.importorskip("MMSA.models", reason="MMSA 2.2.1 is not installed").AMIO
    theirs, ours = CASES[kind]
    torch.manual_seed(3)
    widths, lengths = [WIDTHS[name] for name in ORDER], [LENGTHS[name] for name in ORDER]
    arguments = {"model_name": kind, "feature_dims": widths, "seq_lens": lengths, "train_mode": "regression"}
    original = amio(Arguments(**arguments, num_classes=1, **theirs)).train()
    network = a_network(kind, Shape(WIDTHS, 1, "regression", LENGTHS), compat=True, **ours).train()
    network.load_state_dict(renamed(original.Model.state_dict(), network.state_names))
    rows = random_rows({name: [length, 2, length - 1] for name, length in LENGTHS.items()})
    given = [rows[name].values for name in ORDER]
    if kind != "ef_lstm":  # need_normalized: the loader's mean over the padded length
        given[1:] = [values.mean(1, keepdim=True) for values in given[1:]]
    theirs = original(*given)
    answers = network({name: padded(rows[name].values, rows[name].lengths) for name in ORDER}, NOTHING)
    ours = {"M": answers.outputs} | {"TAV"[ORDER.index(name)]: values for name, values in answers.modalities.items()}
    assert ours.keys() == {"M", "T", "A", "V"} & theirs.keys()
    outputs, expected = (torch.cat([every[name] for name in ours], 1) for every in (ours, theirs))
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-5)
    expected.square().sum().backward()
    outputs.square().sum().backward()
    wanted = renamed({name: p.grad for name, p in original.Model.named_parameters()}, network.state_names)
    assert wanted.keys() == dict(network.named_parameters()).keys()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5)
    after = renamed(original.Model.state_dict(), network.state_names)
    for name, values in network.state_dict().items():
        torch.testing.assert_close(values, after[name], rtol=0, atol=1e-5)
