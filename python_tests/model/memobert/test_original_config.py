"""What lies beside a checkpoint of the original: attention heads, and whether it is of the same model."""

import json

import pytest
import torch
from original_files import small_original

from memofast.errors import MemofastError
from memofast.model.memobert.original import describe

MODEL = {"hidden_size": 64, "num_hidden_layers": 2, "hidden_act": "gelu", "speech_visual_use_same_type": False}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run" / "ckpt" / "model_step_9.pt"
    path.parent.mkdir(parents=True)
    torch.save(small_original(), path)
    return path


def heads(path, asked=None) -> int:
    return describe(path, asked).sizes["num_attention_heads"]


@pytest.mark.parametrize(
    "place", ["log/model.json", "log/hps.json", "ckpt/model.json", "ckpt/log/hps.json", "ckpt/model_step_9.json"]
)
def test_attention_heads_stand_beside_the_file(checkpoint, place):
    assert heads(checkpoint) == 1 and "64 wide as in every published size" in describe(checkpoint).notes[0]
    assert heads(checkpoint, 8) == 8 and not describe(checkpoint, 8).notes
    file = checkpoint.parent.parent / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(MODEL | {"num_attention_heads": 4}))
    assert heads(checkpoint) == heads(checkpoint, 4) == 4 and not describe(checkpoint).notes
    with pytest.raises(MemofastError, match="says 4 attention heads, not 8"):
        describe(checkpoint, 8)


def test_the_run_s_own_model_comes_before_its_options(checkpoint):
    log = checkpoint.parent.parent / "log"
    log.mkdir()
    (log / "hps.json").write_text(json.dumps({"num_attention_heads": 2, "model_config": "config/base.json"}))
    assert heads(checkpoint) == 2
    (log / "model.json").write_text(json.dumps({"num_attention_heads": 4}))
    assert heads(checkpoint) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 65}, "says hidden_size 65, the tensors of"), ({"num_hidden_layers": 3}, "num_hidden_layers 3"),
        ({"speech_visual_use_same_type": True}, "speech_visual_use_same_type True"),
        ({"use_sinusoid_position_embedding": True}, "use_sinusoid_position_embedding True"),
        ({"use_projs_av_modality": True}, "use_projs_av_modality True"), ({"hidden_act": "relu"}, "'relu'"),
        ({"num_attention_heads": "4"}, "num_attention_heads"), ({"num_attention_heads": 3}, "makes no heads whose"),
        ({"num_attention_heads": 10**9}, "num_attention_heads"), ("{", "not valid JSON"), ("[1]", "mapping"),
        (" " * (2**20 + 1), "larger than any"), ("[" * 100_000, "not valid JSON"),
    ],
)  # fmt: skip
def test_a_configuration_of_another_model_is_one_line(checkpoint, values, message):
    text = json.dumps({"num_attention_heads": 4} | values) if isinstance(values, dict) else values
    checkpoint.with_name("model.json").write_text(text)
    with pytest.raises(MemofastError, match=message) as error:
        describe(checkpoint)
    assert ("\n" not in str(error.value) and "model.json" in str(error.value)) or "makes no" in message


def test_of_another_width_the_heads_have_to_be_said(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(small_original(hidden_size=32, num_attention_heads=4), path)
    with pytest.raises(MemofastError, match="nothing says how many attention heads of its width 32"):
        describe(path)
    assert heads(path, 4) == 4
