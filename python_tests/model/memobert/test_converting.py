"""Files of the original as folders and back: every variant, what has no place, and files that are none."""

import json

import pytest
import torch
from original_files import small_original
from packed_batches import random_batch, small_config
from safetensors.torch import load_file, save_file

from memofast.errors import MemofastError
from memofast.model import MemoBertForEmotion, MemoBertForPreTraining, MemoBertModel
from memofast.model.families import open_emotion_model
from memofast.model.memobert.converting import KEPT, to_file, to_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*attention heads"),
    pytest.mark.filterwarnings("ignore:.*no place"),
    pytest.mark.filterwarnings("ignore:.*begin with random weights"),
]
VARIANTS = {
    "all": {},
    "text": {"visual_width": 0, "speech_width": 0},
    "faces": {"speech_width": 0},
    "speech": {"visual_width": 0, "shared_types": True},
    "shared": {"shared_types": True},
    "sinusoid": {"position_encoding": "sinusoid"},
    "block": {"projection_block": True},
    "matching": {"heads": {"matching": {"kind": "pooled", "outputs": 2}}},
}
LARE = "uniter.embeddings.pos_tag_embedding.weight"


def saved(tensors, path):
    torch.save(tensors, path)
    return path


def assert_comes_back(given, folder):
    to_folder(saved(given, folder / "in.pt"), folder / "model")
    to_file(folder / "model", folder / "back.pt")
    back = torch.load(folder / "back.pt", weights_only=True)
    assert [*back] == [*given]
    for name, tensor in given.items():
        assert tensor.dtype is back[name].dtype and torch.equal(tensor, back[name]), name


def refused(call, *arguments, **options) -> str:
    with pytest.raises(MemofastError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_variant_comes_back_bit_for_bit(tmp_path, variant, dtype):
    given = {name: weight.to(dtype) for name, weight in small_original(**VARIANTS[variant]).items()}
    given = dict(reversed(given.items()))
    for name in [name for name in given if "mask_embedding" in name]:
        given[name][0] = -0.25  # a row that takes no part
    assert_comes_back(given, tmp_path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for name, value in VARIANTS[variant].items():
        assert config[name] == value or config[name]["matching"]["outputs"] == 2
    loaded = MemoBertForPreTraining.from_pretrained(tmp_path / "model").state_dict()
    for name, weight in MemoBertForPreTraining.from_original(tmp_path / "in.pt").state_dict().items():
        if not name.startswith("memobert.embeddings.types"):  # a row of no modality is random in one of them
            assert torch.equal(weight, loaded[name]), name


def test_types_names_and_tensors_of_all_kinds_come_back(tmp_path):
    given = small_original()
    name = "uniter.embeddings.LayerNorm."
    given = {
        **{key: weight for key, weight in given.items() if not key.startswith(name)},
        f"{name}gamma": given[f"{name}weight"],
        f"{name}beta": given[f"{name}bias"].to(torch.bfloat16),
        "cls.predictions.decoder.bias": given["cls.predictions.bias"],
        "uniter.embeddings.position_ids": torch.arange(64)[None],
        "emo_classifier.output.3.bias": torch.tensor([0.5, -0.0]),
        "harditm.counts": torch.tensor(7),
        "none": torch.zeros(0, 3),
        LARE: torch.randn(5, 64),
    }
    given["feat_regress.weight"] = given["feat_regress.weight"] + 1  # no longer the projection
    assert_comes_back(given, tmp_path)
    lines = to_folder(tmp_path / "in.pt", tmp_path / "again")
    for kept in ("emo_classifier.output.3.bias", "harditm.counts", "none", LARE, "feat_regress.weight"):
        assert kept in lines[-1]
    assert len(load_file(tmp_path / "model" / KEPT)) == 6 and "cls.predictions" not in lines[-1]


@pytest.mark.parametrize("head", ["vqa", "small_vqa", "emocls_inner"])
def test_fine_tuned_files_keep_head_and_classes(tmp_path, head):
    torch.manual_seed(2)
    names = {0: "sad", 1: "glad", 2: "other"}
    config = small_config(hidden_size=64, num_attention_heads=2, emotion_head=head, id2label=names)
    model = MemoBertForEmotion(config).eval()
    torch.nn.init.normal_(model.emotion.classifier.bias)
    model.save_pretrained(tmp_path / "own")
    to_file(tmp_path / "own", tmp_path / "file.pt")
    to_folder(tmp_path / "file.pt", tmp_path / "again")
    batch = random_batch(config)
    for found in (open_emotion_model(tmp_path / "again"), open_emotion_model(tmp_path / "file.pt")):
        assert found.classes == ("sad", "glad", "other") and found.config.num_attention_heads == 2
        assert torch.equal(found(batch), model(batch))
    assert_comes_back(torch.load(tmp_path / "file.pt", weights_only=True), tmp_path)
    begun = MemoBertForEmotion.start(tmp_path / "file.pt", ("a", "b"), emotion_head="emocls")
    assert torch.equal(begun.memobert.pooler.weight, model.memobert.pooler.weight) and begun.classes == ("a", "b")


def test_what_the_original_has_no_name_for(tmp_path):
    MemoBertForEmotion(small_config(num_labels=3)).save_pretrained(tmp_path / "emocls")
    assert "'emocls' is a linear map alone" in refused(to_file, tmp_path / "emocls", tmp_path / "x.pt")
    further = {"visual_order": {"kind": "classes", "modality": "visual", "outputs": 9}}
    MemoBertForPreTraining(small_config(heads=further)).save_pretrained(tmp_path / "order")
    assert "heads.visual_order.classifier.bias" in "\n".join(to_file(tmp_path / "order", tmp_path / "order.pt"))
    assert "is there already" in refused(to_file, tmp_path / "order", tmp_path / "order.pt")
    assert not (tmp_path / "x.pt").exists() and not (tmp_path / "x.json").exists()


def test_speech_without_faces_computes_the_same_under_the_originals_names(tmp_path):
    torch.manual_seed(4)
    model = MemoBertModel(small_config(visual_width=0)).eval()
    torch.nn.init.normal_(model.embeddings.types.weight)
    model.save_pretrained(tmp_path / "own")
    to_file(tmp_path / "own", tmp_path / "file.pt")
    again, batch = MemoBertModel.from_original(tmp_path / "file.pt"), random_batch(model.config, [(4, 0, 5), (3, 0, 2)])
    assert again.config.shared_types and not model.config.shared_types
    torch.testing.assert_close(again(batch).hidden, model(batch).hidden, rtol=0, atol=0)


def test_a_model_that_was_trained_since_is_written_as_it_is(tmp_path):
    given = {name: weight.half() for name, weight in small_original().items()}
    given["uniter.img_embeddings.mask_embedding.weight"][0] = 0.5
    to_folder(saved(given | {LARE: torch.ones(5, 64)}, tmp_path / "in.pt"), tmp_path / "model")
    model = MemoBertForPreTraining.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.memobert.pooler.bias += 1e-5
        model.memobert.embeddings.visual.mask += 1
    model.save_pretrained(tmp_path / "model")
    (line,) = (line for line in to_file(tmp_path / "model", tmp_path / "back.pt") if "own type" in line)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert "uniter.pooler.dense.bias" in line and back["uniter.pooler.dense.bias"].dtype is torch.float32
    assert torch.equal(back["uniter.pooler.dense.bias"], model.memobert.pooler.bias)
    mask = model.memobert.embeddings.visual.mask
    assert torch.equal(back["uniter.img_embeddings.mask_embedding.weight"][1].float(), mask.detach())
    assert back["uniter.img_embeddings.mask_embedding.weight"][0].eq(0.5).all()
    assert torch.equal(back["uniter.pooler.dense.weight"], given["uniter.pooler.dense.weight"]) and LARE in back


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("uniter.img_embeddings.further.weight", torch.zeros(2), "img_embeddings.further.weight belongs to an encoder"),
        ("uniter.encoder.layer.0.adapter.weight", torch.zeros(2), "encoder.layer.0.adapter.weight belongs to"),
        ("uniter.pooler.dense.bias", torch.full((64,), float("nan")), "pooler.dense.bias is not finite"),
        ("uniter.pooler.dense.bias", torch.full((64,), 1e-9, dtype=torch.float64) + 1, "would not come back"),
        ("uniter.pooler.dense.bias", torch.zeros(63), r"pooler.bias is [63], the model's is [64]"),
        ("uniter.embeddings.token_type_embeddings.weight", torch.zeros(3, 64), "no table of its types"),
        ("uniter.img_embeddings.projs_linear.1.weight", torch.zeros(64, 64), "it lacks img_embeddings.projs_linear"),
        ("output.output.0.weight", torch.zeros(96, 64), "its tables have other shapes"),
        ("output.output.1.weight", torch.zeros(64, 64), "'output.output.4.weight' is missing"),
        ("region_classifier.net.0.weight", torch.zeros(64, 60), "heads.visual_emotions.transform.dense.weight is"),
        ("emo_classifier.bias", torch.zeros(2, dtype=torch.complex64), "complex64"),
        ("uniter.pooler.dense.bias", torch.zeros(64).to(torch.float8_e4m3fn), "float8"),
        ("__metadata__", torch.zeros(2), "__metadata__"),
        ("emo_classifier.weight", torch.zeros(1).expand(2**40), "names"),
    ],
)
def test_tensors_that_make_no_model(tmp_path, name, tensor, message):
    path = saved(small_original() | {name: tensor}, tmp_path / "in.pt")
    assert message in refused(to_folder, path, tmp_path / "model")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.pt"]


def test_files_that_are_none(tmp_path):
    path = tmp_path / "in.pt"
    for contents in (b"", b"PK\x03\x04 and no more", b"not a file of torch", b"\x80\x02}q\x00."):
        path.write_bytes(contents)
        refused(to_folder, path, tmp_path / "model")
    whole = saved(small_original(), path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(to_folder, path, tmp_path / "model")
    for other in ({"model": small_original()}, [1], {"layer.weight": torch.zeros(2)}, {3: torch.zeros(2)}):
        assert "no " in refused(to_folder, saved(other, path), tmp_path / "model")
    saved({"uniter.embeddings.word_embeddings.weight": torch.zeros(9, 60)}, path)
    assert "is missing" in refused(to_folder, path, tmp_path / "model")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.pt"]


def test_what_a_folder_keeps_may_be_damaged(tmp_path):
    to_folder(saved(small_original() | {"further": torch.ones(2)}, tmp_path / "in.pt"), tmp_path / "model")
    path, out = tmp_path / "model" / KEPT, tmp_path / "back.pt"
    kept = load_file(path)
    for metadata, message in (
        (None, "cannot be read"), ({"names": "{"}, "cannot be read"), ({"names": '{"a": "float4"}'}, "names.a"),
        ({"names": '{"gone": "float32"}'}, "names gone, which neither"), ({"names": "[1]"}, "must be a mapping"),
    ):  # fmt: skip
        save_file(kept, path, metadata=metadata)
        assert message in refused(to_file, tmp_path / "model", out)
    path.write_bytes(path.read_bytes()[:50])
    assert "cannot be read" in refused(to_file, tmp_path / "model", out)
    assert not out.exists() and not out.with_suffix(".json").exists()
