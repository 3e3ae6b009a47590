"""MAG on BERT: the original's gate, a whole model against transformers, and rows of other steps."""

import numpy as np
import pytest
import torch
from sequence_networks import NOTHING, WIDTHS, a_network, golden_of, one_of, padded, random_rows, state_of
from spoken_corpus import answers_of, spoken_bert, spoken_corpus, spoken_model
from transformers import BertModel
from transformers.masking_utils import create_bidirectional_mask

from memofast.data.batch import pad_rows
from memofast.data.view import View
from memofast.model.sequence.network import Shape
from memofast.model.sequence.originals import renamed
from memofast.model.sequence.rows import Rows, aligned

SHAPE = Shape(WIDTHS, 1, "regression", text_encoder=12)
LENGTHS = {"text": [4, 7, 1, 3], "visual": [6, 0, 2, 3], "speech": [2, 9, 0, 3]}


@pytest.mark.real
def test_the_originals_gate(real_data):
    parts = golden_of(real_data, "mag")
    network = a_network("mag", SHAPE, compat=True)
    lacking, left = network.load_state_dict(renamed(state_of(parts), network.state_names), strict=False)
    assert lacking == ["head.weight", "head.bias"] and not left
    rows = {"visual": padded(parts["in/1"]), "speech": padded(parts["in/2"])}
    with torch.no_grad():
        found = network.adapted(padded(parts["in/0"]), rows, NOTHING)
    torch.testing.assert_close(found.values, parts["out/fused"], rtol=0, atol=1e-5)


def shifted(network, rows):
    with torch.no_grad():
        return network.adapted(rows["text"], {name: rows[name] for name in ("visual", "speech")}, NOTHING)


def strong(**options):
    """With biases, so that what they do to absent rows would show."""
    network = a_network("mag", SHAPE, **options)
    for part in (*network.gates.values(), *network.shifts.values()):
        torch.nn.init.normal_(part.weight, std=0.5), torch.nn.init.normal_(part.bias)
    return network


def test_a_sample_is_shifted_the_same_alone():
    network, rows = strong(beta=0.3), random_rows(LENGTHS, longer=2)
    together = shifted(network, rows)
    for sample, length in enumerate(LENGTHS["text"]):
        alone = shifted(network, one_of(rows, sample)).values[0]
        torch.testing.assert_close(alone, together.values[sample, :length], rtol=0, atol=1e-5)
        assert not together.values[sample, length:].any()
    rows["speech"].values[2] = 3.0  # it has no speech
    torch.testing.assert_close(shifted(network, rows).values, together.values)
    network.shifts["speech"].bias.data += 1.0
    changed = (shifted(network, rows).values - together.values).abs().amax((1, 2))
    assert changed[2] < 1e-6 and changed[[0, 1, 3]].min() > 1e-3


def test_rows_are_averaged_to_word_pieces_but_with_compat():
    rows = random_rows(LENGTHS)
    same = random_rows({name: [4, 7, 2, 3] for name in WIDTHS})
    plain, compat = strong(), strong(compat=True)
    torch.testing.assert_close(shifted(plain, same).values, shifted(compat, same).values)
    averaged = aligned(rows)
    found = shifted(plain, {name: Rows(one.values, torch.tensor(LENGTHS["text"])) for name, one in averaged.items()})
    torch.testing.assert_close(shifted(plain, rows).values[[0, 3]], found.values[[0, 3]])
    assert (shifted(compat, rows).values - shifted(plain, rows).values)[[0, 1, 2]].flatten(1).norm(dim=1).min() > 1e-3


def test_shifts_are_no_longer_than_beta_allows():
    network, rows = strong(beta=0.01), random_rows(LENGTHS)
    seen = []
    network.norm.register_forward_hook(lambda module, values, out: seen.append(values[0]))
    shifted(network, rows)
    x, inside = rows["text"].values, rows["text"].inside
    share = (seen[0] - x).norm(dim=2) / x.norm(dim=2).clamp(min=1e-9)
    assert 0.009 < share[inside].max() <= 0.0101


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoken")
    return spoken_corpus(folder / "corpus", aligned=True), spoken_bert(folder / "bert")


def test_the_whole_is_berts_layers_over_shifted_embeddings(spoken):
    corpus, folder = spoken
    model = spoken_model(corpus, {"init": str(folder), "network": {"kind": "mag"}}).eval()
    split = corpus.split("train")
    batch, bert = split.pack(np.arange(7)), BertModel.from_pretrained(folder).eval()
    ids = pad_rows(batch.token_ids[:, None], batch.text_offsets)[..., 0].long()
    rows = {name: model._rows(name, View.of(batch)) for name in ("visual", "speech")}
    lengths = batch.text_offsets.diff().long()
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        embedded = model.network.adapted(Rows(bert.embeddings(ids), lengths), rows, NOTHING).values
        mask = create_bidirectional_mask(bert.config, embedded, inside.long())
        hidden = bert.encoder(embedded, attention_mask=mask).last_hidden_state
        wanted = model.network.head(bert.pooler(hidden))
    torch.testing.assert_close(answers_of(model, split, list(range(7))), wanted, rtol=0, atol=1e-5)
