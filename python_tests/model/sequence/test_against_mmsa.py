"""Networks whose variants have no golden file, against the package MMSA 2.2.1 where it is installed."""

from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from sequence_networks import NOTHING, WIDTHS, a_network, padded, samples_lesson
from torch import nn

from memofast.model.sequence.network import Shape
from memofast.model.sequence.originals import renamed

SHAPE = Shape(WIDTHS, 1, "regression", text_encoder=12)
LENGTHS = torch.tensor([6, 4, 5])
COMMON = {
    "feature_dims": [12, 5, 7], "need_data_aligned": True, "use_finetune": False, "use_bert": True,
    "pretrained": "none", "transformers": "bert", "train_mode": "regression",
}  # fmt: skip
SELF_MM = {
    "a_lstm_hidden_size": 4, "v_lstm_hidden_size": 5, "a_lstm_layers": 1, "v_lstm_layers": 1, "text_out": 12,
    "audio_out": 4, "video_out": 5, "a_lstm_dropout": 0.0, "v_lstm_dropout": 0.0, "post_fusion_dim": 6,
    "post_text_dim": 5, "post_audio_dim": 4, "post_video_dim": 5, "post_fusion_dropout": 0.0, "post_text_dropout": 0.0,
    "post_audio_dropout": 0.0, "post_video_dropout": 0.0,
}  # fmt: skip
MMIM = {
    "add_va": False, "d_vh": 4, "d_ah": 4, "d_vout": 8, "d_aout": 8, "n_layer": 1, "bidirectional": True, "d_prjh": 6,
    "dropout_a": 0.0, "dropout_v": 0.0, "dropout_prj": 0.0, "mmilb_mid_activation": "ReLU",
    "mmilb_last_activation": "Tanh", "cpc_layers": 1, "cpc_activation": "Tanh",
}  # fmt: skip
OWN = {
    "self_mm": {"recurrent_visual": 5, "recurrent_speech": 4, "summary_visual": 5, "summary_speech": 4}
    | {"width_joint": 6, "width_text": 5, "width_visual": 5, "width_speech": 4},
    "mmim": {"recurrent_visual": 4, "recurrent_speech": 4, "summary_visual": 8, "summary_speech": 8, "width": 6},
}


class Given(nn.Module):
    """In place of a BERT: hidden states as they are given."""

    def __init__(self, hidden: torch.Tensor):
        super().__init__()
        self.hidden = hidden

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.hidden


@pytest.mark.parametrize(
    ("kind", "place", "options"), [("self_mm", "multiTask", SELF_MM), ("mmim", "singleTask", MMIM)]
)
def test_aligned_corpora(kind, place, options, monkeypatch):
    """Rows of faces and speech over the text's length, beyond which they go on."""
    try:
        theirs = import_module(f"MMSA.models.{place}.{kind.upper()}")
    except ImportError as error:
        pytest.skip(f"MMSA 2.2.1 is not whole here: {error}")
    torch.manual_seed(1)
    hidden, speech, visual = (torch.randn(3, 6, width) for width in (12, 5, 7))
    monkeypatch.setattr(theirs, "BertTextEncoder", lambda **_: Given(hidden))
    original = getattr(theirs, kind.upper())(SimpleNamespace(**COMMON, **options)).eval()
    network = a_network(kind, SHAPE, compat=True, aligned=True, **OWN[kind])
    network.load_state_dict(renamed(original.state_dict(), network.state_names))
    text = torch.stack([torch.zeros(3, 6), (torch.arange(6) < LENGTHS[:, None]).float(), torch.zeros(3, 6)], 1)
    rows = {"text": padded(hidden, LENGTHS), "visual": padded(visual), "speech": padded(speech)}
    with torch.no_grad():
        wanted = original(text, (speech, 0), (visual, 0))
        answers = network(rows, NOTHING, samples_lesson(3, 1, network.learning_state(torch.arange(3))))
    torch.testing.assert_close(answers.outputs, wanted["M"], rtol=0, atol=1e-5)
    for name, letter in (("text", "T"), ("visual", "V"), ("speech", "A")):
        if kind == "self_mm":
            torch.testing.assert_close(answers.modalities[name], wanted[letter], rtol=0, atol=1e-5)
    if kind == "mmim":
        torch.testing.assert_close(-answers.losses["information"].mean(), wanted["lld"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(answers.losses["contrast"].mean(), wanted["nce"], rtol=1e-5, atol=1e-5)
