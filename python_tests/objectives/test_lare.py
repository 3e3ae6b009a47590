"""LARE: which pieces are hidden and what is told of them, the loss over all text rows, and emotion classes of words."""

import math

import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, select, small_config, with_parts_of_speech

from memofast import objectives
from memofast.data import Read, View
from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner
from memofast.ops.philox import Purpose, draw, stream_key

CONFIG = small_config(vocab_size=2200)
RNG = torch.tensor([5, 17])
TABLES = ("part_of_speech", "word_polarity", "sentence_polarity")
PARTS = ("lare.part_of_speech", "lare.polarity", "lare.sentence")


def built(**options):
    return objectives.build({"lare": options}, CONFIG)["lare"]


def batch_of(lengths, seed=0):
    return with_parts_of_speech(random_batch(CONFIG, lengths, seed=seed, lexicon=True), seed)


def view_of(batch, objective, **purpose):
    (view,) = objectives.views_for(batch, objective, RNG, **purpose)
    return view


def by_hand(batch, objective, options):
    """What a view of LARE is, worked out piece by piece."""
    key = stream_key(RNG, Purpose.MASK, objective.site)
    neutral, other = 2, 4
    tokens, reads = batch.token_ids.clone(), {name: [] for name in ("lare", *PARTS)}
    inputs = [batch.targets["part_of_speech"].clone(), batch.targets["polarity"].clone(), torch.full_like(tokens, 5)]
    joint = batch.joint_rows("text", torch.arange(len(tokens), dtype=torch.int32)).tolist()
    for sample, begin in enumerate(batch.text_offsets[:-1].tolist()):
        length = int(batch.text_offsets[sample + 1]) - begin
        if length < 3:
            for given in inputs:
                given[begin : begin + length] = -1
            continue
        sample_key = batch.sample_keys[sample]
        words = draw(key, sample_key, torch.arange(length), torch.zeros(length, dtype=torch.int64)).tolist()
        late = int(draw(key, sample_key, torch.tensor([0]), torch.tensor([1]))[0, 0]) < 2**32 // 2
        label = int(batch.targets["label"][sample])
        if late and label >= 0:
            reads["lare.sentence"].append((joint[begin], label))
        chosen = []
        for place in range(1, length - 1):
            row = begin + place
            if not late and label >= 0:
                inputs[2][row] = label
            limit = 2**32 * 3 // (20 if batch.targets["polarity"][row] == neutral else 10)
            if words[place][0] < limit:
                chosen.append((place, limit))
        forced = not chosen
        for place, limit in chosen or [(1, 10 * 2**32)]:
            row = begin + place
            speech, polarity = (int(batch.targets[name][row]) for name in ("part_of_speech", "polarity"))
            reads["lare"].append((joint[row], int(batch.token_ids[row])))
            if forced and options.get("original"):
                speech, polarity = other, neutral
            if (speech, polarity) != (other, neutral) or (forced and options.get("original")):
                reads["lare.part_of_speech"].append((joint[row], speech))
                reads["lare.polarity"].append((joint[row], polarity))
            if words[place][0] < limit * 9 // 10:
                masked = forced or words[place][0] < limit * 8 // 10
                tokens[row] = 103 if masked else 999 + (words[place][1] * (2200 - 999) >> 32)
                inputs[0][row], inputs[1][row] = other, neutral
    return tokens, dict(zip(TABLES, inputs, strict=True)), reads


@pytest.mark.parametrize("options", [{}, {"original": True}])
def test_what_is_hidden_is_the_words_of_its_sentence(options):
    batch = batch_of([(n, 2, 3) for n in (3, 4, 9, 1, 30, 2, 5, 17)] * 6)
    objective = built(late_supervision="1/2", **options)
    view = view_of(batch, objective)
    tokens, tables, reads = by_hand(batch, objective, options)
    assert torch.equal(view.token_ids, tokens)
    assert view.tables.keys() == tables.keys() and all(torch.equal(view.tables[name], tables[name]) for name in tables)
    found = {n: list(zip(read.rows.tolist(), read.labels.tolist(), strict=True)) for n, read in view.reads.items()}
    assert found == reads and all(reads.values())
    lengths = [length for length in (3, 4, 9, 30, 5, 17) for _ in range(6)]
    assert view.counts == {"lare": 36 * 30 if options else sum(lengths)}


def test_masks_depend_on_seed_step_name_and_sample_alone():
    batch, objective = batch_of([(n, 0, 2) for n in (8, 3, 21, 12, 6)]), built()
    whole = view_of(batch, objective)
    part = view_of(select(batch, [3, 1, 2]), objective)
    offsets = batch.text_offsets.tolist()
    rows = torch.cat([torch.arange(offsets[s], offsets[s + 1]) for s in (3, 1, 2)])
    assert torch.equal(part.token_ids, whole.token_ids[rows])
    assert all(torch.equal(part.tables[name], whole.tables[name][rows]) for name in TABLES)
    other = objectives.build({"other": {"kind": "lare"}}, CONFIG)["other"]
    assert not torch.equal(view_of(batch, other).token_ids, whole.token_ids)
    assert not torch.equal(view_of(batch, objective, purpose=Purpose.VALIDATION_MASK).token_ids, whole.token_ids)


def test_shares_of_what_is_hidden():
    batch = batch_of([(42, 0, 0)] * 400)
    view, neutral = view_of(batch, built()), batch.targets["polarity"] == 2
    inside = batch.word_ids >= 0
    hidden = torch.zeros_like(inside)
    hidden[view.reads["lare"].rows] = True
    for kind, share in ((neutral, 0.15), (~neutral, 0.3)):
        count = int((inside & kind).sum())
        assert abs(int((hidden & kind).sum()) - share * count) <= 5 * (share * (1 - share) * count) ** 0.5
    total = int(hidden.sum())
    for part, share in ((view.token_ids == 103, 0.8), (view.token_ids == batch.token_ids, 0.1)):
        assert abs(int((hidden & part).sum()) - share * total) <= 5 * (share * (1 - share) * total) ** 0.5
    assert abs(view.reads["lare.sentence"].count - 80) <= 5 * (400 * 0.16) ** 0.5
    kept = hidden & (view.token_ids == batch.token_ids)
    assert torch.equal(view.tables["part_of_speech"][kept], batch.targets["part_of_speech"][kept])


def test_other_objectives_samples_have_no_entries():
    two = objectives.build({"whole_word_mlm": {}, "lare": {}}, CONFIG)
    batch = batch_of([(9, 0, 0)] * 8)
    mine = torch.arange(8) % 2 == 0
    (view,) = objectives.views_of(batch, two, {"whole_word_mlm": ~mine, "lare": mine}, RNG)
    rows = mine.repeat_interleave(9)
    assert all((view.tables[name][~rows] == -1).all() and (view.tables[name][rows] >= 0).all() for name in TABLES)
    assert list(view.reads) == ["whole_word_mlm", "lare", *PARTS] and view.readers == ["whole_word_mlm", "lare"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    heads = {name: head.described() for name, head in built().heads.items() if name != "words"}
    config = small_config(vocab_size=2200, heads=heads, tables=dict(built().tables))
    found = MemoBertForPreTraining(config).eval()
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found


def test_tables_are_added_before_the_norm_and_nothing_without_them(model):
    batch = batch_of([(5, 2, 1), (7, 0, 3)])
    embeddings, own = model.memobert.embeddings, {name: torch.arange(12).int() % 3 - 1 for name in TABLES}
    plain = model.memobert(batch).hidden
    assert torch.equal(
        model.memobert(View(batch, tables={name: torch.full((12,), -1).int() for name in TABLES})).hidden, plain
    )
    added = sum(
        torch.where((ids >= 0)[:, None], embeddings.tables[name].weight[ids.clamp(min=0).long()], 0.0)
        for name, ids in own.items()
    )
    found = model.memobert(View(batch, tables=own)).hidden
    torch.testing.assert_close(found, model.memobert(View(batch, added=added)).hidden, rtol=1e-6, atol=1e-6)
    assert (found - plain).abs().max() > 1e-3
    rows = batch.joint_rows("text", torch.arange(12, dtype=torch.int32))
    found[rows].square().sum().backward()
    gradient = embeddings.tables["word_polarity"].weight.grad
    assert gradient[:2].any() and not gradient[2].any()  # of what is unknown none


def test_the_loss_is_the_sum_of_four_over_all_text_rows(model):
    batch, objective = batch_of([(12, 3, 2)] * 20, seed=3), built(late_supervision="3/4")
    view = view_of(batch, objective)
    with torch.no_grad():
        outputs = model(view)
        loss = Learner(model, {"lare": objective})([view])["lare"]
    parts = [F.cross_entropy(outputs[name], read.labels, reduction="sum") for name, read in view.reads.items()]
    torch.testing.assert_close(loss.total, sum(parts))
    assert loss.count == 240 and len(parts) == 4 and all(float(part) > 0 for part in parts)
    for part, read in zip(("words", "part_of_speech", "polarity", "sentence"), view.reads.values(), strict=True):
        name = "lare" if part == "words" else f"lare.{part}"
        assert loss.metrics[f"targets.{part}"] == read.count
        assert loss.metrics[f"accuracy.{part}"] == (outputs[name].argmax(-1) == read.labels).sum()
    statistics = objectives.Statistics(2200, {})
    other = batch_of([(12, 0, 0)] * 5, seed=9)
    for one in (other, batch):
        statistics.add(one)
    trivial = objective.trivial(statistics, [view])
    expected = 0.0
    pieces = torch.cat([one.token_ids[one.word_ids >= 0] for one in (other, batch)])
    words = torch.bincount(pieces, minlength=2200) + 1
    expected -= (words / words.sum()).log()[view.reads["lare"].labels].sum()
    for target, part in zip(("part_of_speech", "polarity", "label"), PARTS, strict=True):
        values = torch.cat(
            [
                one.targets[target] if target == "label" else one.targets[target][one.word_ids >= 0]
                for one in (other, batch)
            ]
        )
        counts = torch.bincount(values[values >= 0].long(), minlength=3).double()
        expected -= (counts / counts.sum()).log()[view.reads[part].labels].sum()
    assert float(trivial.total) == pytest.approx(float(expected), rel=1e-5) and trivial.count == 240


def test_sentences_of_pseudo_labels():
    batch = batch_of([(5, 0, 0)] * 3)
    batch.targets["emotions"] = torch.tensor([[0.1, 0.2, 0.7], [0.0, 0.0, 0.0], [0.5, 0.3, 0.2]])
    view = view_of(batch, built(sentence="emotions", sentence_classes=3, late_supervision=1))
    assert view.reads["lare.sentence"].labels.tolist() == [2, 0] and view.reads["lare.sentence"].rows.tolist() == [
        0,
        10,
    ]
    told = view_of(batch, built(sentence="emotions", sentence_classes=3, late_supervision=0)).tables[
        "sentence_polarity"
    ]
    assert told.tolist() == [3, 2, 2, 2, 3, *[3] * 5, 3, 0, 0, 0, 3]


def test_a_batch_without_the_columns_is_refused():
    with pytest.raises(MemofastError, match="objective lare: the corpus has no part_of_speech, polarity, label; leave"):
        objectives.views_for(random_batch(CONFIG), built(), RNG)


def test_emotion_classes_beside_masked_words():
    options = {"kind": "whole_word_mlm", "policy": "whole_word_emotion", "emotion_rate": 0.25, "emotion_classes": 7}
    one = objectives.build({"words": options}, CONFIG)
    plain = objectives.build({"words": {"kind": "whole_word_mlm", "policy": "whole_word_emotion"}}, CONFIG)["words"]
    assert plain.parts == () and plain.metrics == ("accuracy",) and one["words"].heads["emotion_words"].outputs == 7
    batch = batch_of([(20, 0, 2)] * 9)
    view, without = view_of(batch, one["words"]), view_of(batch, plain)
    assert torch.equal(view.token_ids, without.token_ids) and list(without.reads) == ["words"]
    rows, lexicon = view.reads["words"].rows, torch.full((batch.rows,), -1)
    lexicon[batch.joint_rows("text", torch.arange(180, dtype=torch.int32))] = batch.targets["lexicon"].long()
    emotional = view.reads["words.emotions"]
    assert emotional.rows.tolist() == rows[lexicon[rows] >= 0].tolist()
    assert emotional.labels.tolist() == lexicon[emotional.rows].tolist() and 0 < emotional.count < len(rows)
    torch.manual_seed(1)
    model = MemoBertForPreTraining(
        small_config(vocab_size=2200, heads={"emotion_words": one["words"].heads["emotion_words"].described()})
    )
    outputs, loss = model(view), Learner(model, one)([view])["words"]
    words = F.cross_entropy(outputs["words"], view.reads["words"].labels, reduction="sum")
    further = F.cross_entropy(outputs["words.emotions"], emotional.labels, reduction="sum")
    torch.testing.assert_close(loss.total, words + 0.25 * further)
    assert loss.count == len(rows) and loss.metrics["targets.emotions"] == emotional.count
    loss.total.backward()
    assert model.heads.emotion_words.classifier.weight.grad.any()
    statistics = objectives.Statistics(2200, {})
    statistics.add(batch)
    counts = torch.bincount(
        batch.targets["lexicon"][(batch.word_ids >= 0) & (batch.targets["lexicon"] >= 0)], minlength=7
    )
    trivial = one["words"].trivial(statistics, [view]).total - plain.trivial(statistics, [without]).total
    expected = -sum(math.log(counts[label] / counts.sum()) for label in emotional.labels.tolist()) / 4
    assert float(trivial) == pytest.approx(expected, rel=1e-4)


def test_options_without_effect():
    with pytest.raises(MemofastError, match="emotion_classes has no effect without emotion_rate"):
        objectives.build({"whole_word_mlm": {"emotion_classes": 5}})
    assert objectives.build({"whole_word_mlm": {"emotion_rate": 1}})["whole_word_mlm"].needs == ("text rows", "lexicon")


def test_means_of_parts_are_over_their_own_targets():
    from memofast.train.tally import means

    sums = {
        "loss": 6.0,
        "targets": 12.0,
        "accuracy.words": 3.0,
        "targets.words": 4.0,
        "accuracy.none": 0.0,
        "targets.none": 0.0,
    }
    found = means({("corpus", "lare"): sums})["corpus", "lare"]
    assert found == {"loss": 0.5, "targets": 12, "accuracy.words": 0.75, "targets.words": 4, "targets.none": 0}
    assert Read("words", torch.tensor([3]), targets=9).padded_to(4, 7, "words").targets == 9
