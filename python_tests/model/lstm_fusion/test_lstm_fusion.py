"""LSTM fusion: what each LSTM reads, what hidden and absent rows are to it, and that a saved model says the same."""

import numpy as np
import pytest
import torch
from packed_batches import random_batch, small_config

from memofast.data import Split, View, write_corpus
from memofast.data.batch import StreamRows
from memofast.data.conditions import keep
from memofast.data.feature_statistics import feature_statistics
from memofast.errors import MemofastError
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.model.compatibility import conditions_for
from memofast.model.families import FAMILIES, open_emotion_model
from memofast.model.lstm_fusion import LstmFusionConfig, LstmFusionForEmotion
from memofast.model.lstm_fusion.emotion import RowsLstm
from memofast.store import FeatureWriter, TextWriter

CLASSES = ("calm", "glad", "sad")
INPUTS = [  # not in the order of their names
    {"name": "visual", "width": 21, "of": "visual"},
    {"name": "speech", "width": 24, "of": "speech"},
    {"name": "glove", "width": 5, "of": "text"},
]
LENGTHS = [(7, 5, 9), (3, 0, 4), (12, 33, 0), (5, 6, 17)]
RNG = torch.tensor([11, 3])


def a_model(**options) -> LstmFusionForEmotion:
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: n for n, name in enumerate(CLASSES)}}
    model = LstmFusionForEmotion(LstmFusionConfig(INPUTS, hidden_size=6, **named, **options)).eval()
    for number, lstm in enumerate(model.inputs.values()):
        lstm.standardise(torch.randn(lstm.width) + number, torch.rand(lstm.width) + 0.5)
    return model


def a_batch(seed=0):
    batch = random_batch(small_config(), LENGTHS, seed=seed)
    lengths = [3, 1, 0, 4]
    values = torch.zeros(8, 8)
    values[:, :5] = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
    offsets = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    batch.streams = {"glove": StreamRows(values, offsets, "text")}
    return batch


def rows_of(batch, name, sample):
    stream = batch.streams.get(name)
    values, offsets = (stream.values, stream.offsets) if stream else (batch.rows_of(name), batch.offsets_of(name))
    return values[offsets[sample] : offsets[sample + 1]]


def by_hand(model, batch, sample):
    """Logits of one sample, an LSTM at a time, without packing."""
    ends = []
    for name, lstm in model.inputs.items():
        rows = (rows_of(batch, name, sample)[:, : lstm.width] - lstm.mean) / lstm.std
        if len(rows):
            _, (last, _) = lstm.lstm(rows[None])
            ends.append(torch.cat([last[-2, 0], last[-1, 0]]))
        else:
            ends.append(torch.zeros(12))
    return model.classifier(torch.relu(model.join(torch.cat(ends))))


@pytest.mark.parametrize("layers", [1, 2])
def test_each_sample_is_what_it_would_be_alone(layers):
    model, batch = a_model(num_hidden_layers=layers), a_batch()
    with torch.no_grad():
        logits = model(batch)
        for sample in range(4):
            torch.testing.assert_close(logits[sample], by_hand(model, batch, sample), rtol=1e-5, atol=1e-6)
        probabilities = model.probabilities(batch)
    torch.testing.assert_close(probabilities, logits.softmax(-1))


def test_a_hidden_row_is_read_as_the_mean():
    model, batch = a_model(), a_batch()
    source = torch.arange(len(batch.visual), dtype=torch.int32)
    source[[1, 7]] = -1
    source[2] = 0
    shown = torch.clone(batch.visual)
    shown[2] = batch.visual[0]
    shown[[1, 7], :21] = model.inputs["visual"].mean
    with torch.no_grad():
        hidden = model(View(batch, sources={"visual": source}))
        batch.visual = shown
        torch.testing.assert_close(hidden, model(batch))


@pytest.mark.parametrize(
    ("condition", "silent"), [("l", ["visual", "speech"]), ("va", ["glove"]), ("v", ["speech", "glove"])]
)
def test_what_a_condition_hides_counts_for_nothing(condition, silent):
    model, batch = a_model(), a_batch()
    other = a_batch(seed=5)
    for name in silent:
        if name == "glove":
            batch.streams["glove"].values = other.streams["glove"].values
        else:
            setattr(batch, name, getattr(other, name))
    with torch.no_grad():
        torch.testing.assert_close(model(keep(batch, condition)), model(keep(a_batch(), condition)))
        assert not torch.allclose(model(batch), model(a_batch()))


def test_dropout_is_a_function_of_seed_update_and_sample():
    model, batch = a_model(hidden_dropout_prob=0.4).train(), a_batch()
    first = model(batch, rng=RNG)
    assert torch.equal(first, model(batch, rng=RNG))
    assert not torch.equal(first, model(batch, rng=RNG + torch.tensor([0, 1])))
    assert not torch.equal(first, model(View(batch, draw=1), rng=RNG))
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(batch.select(order), rng=RNG), first[order])
    with pytest.raises(ValueError, match="rng"):
        model(batch)


def test_a_view_of_other_positions_and_a_batch_without_the_stream_are_refused():
    model, batch = a_model(), a_batch()
    with pytest.raises(ValueError, match="positions"):
        model(View(batch, positions={"visual": torch.zeros(len(batch.visual), dtype=torch.int32)}))
    batch.streams = {}
    with pytest.raises(ValueError, match="glove"):
        model(batch)


def test_a_saved_model_says_the_same(tmp_path):
    model, batch = a_model(problem_type="multi_label_classification"), a_batch()
    model.save_pretrained(tmp_path / "model")
    opened = open_emotion_model(tmp_path / "model")
    assert list(opened.inputs) == ["visual", "speech", "glove"]
    assert (opened.classes, opened.kind, opened.reads) == (CLASSES, "multi", {"visual": 21, "speech": 24, "glove": 5})
    assert opened.streams == {"glove": "text"} and not opened.training
    assert torch.equal(opened.probabilities(batch), model.probabilities(batch))


def test_weights_of_another_model_are_refused(tmp_path):
    a_model().save_pretrained(tmp_path / "model")
    wider = LstmFusionConfig(INPUTS, hidden_size=7, id2label=dict(enumerate(CLASSES)))
    wider.save_pretrained(tmp_path / "model")
    with pytest.raises(MemofastError, match="model"):
        open_emotion_model(tmp_path / "model")


@pytest.fixture
def corpus(tmp_path):
    random = np.random.default_rng(1)
    ids = [f"clip{number}" for number in range(20)]
    with (
        TextWriter(tmp_path / "text", classes=CLASSES) as text,
        FeatureWriter(tmp_path / "visual", 13) as visual,
        FeatureWriter(tmp_path / "glove", 5) as glove,
    ):
        for number, id in enumerate(ids):
            text.put(id, [1000 + number, 1001], [0, 1], label=number % 3)
            if number % 4:
                visual.put(id, 3 + 2 * random.standard_normal((1 + number % 5, 13)))
            if number % 7:
                glove.put(id, random.standard_normal((2, 5)) - 1)
    return write_corpus(
        tmp_path, "clips", {"text": tmp_path / "text", "visual": tmp_path / "visual"},
        {"train": ids[:15], "test": ids[15:]}, streams={"glove": (tmp_path / "glove", "text")},
    )  # fmt: skip


def started(corpus, **options):
    family = FAMILIES["lstm_fusion"]
    section = family.section(family="lstm_fusion", hidden_size=6, **options)
    return family.start(section, "single", CLASSES, corpus.split("train"))


def test_it_starts_from_what_the_corpus_has(corpus):
    model = started(corpus)
    assert model.reads == {"visual": 13, "glove": 5}
    for name, lstm in model.inputs.items():
        mean, std = feature_statistics(corpus.split("train"), name)
        assert torch.equal(lstm.mean, mean) and torch.equal(lstm.std, std)
    assert conditions_for(model, corpus) == ("l", "v", "lv")
    chosen = started(corpus, inputs=["glove"])
    assert chosen.reads == {"glove": 5} and conditions_for(chosen, corpus) == ("l",)


def test_a_split_is_packed_with_the_streams_that_are_read(corpus):
    model, split = started(corpus).eval(), corpus.split("test")
    found = predict_split(model, split, label_space_of(model))
    batch = split.reading(["glove"]).pack(range(5))
    np.testing.assert_allclose(found.scores, model.probabilities(batch).numpy(), rtol=1e-5)
    assert isinstance(split, Split) and split.streams == ()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [(["glov"], "did you mean glove"), (["text"], "no rows 'text'"), (["speech"], "no rows 'speech'")],
)
def test_inputs_that_the_corpus_does_not_have_are_one_line(corpus, inputs, message):
    with pytest.raises(MemofastError, match=message) as error:
        started(corpus, inputs=inputs)
    assert "\n" not in str(error.value)


def test_without_rows_or_with_a_prompt_it_does_not_start(corpus):
    family = FAMILIES["lstm_fusion"]
    section = family.section(family="lstm_fusion")
    with pytest.raises(MemofastError, match="feature rows"):
        family.start(section, "single", CLASSES, None)
    with pytest.raises(MemofastError, match="prompt"):
        family.start(section, "single", CLASSES, corpus.split("train"), section)


def test_columns_that_never_change_are_nothing():
    lstm = RowsLstm(3, LstmFusionConfig(INPUTS, hidden_size=2))
    lstm.standardise(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 2.0]))
    assert lstm.std.tolist() == [0.5, 0.0, 2.0] and lstm.mean.tolist() == [1.0, 2.0, 3.0]
    assert lstm.standardised(torch.tensor([[2.0, 9.0, 1.0]]), None).tolist() == [[2.0, 0.0, -1.0]]


def test_a_step_trains_every_weight():
    model, batch = a_model(hidden_dropout_prob=0.0).train(), a_batch()
    model(batch).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
