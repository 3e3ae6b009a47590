"""Prompts: the exact word pieces of every template, place and prefix; predictions over class words and over all
words."""

import itertools
from dataclasses import replace

import pytest
import torch
from packed_batches import random_batch, reading, select, small_config

from memofast.data.batch import PackedBatch, PaddedBatch
from memofast.data.conditions import keep
from memofast.data.prompt import MASK, TEMPLATES, Prompt
from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining
from memofast.model.memobert.prompt import OTHER, MemoBertForPrompt

CLASSES, WORD_PIECES = ("anger", "happy", "sad"), (4963, 3407, 6517)


def a_batch():
    """Three sentences, of two pieces with a full stop, of one piece, and none ([CLS] alone); the first two have faces,
    the second speech."""
    tokens = torch.tensor([[101, 2100, 1012, 102], [101, 3100, 102, 0], [101, 0, 0, 0]], dtype=torch.int32)
    words = torch.tensor([[-1, 0, 1, -1], [-1, 0, -1, -1], [-1, -1, -1, -1]], dtype=torch.int32)
    lengths = torch.tensor([4, 3, 1]), torch.tensor([2, 1, 0]), torch.tensor([0, 3, 0])
    padded = PaddedBatch(
        tokens, words, *(one.to(torch.int32) for one in lengths), sample_keys=torch.tensor([3, 1, 2]),
        visual=torch.randn(3, 2, 24), speech=torch.randn(3, 3, 24),
    )  # fmt: skip
    return PackedBatch.from_padded(padded)


def pieces(batch):
    ends = batch.text_offsets.tolist()
    return [batch.token_ids[a:b].tolist() for a, b in itertools.pairwise(ends)]


def test_before_the_sentence():
    prompted, rows = Prompt(TEMPLATES["iam"]).applied(a_batch())
    iam = [1045, 2572, MASK, 1012]
    assert pieces(prompted) == [[101, *iam, 2100, 1012, 102], [101, *iam, 3100, 102], [101, *iam, 102]]
    assert prompted.word_ids.tolist() == [-1] * 5 + [0, 1, -1] + [-1] * 5 + [0, -1] + [-1] * 6
    assert rows.tolist() == [3, 8 + 2 + 3, 8 + 2 + 7 + 4 + 3]
    assert prompted.offsets.tolist() == [0, 10, 21, 27]


def test_after_the_sentence_with_a_full_stop_where_it_has_no_end():
    prompted, _ = Prompt(TEMPLATES["itwas"], "after").applied(a_batch())
    itwas = [2009, 2001, MASK, 1012]
    assert pieces(prompted) == [[101, 2100, 1012, *itwas, 102], [101, 3100, 1012, *itwas, 102], [101, *itwas, 102]]
    assert [prompted.token_ids[row] for row in (5, 8 + 5, 16 + 3)] == [MASK] * 3


@pytest.mark.parametrize("position", ["before", "after"])
def test_prefix_names_what_a_sample_has(position):
    prompted, _ = Prompt(TEMPLATES["halfsoftprompt3"], position, prefix=True).applied(a_batch())
    soft = [2, 3, 4, MASK]
    first = [1048, 1058, 1024, *soft], [1048, 1058, 1055, 1024, *soft], [1024, *soft]
    bodies = [2100, 1012], [3100, *([1012] if position == "after" else [])], []
    for found, prompt, body in zip(pieces(prompted), first, bodies, strict=True):
        parts = [*prompt, *body] if position == "before" else [*body, *prompt]
        assert found == [101, *parts, 102]
    shown, _ = Prompt(TEMPLATES["iam"], position, prefix=True).applied(keep(a_batch(), "va"))
    assert pieces(shown)[1] == [101, 1058, 1055, 1024, 1045, 2572, MASK, 1012, 102]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("position", ["before", "after"])
def test_the_masked_row_is_that_of_the_mask(template, position):
    batch = replace(random_batch(small_config(vocab_size=1000)), longest=64)
    prompted, rows = Prompt(template, position, prefix=True).applied(batch)
    text = prompted.joint_rows("text", torch.arange(prompted.token_ids.numel(), dtype=torch.int32))
    joint = torch.zeros(prompted.rows, dtype=torch.int32)
    joint[text] = prompted.token_ids
    assert (joint[rows] == MASK).all() and len(rows) == batch.samples
    assert prompted.longest >= int(prompted.offsets.diff().max())
    assert torch.equal(prompted.visual_offsets, batch.visual_offsets)


def small_start(tmp_path, **options):
    torch.manual_seed(0)
    MemoBertForPreTraining(small_config(vocab_size=9000)).save_pretrained(tmp_path / "start")
    prompt = Prompt(TEMPLATES["softprompt3"], prefix=True)
    return MemoBertForPrompt.start(tmp_path / "start", CLASSES, prompt, WORD_PIECES, **options)


def test_the_prediction_is_what_pre_training_would_fill_in(tmp_path):
    model = small_start(tmp_path)
    whole = MemoBertForPreTraining.from_pretrained(tmp_path / "start").eval()
    batch = random_batch(model.config)
    prompted, rows = model.prompt.applied(batch)
    words = whole(reading(prompted, {"prompt": ("words", rows)}))["prompt"]
    torch.testing.assert_close(model(batch), words[:, list(WORD_PIECES)])
    torch.testing.assert_close(model.probabilities(batch).sum(1), torch.ones(batch.samples))


def test_over_the_whole_vocabulary(tmp_path):
    model = small_start(tmp_path, whole_vocabulary=True)
    batch = random_batch(model.config)
    prompted, rows = model.prompt.applied(batch)
    whole = MemoBertForPreTraining.from_pretrained(tmp_path / "start").eval()
    scores = whole(reading(prompted, {"p": ("words", rows)}))["p"]
    wanted = torch.tensor([WORD_PIECES[sample % 3] for sample in range(batch.samples)])
    ours = torch.nn.functional.cross_entropy(model(batch), torch.arange(batch.samples) % 3)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(scores, wanted))
    assert model.classes == CLASSES and model.outputs == (*CLASSES, OTHER)
    best = scores.argmax(1)
    named = [WORD_PIECES.index(word) if word in WORD_PIECES else 3 for word in best.tolist()]
    assert model.probabilities(batch).argmax(1).tolist() == named


def test_one_by_one_is_the_batch_and_saved_is_loaded(tmp_path):
    model = small_start(tmp_path)
    batch = random_batch(model.config)
    alone = [model.probabilities(select(batch, [sample])) for sample in range(batch.samples)]
    torch.testing.assert_close(torch.cat(alone), model.probabilities(batch))
    model.save_pretrained(tmp_path / "saved")
    loaded = MemoBertForPrompt.from_pretrained(tmp_path / "saved").eval()
    torch.testing.assert_close(loaded(batch), model(batch), rtol=0, atol=0)


def test_soft_prompts_can_begin_as_the_classes_words(tmp_path):
    table = small_start(tmp_path, soft_from_words=True).memobert.embeddings.word.weight
    torch.testing.assert_close(table[5], table[list(WORD_PIECES)].mean(0))
    assert not torch.equal(table[8], table[5])


def test_what_cannot_be_a_prompt_is_refused(tmp_path):
    for template in ((1045, 2572), (MASK, MASK)):
        with pytest.raises(MemofastError, match="one \\[MASK\\]"):
            Prompt(template)
    with pytest.raises(MemofastError, match="before or after"):
        Prompt((MASK,), "around")
    MemoBertForPreTraining(small_config()).save_pretrained(tmp_path)
    with pytest.raises(MemofastError, match="knows 200 word pieces, the prompt names 6517"):
        MemoBertForPrompt.start(tmp_path, CLASSES, Prompt(TEMPLATES["iam"]), WORD_PIECES)
    with pytest.raises(MemofastError, match="3 classes need as many words, not 1"):
        MemoBertForPrompt.start(tmp_path, CLASSES, Prompt(TEMPLATES["iam"]), WORD_PIECES[:1])
