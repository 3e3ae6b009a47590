"""The packed MemoBert-flow against one that takes sample after sample, and what must hold of it on any batch."""

import json
import warnings

import pytest
import torch
from flow_reference import FlowReference, flow_config, flow_model
from packed_batches import random_batch, select
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from memofast.data import Read, View
from memofast.data.batch import Capacity
from memofast.data.view import padded
from memofast.errors import MemofastError, MemofastWarning
from memofast.model.families import family_of, open_encoder
from memofast.model.memobert.export import export_emotion_model
from memofast.model.memobert_flow import MemoBertFlowForEmotion, MemoBertFlowForPreTraining, MemoBertFlowModel
from memofast.model.memobert_flow.models import evenly_spaced
from memofast.model.memobert_flow.padded import PaddedFlowEmotionModel

RNG = torch.tensor([11, 3])
ONE_MODALITY_LESS = [(5, 0, 3), (9, 0, 1), (2, 0, 0)]


def own_rows(batch, modality):
    return torch.arange(len(batch.rows_of(modality)), dtype=torch.int32)


def hidden_in(batch, modality, *rows):
    source = own_rows(batch, modality)
    source[list(rows)] = -1
    return source


@pytest.mark.parametrize("lengths", [None, ONE_MODALITY_LESS])
def test_packed_equals_one_sample_after_another(lengths):
    model = flow_model()
    batch = random_batch(model.config, lengths)
    assert (batch.visual is None) == (lengths is not None)
    sources = {} if lengths else {"visual": hidden_in(batch, "visual", 3, 40), "speech": hidden_in(batch, "speech", 9)}
    expected = FlowReference(model, batch, sources).hidden()
    torch.testing.assert_close(model(View(batch, sources=sources)).hidden, expected, rtol=1e-4, atol=2e-5)


def test_with_dropout_and_in_gradients():
    model = flow_model(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.1).train()
    batch = random_batch(model.config)
    weight = torch.randn(batch.rows, model.config.hidden_size)
    used = {name: p for name, p in model.named_parameters() if not name.startswith("pooler") and "mask" not in name}
    (ours, our_grads), (theirs, their_grads) = (
        (hidden, torch.autograd.grad((hidden * weight).sum(), list(used.values())))
        for hidden in (model(batch, rng=RNG).hidden, FlowReference(model, batch, rng=RNG).hidden())
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for name, one, other in zip(used, our_grads, their_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max() + 1e-3), msg=name)
        assert other.abs().max() > 0, name


def test_no_two_layers_draw_the_same_dropout():
    model = flow_model()
    indices = [module.index for module in model.modules() if hasattr(module, "index")]
    assert len(indices) == 8 and len(set(indices)) == 8


def test_a_sample_does_not_depend_on_the_others():
    model = flow_model()
    batch = random_batch(model.config)
    whole = model(batch).hidden
    for number in range(batch.samples):
        alone = model(select(batch, [number])).hidden
        begin, end = batch.offsets[number : number + 2].tolist()
        torch.testing.assert_close(alone, whole[begin:end], rtol=1e-5, atol=1e-5)


def test_the_content_of_a_hidden_row_changes_nothing():
    """And one that is replaced is not told by its neighbours either."""
    model = flow_model()
    batch, other = (random_batch(model.config) for _ in range(2))
    other.visual[7] += 3.0
    replaced = own_rows(batch, "visual")
    replaced[7] = 6
    for source in (hidden_in(batch, "visual", 7), replaced):
        one, two = (model(View(of, sources={"visual": source})).hidden for of in (batch, other))
        assert torch.equal(one, two)
    assert not torch.equal(model(batch).hidden, model(other).hidden)


def test_rows_that_change_places_take_what_their_encoder_made_along():
    model = flow_model()
    batch = random_batch(model.config)
    source = own_rows(batch, "speech")
    source[[10, 12, 11]] = source[[11, 10, 12]]
    plain, moved = (FlowReference(model, batch, {"speech": of}) for of in (own_rows(batch, "speech"), source))
    ours = model(View(batch, sources={"speech": source})).hidden
    torch.testing.assert_close(ours, moved.hidden(), rtol=1e-4, atol=2e-5)
    assert not torch.allclose(ours, plain.hidden(), atol=1e-3)
    # positions that a view gives to places go to the content that comes to stand there, so that each keeps its own
    offsets = batch.speech_offsets
    own = torch.cat([torch.arange(n, dtype=torch.int32) for n in offsets.diff().tolist()])
    as_original = View(batch, sources={"speech": source}, positions={"speech": own[source.long()]})
    assert torch.equal(model(as_original).hidden, ours)


def test_a_batch_of_fixed_shape_gives_the_same_rows():
    model = flow_model()
    batch = random_batch(model.config)
    view = View(batch, sources={"visual": hidden_in(batch, "visual", 2)})
    capacity = Capacity(batch.samples + 2, len(batch.token_ids) + 5, len(batch.visual) + 3, len(batch.speech) + 4)
    (fixed,) = padded([view], [capacity], [{}])
    made = model(fixed).hidden
    assert len(made) == batch.rows + 12
    torch.testing.assert_close(made[: batch.rows], model(view).hidden, rtol=1e-6, atol=1e-6)
    assert not made[batch.rows :].any()


@pytest.mark.parametrize("lengths", [None, ONE_MODALITY_LESS])
def test_every_parameter_takes_part_in_every_step(lengths):
    model = flow_model(MemoBertFlowForPreTraining)
    batch = random_batch(model.config, lengths)
    view = View(batch, reads={"words": Read("words", torch.tensor([1, 2]))})
    model(view)["words"].sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_frozen_encoders_keep_their_weights_and_the_rest_does_not():
    model = flow_model()
    model.freeze(["text", "speech"])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    own = ("embeddings.word", "embeddings.position", "embeddings.types", "embeddings.norm", "embeddings.text_layers")
    assert frozen == {
        name for name, _ in model.named_parameters() if name.startswith((*own, "embeddings.speech.layers."))
    }
    model.freeze(None)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def save_bert(folder, layers=4, heads=4):
    torch.manual_seed(3)
    sizes = {"vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    bert = BertForMaskedLM(BertConfig(**sizes, num_hidden_layers=layers, num_attention_heads=heads))
    bert.save_pretrained(folder)
    return bert


def test_layers_of_a_bert_are_evenly_spaced():
    assert evenly_spaced(12, 12) == [*range(12)]
    assert evenly_spaced(6, 12) == [1, 3, 5, 7, 9, 11]
    assert evenly_spaced(3, 12) == [3, 7, 11]
    assert evenly_spaced(0, 12) == []


def test_it_starts_from_a_bert(tmp_path):
    """Text through all layers of the BERT is what the BERT makes of it; the cross encoder follows only with as many
    heads."""
    bert = save_bert(tmp_path)
    with pytest.warns(MemofastWarning, match="its layers have 4 heads, the cross encoder's 2"):
        model = MemoBertFlowModel.from_bert(tmp_path, visual_width=0, speech_width=0, num_attention_heads=2)
    assert (model.config.text_layers, model.config.unimodal_heads, model.config.num_hidden_layers) == (4, 4, 3)
    batch = random_batch(model.config, [(7, 0, 0), (4, 0, 0)], soft_labels=False)
    with torch.no_grad():
        model.embeddings.flow_types.weight.zero_()
        ours = model.embeddings(View(batch), None)
        for begin, end in ((0, 7), (7, 11)):
            theirs = bert.bert.eval()(batch.token_ids[None, begin:end].long()).last_hidden_state[0]
            torch.testing.assert_close(ours[begin:end], theirs, rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = {"text_layers": 2, "num_hidden_layers": 1, "num_attention_heads": 4}
        model = MemoBertFlowModel.from_bert(tmp_path, visual_width=0, speech_width=0, **asked)
    theirs = [bert.bert.encoder.layer[number].output.dense.weight for number in (1, 3, 3)]
    ours = [layer.output.weight for layer in (*model.embeddings.text_layers, *model.encoder.layers)]
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    with pytest.raises(MemofastError, match="has 4 layers, not 5"):
        MemoBertFlowModel.from_bert(tmp_path, text_layers=5, num_attention_heads=4)


def test_a_folder_gives_the_same_model_back(tmp_path):
    model = flow_model(MemoBertFlowForPreTraining)
    model.save_pretrained(tmp_path)
    again = open_encoder(tmp_path)
    batch = random_batch(model.config)
    assert family_of(tmp_path).name == "memobert-flow" and again.width == 32
    assert torch.equal(again(batch).hidden, model.memobert(batch).hidden)
    classes = ("calm", "glad", "sad")
    emotion = MemoBertFlowForEmotion.start(tmp_path, classes, emotion_head="emocls", speech_width=0)
    assert emotion.config.speech_width == 0 and emotion.classes == classes
    ours = emotion.state_dict()["memobert.embeddings.visual.layers.0.qkv.weight"]
    assert torch.equal(ours, model.state_dict()["memobert.embeddings.visual.layers.0.qkv.weight"])


def test_the_padded_form_says_the_same():
    """What `memofast export` writes; a sample without rows of a modality has NaN in none of its outputs."""
    model = flow_model(MemoBertFlowForEmotion, num_labels=3, emotion_head="emocls")
    batch = random_batch(model.config)
    rows = batch.to_padded()
    features = [rows.visual[..., :21], rows.visual_lengths, rows.speech, rows.speech_lengths]
    ours = PaddedFlowEmotionModel(model)(rows.token_ids.long(), rows.text_lengths, *features)
    torch.testing.assert_close(ours, model(batch), rtol=1e-4, atol=2e-5)
    wordless = flow_model(MemoBertFlowForEmotion, sound={"network": "waveform"})
    with pytest.raises(MemofastError, match="makes its rows of speech"):
        export_emotion_model(wordless, PaddedFlowEmotionModel)


@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        ("unimodal_heads", 5, "unimodal_heads 5"),
        ("text_layers", -1, "text_layers"),
        ("text_layers", 90, "lack embeddings.text_layers.10"),
        ("visual_layers", 10**9, "visual_layers"),
        ("flow_types", "yes", "flow_types"),
        ("sound", {"network": "vggish"}, "sound.network"),
        ("sound", {"network": "wav2vec2"}, "sound"),
        ("sound", {"network": "wav2vec2", "settings": {"conv_stride": [5, 2]}}, "different lengths"),
        ("sound", {"network": "wav2vec2", "settings": {"layerdrop": 0.1}}, "layerdrop"),
        ("hidden_size", 10**12, "hidden_size"),
    ],
)
def test_a_damaged_configuration_is_told_in_one_line(entry, value, told, tmp_path):
    MemoBertFlowModel(flow_config()).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
    with pytest.raises(MemofastError) as error:
        open_encoder(tmp_path)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_weights_that_are_not_those_of_the_configuration_are_told(tmp_path):
    MemoBertFlowModel(flow_config()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = "embeddings.speech.layers.1.qkv.weight"
    save_file({name: weight for name, weight in weights.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(MemofastError, match=f"lack {lost}"):
        open_encoder(tmp_path)
