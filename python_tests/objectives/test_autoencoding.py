"""The masked auto-encoder: what is left out, where what is seen goes, the loss by hand, and the decoder."""

from itertools import pairwise

import pytest
import torch
from packed_batches import random_batch, small_config
from runs import pretrain

from memofast import objectives
from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner, Statistics
from memofast.ops.philox import Purpose

CONFIG = small_config()
RNG = torch.tensor([5, 17])
LENGTHS = [(3, 9, 4), (2, 0, 12), (5, 11, 0), (1, 1, 6), (4, 0, 0), (6, 14, 13)]
DECODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def built(**options):
    return objectives.build({"mine": {"kind": "masked_autoencoder", "decoder": DECODER, **options}}, CONFIG)["mine"]


def view_of(objective, batch, rng=RNG):
    return objectives.views_for(batch, objective, rng)[0]


def left_out(view):
    """By modality the rows of the whole batch that the encoder does not see, from labels."""
    names = [name for name in ("text", "visual", "speech") if f"mine.{name}" in view.batch.streams]
    seen = {name: set() for name in names}
    for label in view.reads["mine"].labels.tolist():
        seen[names[label % 3]].add(label // 3)
    return {name: [row for row in range(len(view.batch.streams[f"mine.{name}"].values)) if row not in seen[name]]
            for name in names}  # fmt: skip


def test_the_encoder_sees_what_is_left_at_its_own_positions():
    batch, objective = random_batch(CONFIG, LENGTHS), built(ratio="1/2")
    view = view_of(objective, batch)
    gone, reduced = left_out(view), view.batch
    assert gone["text"] == [] and torch.equal(reduced.token_ids, batch.token_ids)
    assert 0 < len(gone["visual"]) < 35 and 0 < len(gone["speech"]) < 35
    for modality in ("visual", "speech"):
        kept = [row for row in range(len(batch.rows_of(modality))) if row not in gone[modality]]
        ends = batch.offsets_of(modality).tolist()
        begin = [ends[sum(end <= row for end in ends[1:])] for row in kept]
        assert torch.equal(reduced.rows_of(modality), batch.rows_of(modality)[kept])
        assert view.positions[modality].tolist() == [row - first for row, first in zip(kept, begin, strict=True)]
        counts = [sum(one <= row < other for row in kept) for one, other in pairwise(ends)]
        assert reduced.offsets_of(modality).diff().tolist() == counts
    assert torch.equal(reduced.targets["soft_labels"], batch.targets["soft_labels"][[
        row for row in range(35) if row not in gone["visual"]
    ]])  # fmt: skip
    rows = reduced.offsets.diff()
    assert rows.tolist() == sum(reduced.offsets_of(name).diff() for name in ("text", "visual", "speech")).tolist()
    assert view.reads["mine"].targets == len(gone["visual"]) + len(gone["speech"])
    assert view.reads["mine"].count == int(rows.sum()) - 4, "all but the sample without faces and speech"


def test_other_samples_keep_all_they_have():
    batch, objective = random_batch(CONFIG, LENGTHS), built()
    selected = torch.tensor([False, True, False, True, False, False])
    (view,) = objectives.views_of(batch, {"mine": objective}, {"mine": selected}, RNG)
    assert view.batch.visual_offsets.diff()[[0, 2, 5]].tolist() == [9, 11, 14]
    assert view.batch.speech_offsets.diff()[1] < 12 and view.batch.speech_offsets.diff()[[0, 5]].tolist() == [4, 13]
    begin, end = view.batch.visual_offsets[2:4].tolist()
    assert view.positions["visual"][begin:end].tolist() == list(range(11))


@pytest.mark.parametrize(("options", "share"), [({}, 0.9), ({"ratio": 0.6}, 0.6)])
def test_so_many_rows_are_left_out(options, share):
    batch = random_batch(CONFIG, [(2, 40, 30)] * 300)
    gone = left_out(view_of(built(**options), batch))
    for modality, rows in (("visual", 12000), ("speech", 9000)):
        assert abs(len(gone[modality]) / rows - share) < 4 * (share * (1 - share) / rows) ** 0.5


def test_a_sample_loses_the_same_rows_in_any_batch():
    batch, objective = random_batch(CONFIG, LENGTHS), built(ratio="1/2")
    gone = left_out(view_of(objective, batch))["visual"]
    alone = left_out(view_of(objective, batch.select(torch.tensor([5, 2]))))["visual"]
    assert [row - 21 for row in gone if row >= 21] == [row for row in alone if row < 14]
    assert [row - 9 for row in gone if 9 <= row < 20] == [row - 14 for row in alone if row >= 14]
    later = left_out(view_of(objective, batch, torch.tensor([5, 18])))["visual"]
    assert later != gone


def test_few_masks_come_again():
    batch, objective = random_batch(CONFIG, [(2, 30, 0)]), built(ratio="1/2", masks=3)
    found = [tuple(left_out(view_of(objective, batch, torch.tensor([5, step])))["visual"]) for step in range(40)]
    assert len(set(found)) == 3 and min(found.count(one) for one in set(found)) >= 5


def learner_of(objective):
    torch.manual_seed(0)
    return Learner(MemoBertForPreTraining(small_config(heads={"hidden": objective.heads["hidden"].described()})),
                   {"mine": objective})  # fmt: skip


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_loss_is_that_of_rows_left_out(loss):
    batch, objective = random_batch(CONFIG, LENGTHS), built(loss=loss)
    learner, view = learner_of(objective), view_of(objective, batch)
    (found,) = learner([view]).values()
    whole, places = objective._places(view)
    hidden = learner.model(view)["mine"]
    predicted = learner.objectives["mine"](hidden, places, whole, view.batch.sample_keys)
    gone, total = left_out(view), 0.0
    for modality, width in (("visual", 21), ("speech", 24)):
        for row in gone[modality]:
            difference = predicted[modality][row] - whole[modality].values[row, :width]
            total += float((difference.square() if loss == "mse" else difference.abs()).mean().detach())
    assert found.count == len(gone["visual"]) + len(gone["speech"])
    assert float(found.total.detach()) == pytest.approx(total, rel=1e-5)


def test_the_decoder_answers_a_sample_alone_as_in_a_batch():
    batch, objective = random_batch(CONFIG, LENGTHS), built(ratio="1/2")
    learner = learner_of(objective).eval()

    def decoded(batch):
        view = view_of(objective, batch)
        whole, places = objective._places(view)
        return learner.objectives["mine"](learner.model(view)["mine"], places, whole, view.batch.sample_keys)

    together, alone = decoded(batch), decoded(batch.select(torch.tensor([5])))
    torch.testing.assert_close(alone["visual"], together["visual"][-14:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone["speech"], together["speech"][-13:], rtol=1e-5, atol=1e-5)
    other = random_batch(CONFIG, LENGTHS)
    other.token_ids[-2] = 150 if other.token_ids[-2] != 150 else 151
    assert not torch.allclose(decoded(other)["speech"][-13:], together["speech"][-13:]), "it sees the words"
    assert torch.equal(decoded(other)["speech"][:4], together["speech"][:4]), "of no other sample"


def test_marks_differ_by_position_and_modality():
    batch, objective = random_batch(CONFIG, [(2, 6, 6)]), built(ratio=1)
    learner, view = learner_of(objective).eval(), view_of(objective, batch)
    assert view.reads["mine"].count == 2 and view.reads["mine"].targets == 12
    whole, places = objective._places(view)
    found = learner.objectives["mine"](learner.model(view)["mine"], places, whole, view.batch.sample_keys)
    for rows in found.values():
        assert torch.cdist(rows, rows)[~torch.eye(6, dtype=torch.bool)].min() > 1e-4


def test_beside_it_stands_the_mean_row():
    batch, objective = random_batch(CONFIG, LENGTHS), built()
    statistics = Statistics(200, {"visual": 21, "speech": 24})
    statistics.add(batch)
    view = view_of(objective, batch)
    gone, total = left_out(view), 0.0
    for modality, width in (("visual", 21), ("speech", 24)):
        rows = batch.rows_of(modality)[:, :width]
        whole = view.batch.streams[f"mine.{modality}"].values[gone[modality], :width]
        total += float((whole - rows.mean(0)).square().mean(1).sum())
    found = objective.trivial(statistics, [view])
    assert float(found.total) == pytest.approx(total, rel=1e-4) and found.count == view.reads["mine"].targets


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 0}, "ratio 0 leaves nothing out"),
        ({"length": 4}, "length has no effect"),
        ({"masks": 0}, "masks"),
        ({"decoder": {"hidden_size": 30}}, "num_attention_heads"),
        ({"shows": ["text"]}, "shows"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(MemofastError, match=said) as caught:
        built(**options)
    assert len(str(caught.value).splitlines()) == 1


def test_masks_of_validation_never_change():
    batch, objective = random_batch(CONFIG, LENGTHS), built(ratio="1/2")
    rng = objectives.validation_rng(5)
    first, again = (objectives.views_for(batch, objective, rng, Purpose.VALIDATION_MASK)[0] for _ in range(2))
    assert left_out(first) == left_out(again) != left_out(view_of(objective, batch, rng))


def test_a_dry_run_counts_the_decoder_apart(tmp_path):
    words = {f"objectives.{name}.share=0" for name in ("span_visual_regression", "span_visual_emotion")}
    given = [*words, f"objectives.masked_autoencoder.decoder={DECODER}".replace("'", "")]
    told = pretrain(tmp_path, "demo", "--dry-run", "train.samples=8", *given)
    decoder = learner_of(built()).objectives["mine"]
    inner = sum(parameter.numel() for parameter in decoder.encoder.parameters())
    outer = 16 * 128 + 16 + 16 + 3 * 16 + 3 * 64 * 16 + 2 * 16 + 17 * (342 + 96)
    assert f"\n  {inner + outer:,} of them are of masked_autoencoder, which the model does without\n" in told.stdout
