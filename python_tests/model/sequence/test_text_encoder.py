"""Networks over rows that read word pieces: through a BERT, or a table that is learnt."""

import numpy as np
import pytest
import torch
from sequence_networks import NOTHING
from spoken_corpus import answers_of, spoken_bert, spoken_corpus, spoken_model, spoken_task
from transformers import BertModel

from memofast import ops
from memofast.data.batch import pad_rows
from memofast.data.conditions import keep
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.model import draws
from memofast.model.compatibility import check_longest, check_words
from memofast.model.sequence.emotion import open_sequence_model
from memofast.model.sequence.rows import Rows
from memofast.ops import philox
from memofast.train.processes import Processes
from memofast.train.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return spoken_corpus(tmp_path_factory.mktemp("spoken") / "corpus")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return spoken_bert(tmp_path_factory.mktemp("spoken") / "bert")


def with_words(bert, **network):
    return {"init": str(bert), "network": {"kind": "recurrent_fusion", "width": 16, **network}}


def test_hidden_states_are_those_of_transformers(corpus, bert):
    model, batch = spoken_model(corpus, with_words(bert)).eval(), corpus.split("train").pack(np.arange(9))
    assert len(batch.text_offsets.diff().unique()) > 3
    ids = pad_rows(batch.token_ids[:, None], batch.text_offsets)[..., 0]
    theirs = BertModel.from_pretrained(bert).eval()
    with torch.no_grad():
        rows = model._encoded(View.of(batch), {}, NOTHING, None)
        wanted = theirs(ids.long(), attention_mask=rows.inside.long()).last_hidden_state
    assert torch.equal(rows.lengths, batch.text_offsets.diff().long())
    torch.testing.assert_close(rows.values, wanted * rows.inside[..., None], rtol=0, atol=1e-5)


def test_pooled_text_is_that_of_transformers(corpus, bert, monkeypatch):
    network = spoken_model(corpus, with_words(bert)).network
    assert "text_encoder.pooler.weight" not in spoken_model(corpus, with_words(bert)).state_dict()
    monkeypatch.setattr(type(network), "pooled", True)
    model, batch = spoken_model(corpus, with_words(bert)).eval(), corpus.split("train").pack(np.arange(9))
    ids = pad_rows(batch.token_ids[:, None], batch.text_offsets)[..., 0]
    inside = torch.arange(ids.shape[1]) < batch.text_offsets.diff()[:, None]
    with torch.no_grad():
        rows = model._encoded(View.of(batch), {}, NOTHING, None)
        wanted = BertModel.from_pretrained(bert).eval()(ids.long(), attention_mask=inside.long()).pooler_output
    torch.testing.assert_close(rows.values[:, 0], wanted, rtol=0, atol=1e-5)
    assert rows.lengths.tolist() == [1] * 9


def test_a_network_may_change_the_embeddings(corpus, bert, monkeypatch):
    model, batch = spoken_model(corpus, with_words(bert)).eval(), corpus.split("train").pack(np.arange(5))
    seen = []

    def adapted(words, rows, draws):
        seen.append((words, rows))
        return words.with_values(2 * words.values)

    monkeypatch.setattr(type(model.network), "adapts", True)
    monkeypatch.setattr(model.network, "adapted", adapted)
    with torch.no_grad():
        changed = model._encoded(View.of(batch), {"visual": None}, NOTHING, None)
        embedded = Rows.packed(model.text_encoder.embeddings(View.of(keep(batch, "l")), None), batch.text_offsets)
        wanted = model.text_encoder.encoder(2 * embedded.values[embedded.inside], View.of(keep(batch, "l")), None)
    (words, rows), *_ = seen
    assert list(rows) == ["visual"]
    torch.testing.assert_close(words.values, embedded.values)
    torch.testing.assert_close(changed.values[changed.inside], wanted, rtol=0, atol=1e-6)


def test_dropout_of_encoder_and_network_are_of_other_sites(corpus, bert, monkeypatch):
    """No key of a draw is used twice in a forward pass."""
    network = {"encoder": "transformer", "layers": 1, "heads": 2}
    model, batch = spoken_model(corpus, with_words(bert, **network)), corpus.split("train").pack(np.arange(5))
    used = []

    def noted(function):
        def call(*arguments, **options):
            used.append(options["site"])
            return function(*arguments, **options)

        return call

    def counted(number, place):
        used.append(philox.site(number, place))
        return used[-1]

    monkeypatch.setattr(draws, "site", counted)
    for name in ("embed", "dropout_add_norm"):
        monkeypatch.setattr(ops, name, noted(getattr(ops, name)))
    model(batch, rng=torch.tensor([1, 2]))
    assert len(used) == len(set(used)) == (1 + 2 * 2) + 3 * 3
    assert {philox.site(0, place) for place in (philox.Place.HEAD, philox.Place.EMBEDDING)} <= set(used)


def test_draws_of_updates_and_samples(corpus, bert):
    model, split = spoken_model(corpus, with_words(bert)), corpus.split("train")
    together = model(split.pack([3, 8, 1]), rng=torch.tensor([1, 2]))
    torch.testing.assert_close(model(split.pack([1, 3]), rng=torch.tensor([1, 2])), together[[2, 0]])
    assert (model(split.pack([3, 8, 1]), rng=torch.tensor([1, 3])) - together).abs().min() > 1e-6


@pytest.mark.parametrize("words", ["init", "embedding"])
def test_it_learns_and_is_opened_again(corpus, bert, tmp_path, words):
    section = with_words(bert) if words == "init" else {"embedding": 8, "vocab_size": 116, "network": {"width": 16}}
    model = spoken_model(corpus, section)
    task = spoken_task(corpus, model, epochs=12)
    names = [name for name, _ in model.named_parameters()]
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = Trainer(task, tmp_path, Processes())
    state = trainer.run()
    assert state.scores["spoken", "emotion"]["mae"] < 1.3  # 1.71 is what the mean is off
    assert not [name for name in names if torch.equal(before[name], model.get_parameter(name))]
    split = corpus.split("validation")
    wanted = answers_of(model, split)
    for sample in range(3):
        torch.testing.assert_close(answers_of(model, split, [sample])[0], wanted[sample], rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path / "model")
    opened = open_sequence_model(tmp_path / "model")
    torch.testing.assert_close(answers_of(opened, split), wanted, rtol=0, atol=1e-6)


def test_the_encoder_may_learn_at_its_own_rate(corpus, bert, tmp_path):
    model = spoken_model(corpus, with_words(bert))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    groups = {"text_encoder.*": {"lr": 1e-6}}
    trainer = Trainer(spoken_task(corpus, model, epochs=1, groups=groups), tmp_path, Processes())
    trainer.run()
    moved = {
        of: max(
            float((weight.detach() - before[name]).abs().max())
            for name, weight in model.named_parameters()
            if name.startswith("text_encoder.") == of
        )
        for of in (True, False)
    }
    assert moved[True] < 1e-6 < 1e-3 < moved[False]


def test_what_is_refused(corpus, bert, tmp_path, monkeypatch):
    model = spoken_model(corpus, with_words(bert))
    check_words(model, corpus.split("train"))
    monkeypatch.setattr(type(model), "longest", {"text": 3})
    with pytest.raises(MemofastError, match="text rows"):
        check_longest(model, corpus.split("train"), ["text"])
    small = spoken_model(corpus, {"embedding": 8, "vocab_size": 110})
    with pytest.raises(MemofastError, match=r"word piece .* vocabulary ends at 109"):
        check_words(small, corpus.split("train"))
    with pytest.raises(MemofastError, match="parameters take"):
        spoken_model(corpus, {"embedding": 2**16, "vocab_size": 2**20})
    monkeypatch.setattr(type(model.network), "encodes", True)
    with pytest.raises(MemofastError, match="recurrent_fusion reads word pieces through a BERT; give its folder"):
        spoken_model(corpus, {"embedding": 8})
    monkeypatch.undo()
    small.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(type(model.network), "encodes", True)
    with pytest.raises(MemofastError, match="needs a text encoder"):
        open_sequence_model(tmp_path / "model")
