"""Prompts as an objective: what is shown and read, the loss, the guess beside it, and what is refused."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packed_batches import random_batch, small_config
from runs import pretrain, small_corpus

from memofast import objectives
from memofast.data import Capacity, Corpus, Facts
from memofast.data.prompt import Marks, Prompt
from memofast.data.view import padded
from memofast.errors import MemofastError
from memofast.model import MemoBertForPreTraining
from memofast.objectives import Learner, Statistics
from memofast.prepare.text.word_pieces import WordPieces
from memofast.train.plan import make_plan
from memofast.train.recipe import read

RNG = torch.tensor([5, 17])
IDS = {"template": [110, 103, 111, 112], "words": {"anger": 140, "happy": 131, "sad": 152}}
LENGTHS = [(5, 2, 3), (3, 0, 1), (1, 4, 2), (6, 1, 0), (4, 2, 2)]
LABELS = torch.tensor([2, 0, 1, -1, 2])


def built(config=None, **options):
    return objectives.build({"prompt": {"kind": "label_prompt"} | IDS | options}, config or small_config())["prompt"]


def batch_of(labels=LABELS):
    batch = random_batch(small_config(), LENGTHS, lexicon=True)
    batch.targets["label"] = labels
    return batch


def texts(batch, values=None):
    bounds = batch.text_offsets.tolist()
    return [(batch.token_ids if values is None else values)[a:b].tolist() for a, b in pairwise(bounds)]


def test_samples_of_a_known_class_get_the_prompt_and_others_stay():
    batch = batch_of()
    (view,) = objectives.views_for(batch, built(), RNG)
    own, prompt = texts(batch), IDS["template"]
    expected = [[101, *prompt, *own[0][1:]], [101, *prompt, *own[1][1:]], [101, *prompt, 102], own[3]]
    assert texts(view.batch) == [*expected, [101, *prompt, *own[4][1:]]]
    read = view.reads["prompt"]
    starts = view.batch.offsets.tolist()
    assert read.rows.tolist() == [starts[sample] + 2 for sample in (0, 1, 2, 4)] and read.labels.tolist() == [
        2,
        0,
        1,
        2,
    ]
    assert torch.equal(view.batch.visual_offsets, batch.visual_offsets) and view.batch.visual is batch.visual
    lexicon, before = texts(batch, view.batch.targets["lexicon"]), texts(batch, batch.targets["lexicon"])
    lexicon = texts(view.batch, view.batch.targets["lexicon"])
    assert lexicon[0] == [before[0][0], -1, -1, -1, -1, *before[0][1:-1], -1] and lexicon[3] == before[3]


def test_other_objectives_share_the_view():
    """Their masks, labels and rows are as without the prompt, which no other sample sees."""
    batch = batch_of()
    options = {"words": {"kind": "whole_word_mlm", "probability": 1}, "prompt": {"kind": "label_prompt"} | IDS}
    both = objectives.build(options, small_config())
    chosen = {"words": torch.tensor([False, False, False, True, False]), "prompt": LABELS == 2}
    (view,) = objectives.views_of(batch, both, chosen, RNG)
    (alone,) = objectives.views_of(batch, {"words": both["words"]}, {"words": chosen["words"]}, RNG)
    assert texts(view.batch, view.token_ids)[3] == texts(batch, alone.token_ids)[3]
    assert view.reads["words"].labels.tolist() == alone.reads["words"].labels.tolist()
    shift = len(IDS["template"])  # the one sample before it that has the prompt
    assert (view.reads["words"].rows - alone.reads["words"].rows).tolist() == [shift] * 4
    assert view.counts == {"words": 4, "prompt": 2}
    torch.manual_seed(0)
    learner = Learner(MemoBertForPreTraining(small_config()), both).eval()
    torch.testing.assert_close(learner([view])["words"].total, learner([alone])["words"].total)


def test_after_the_sentence_only_those_selected_change():
    prompt = Prompt(
        (120, 103), "after", prefix=True, marks=Marks(letters=(91, 92, 93), colon=94, full_stop=95, ends=())
    )
    batch = random_batch(small_config(), [(4, 1, 0), (5, 0, 2), (1, 3, 3), (3, 2, 2)])
    changed, rows = prompt.applied(batch, torch.tensor([False, True, False, True]))
    own = texts(batch)
    second = [*own[1][:-1], 95, 91, 93, 94, 120, 103, 102]
    assert texts(changed) == [own[0], second, own[2], [*own[3][:-1], 95, 91, 92, 93, 94, 120, 103, 102]]
    assert rows.tolist() == [5 + 9, 5 + 13 + 7 + 8]


def test_there_is_room_for_a_prompt_in_every_sample():
    """In micro-batches that fill their capacity, which holds all of what they share the view with as well."""
    batch, objective = batch_of(torch.tensor([0, 1, 2, 2, 0])), built()
    views = objectives.views_for(batch, objective, RNG)
    capacity = Capacity(5, text=19, visual=9, speech=8, longest=32)
    (wide,), (room,) = objectives.padding_of(views, {"prompt": objective}, capacity)
    assert (wide.text, wide.visual, wide.speech, wide.longest) == (19 + 5 * 6, 9, 8, 64) and room == {"prompt": 5}
    (placed,) = padded(views, [wide], [room])
    assert texts(placed.batch)[:5] == texts(views[0].batch) and placed.batch.token_ids.numel() == 49


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_text_that_holds_a_mask_itself_is_read_at_the_prompt(position):
    batch = batch_of()
    batch.token_ids[[1, 2]] = 103
    config = SimpleNamespace(vocab_size=2000, mask_token_id=103, max_position_embeddings=64)
    (view,) = objectives.views_for(batch, built(config, position=position), RNG)
    row = int(view.reads["prompt"].rows[0])
    assert row == (2 if position == "before" else len(texts(view.batch)[0]) - 4)
    assert view.reads["prompt"].count == 4


def test_without_the_sentence_the_prompt_is_all_there_is(tmp_path):
    split = Corpus.open(small_corpus(tmp_path)).split("train")
    classes = split.corpus.classes["label"]
    words = {name: 20 + number for number, name in enumerate(classes)}
    options = {"template": [30, 4, 31], "words": words, "shows": ["visual"]}
    config = small_config(vocab_size=124, mask_token_id=4, max_position_embeddings=8)
    with pytest.raises(MemofastError, match=r"has no word piece '\[SEP\]'"):
        objectives.build({"label_prompt": options}, config, split.corpus.classes)
    two = objectives.build({
        "label_prompt": options, "whole_word_mlm": None
    }, config, split.corpus.classes, lambda: WordPieces(split.corpus.path))  # fmt: skip
    assert two["label_prompt"].eligible(split.facts).all()
    indices = np.array([5, 3, 9])
    chosen = {"label_prompt": torch.tensor([True, False, True]), "whole_word_mlm": torch.tensor([False, True, False])}
    shown = objectives.places_of(chosen, two, split, np.arange(len(split)), indices, 7, 0)
    batch = split.pack(indices, shown)
    (view,) = objectives.views_of(batch, two, chosen, RNG)
    found, whole = texts(view.batch), texts(split.pack(indices))
    assert found[0] == found[2] == [2, 30, 4, 31, 3] and found[1] == whole[1]
    assert view.batch.speech_offsets.diff().tolist()[::2] == [0, 0]
    labels = [int(label) for label in split.pack(indices).targets["label"][[0, 2]]]
    assert view.reads["label_prompt"].labels.tolist() == labels


def test_the_loss_by_hand():
    read = objectives.views_for(batch_of(), built(), RNG)[0]
    scores = torch.randn(4, 200, generator=torch.Generator().manual_seed(3)) * 2
    words, labels = [140, 131, 152], [2, 0, 1, 2]
    wanted = torch.tensor([words[label] for label in labels])
    whole = built().loss([scores], [read])
    assert float(whole.total) == pytest.approx(float(F.cross_entropy(scores, wanted, reduction="sum")), rel=1e-5)
    among = built(restricted=True).loss([scores], [read])
    chosen = F.cross_entropy(scores[:, words], torch.tensor(labels), reduction="sum")
    assert float(among.total) == pytest.approx(float(chosen), rel=1e-5) and among.count == whole.count == 4
    scores[1, 140], scores[1, 131], scores[1, 7] = 8, 3, 9  # the right class, but another word goes before
    scores[3, 152] = 12
    right = (scores[:, words].argmax(1) == torch.tensor(labels)).sum(), (scores.argmax(1) == wanted).sum()
    assert right[0] > right[1] > 0
    for restricted, expected in zip((True, False), right, strict=True):
        metrics = built(restricted=restricted).loss([scores], [read]).metrics
        assert metrics["accuracy"] == expected and sum(metrics[f"recall.{name}"] for name in IDS["words"]) == expected
        assert [float(metrics[f"targets.{name}"]) for name in IDS["words"]] == [1, 1, 2]


def test_the_guess_is_by_shares_of_the_labels():
    statistics = Statistics(200, {})
    statistics.add(batch_of(torch.tensor([2, 2, 0, -1, 2])))
    statistics.add(batch_of(torch.tensor([1, 2, 2, 0, 0])))
    loss = built().trivial(statistics, objectives.views_for(batch_of(), built(), RNG))
    assert float(loss.total) == pytest.approx(-sum(math.log(share) for share in (5 / 9, 3 / 9, 1 / 9, 5 / 9)), rel=1e-5)
    assert float(loss.metrics["accuracy"]) == 2
    fewer = built(words=IDS["words"] | {"happy": None})
    assert fewer.eligible(Facts.of_batch(batch_of())).tolist() == [True, True, False, False, True]
    views = objectives.views_for(batch_of(), fewer, RNG)
    assert views[0].reads["prompt"].labels.tolist() == [1, 0, 1]
    assert float(fewer.trivial(statistics, views).total) == pytest.approx(
        -2 * math.log(5 / 8) - math.log(3 / 8), rel=1e-5
    )


def test_a_text_without_room_for_the_prompt_is_not_served():
    config = SimpleNamespace(vocab_size=200, mask_token_id=103, max_position_embeddings=11)
    objective = built(config)  # of 4 pieces, for which 6 rows are kept
    assert objective.eligible(Facts.of_batch(batch_of())).tolist() == [True, True, True, False, True]
    assert built(config, template=[110, 103, 111, 112, 113]).eligible(Facts.of_batch(batch_of())).tolist()[0] is False
    alone = built(config, shows=["speech"]).eligible(Facts.of_batch(batch_of(torch.zeros(5, dtype=torch.int64))))
    assert alone.all()


class Words:
    """A tokenizer of words that are pieces, but for `angry` of two."""

    def __init__(self):
        pieces = "[UNK] [SEP] [MASK] . ? ! : l v s i feel sad glad [unused1]"
        self.vocabulary = {piece: number for number, piece in enumerate(pieces.split())}

    def __call__(self, sentence):
        return SimpleNamespace(ids=[9, 10] if sentence == "angry" else [0])


def in_words(**options):
    model = SimpleNamespace(vocab_size=15, mask_token_id=2, max_position_embeddings=40)
    return objectives.build(
        {"label_prompt": {"template": "i feel [MASK]"} | options}, model, {"label": ("sad", "glad", "bored")}, Words
    )["label_prompt"]


def test_templates_and_words_are_of_the_models_vocabulary():
    objective = in_words(words={"bored": None}, prefix=True, position="after")
    assert objective.prompt.template == (10, 11, 2) and objective.words == [12, 13] and objective.named == [0, 1]
    assert objective.prompt.marks == Marks(2, 1, 3, (3, 4, 5), (7, 8, 9), 6)
    assert in_words(words={"bored": 14}, template="[unused1] [MASK]").prompt.template == (14, 2)
    bert = objectives.build({"label_prompt": {"template": "svtifeel", "words": {"sad": "sad", "happy": "happy"}}})
    assert bert["label_prompt"].prompt.template == (1056, 1058, 1055, 1024, 1045, 2514, 103, 2083)
    assert bert["label_prompt"].words == [6517, 3407]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "'bored' is no word of the corpora's vocabulary"),
        ({"words": {"bored": "angry"}}, "words: 'angry' of class bored is 2 word pieces"),
        ({"words": {"boredom": "sad"}}, "words: no class 'boredom'; did you mean bored"),
        ({"words": {"bored": "sad"}}, "words: another class has the word of bored too"),
        ({"words": {"bored": 15}}, "word piece 15 is beyond the vocabulary of 15 words"),
        ({"words": {"bored": -1}}, "words.bored"),
        ({"words": {"bored": None, "sad": None}}, "words: names fewer than two classes"),
        ({"words": {"bored": 14}, "template": "i feel sad"}, "template: holds 0 \\[MASK\\]; write one"),
        ({"words": {"bored": 14}, "template": "[MASK] [MASK]"}, "template: holds 2 \\[MASK\\]"),
        ({"words": {"bored": 14}, "template": "iam"}, "'am' is no word of the corpora's vocabulary"),
        ({"words": {"bored": 14}, "template": [2] + [3] * 40}, "template: is longer than the texts"),
        ({"words": {"bored": 14}, "position": "around"}, "position: input should be 'before' or 'after'"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(options, message):
    with pytest.raises(MemofastError, match=f"objectives.label_prompt: {message}|label_prompt: {message}") as error:
        in_words(**options)
    assert "\n" not in str(error.value)


def test_what_is_not_known_is_not_guessed():
    config = small_config()
    for classes, options, message in (
        ({"label": "ab"}, {}, "no corpus carries its vocabulary; give numbers"),
        ({}, {}, "no corpus names the classes of its labels"),
        ({"label": "ab"}, IDS | {"words": {"a": 5, "b": 6}, "prefix": True}, "has no word piece 'l'"),
        ({"label": "ab"}, IDS | {"words": {"a": 5, "b": 6}, "position": "after"}, r"has no word piece '\.'"),
    ):
        with pytest.raises(MemofastError, match=message):
            objectives.build({"label_prompt": options}, config, classes)


def test_a_recipe_of_the_demo(tmp_path):
    corpus = f"corpora.0.path={small_corpus(tmp_path)}"
    prompt = (
        'objectives={label_prompt: {template: "i feel [MASK] .", words: {neutral: calm, fear: afraid, contempt: null}}}'
    )
    plan = make_plan(read("demo", [corpus, prompt, "train.samples=5"]))
    objective = plan.objectives["label_prompt"]
    assert len(objective.words) == 7 and not plan.config.heads and 0 < plan.parts[0].served["label_prompt"].sum() < 48
    refused = pretrain(tmp_path, "demo", corpus, prompt.replace("calm", "neutral"))
    assert (
        refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and "'neutral' is no word" in refused.stderr
    )
