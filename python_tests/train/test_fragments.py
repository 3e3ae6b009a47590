"""Fragments: joined to a base recipe they are the published configurations, whose shares stand here by hand."""

import re
from fractions import Fraction

import pytest
import torch
from every_objective import corpus_of_every_objective
from runs import first_updates, here, pretrain, small_corpus

from memofast import objectives
from memofast.data import Corpus
from memofast.data.conditions import CONDITIONS, modalities_of
from memofast.data.corpus import replace_store
from memofast.data.modality import MODALITIES
from memofast.errors import MemofastError
from memofast.objectives.words import MaskedWords
from memofast.store.text_copy import fields_of, writer_like
from memofast.train.dry_run import describe
from memofast.train.plan import make_plan
from memofast.train.pre_training import PreTraining
from memofast.train.recipe import read
from memofast.train.recipe_file import described, fragments, shipped

W, VR, VE, S = "whole_word_mlm", "span_visual_regression", "span_visual_emotion", "span_speech_regression"
MAIN = {W: (2, 5), VR: (1, 5), VE: (1, 5), S: (1, 5)}

# by what follows the base: shares of the table of configurations, as fractions of their sum
SHARES = {
    "single-span": MAIN,
    "independent": MAIN,  # 4, 2, 2, 2
    "mixed-spans": {W: (2, 26), VR: (8, 26), VE: (8, 26), S: (8, 26)},
    "dice": MAIN,
    "without-speech": {W: (2, 4), VR: (1, 4), VE: (1, 4)},
    "without-faces": {W: (2, 3), S: (1, 3)},
    "matching": {W: (2, 7), VR: (1, 7), VE: (1, 7), S: (1, 7), "matching": (2, 7)},
    "order": {W: (2, 7), VR: (1, 7), VE: (1, 7), S: (1, 7), "visual_order": (1, 7), "speech_order": (1, 7)},
    "contrast": {W: (2, 6), VR: (1, 6), VE: (1, 6), S: (1, 6), "view_contrast": (1, 6)},
    "emotion-words": {"emotion_words": (2, 5), VR: (1, 5), VE: (1, 5), S: (1, 5)},
    "token-words": {"token_mlm": (2, 5), VR: (1, 5), VE: (1, 5), S: (1, 5)},
    "words-30": MAIN,
    "words-50": MAIN,
    "spans-50": MAIN,
    "compare": MAIN,  # 4, 2, 2, 2
    "affectnet": {W: (4, 7), VR: (1, 7), VE: (1, 7), S: (1, 7)},
    "five-tasks": {"token_mlm": (2, 7), VR: (1, 7), VE: (1, 7), S: (1, 7), "matching": (2, 7)},
    "on-task": dict.fromkeys((W, VR, VE, S), (1, 4)),
    "emotional-faces": {
        W: (2, 5), S: (1, 5), "emotional_visual_regression": (1, 5), "emotional_visual_emotion": (1, 5)
    },
    "emotions": {W: (2, 6), VR: (1, 6), VE: (1, 6), S: (1, 6), "utterance_emotion": (1, 6)},
    "sure-emotions": {W: (2, 7), VR: (1, 7), VE: (1, 7), S: (1, 7), "utterance_emotion": (2, 7)},
    "emotional-matching": {W: (2, 7), VR: (1, 7), VE: (1, 7), S: (1, 7), "matching": (2, 7)},
    "one-modality": {
        W: (2, 11), VR: (1, 11), VE: (1, 11), S: (1, 11), "matching": (2, 11), "one_modality_matching": (4, 11)
    },
    "only-one-modality": {W: (2, 15), VR: (1, 15), VE: (1, 15), S: (1, 15), "one_modality_matching": (10, 15)},
    "six-tasks": {
        "token_mlm": (2, 9), VR: (1, 9), VE: (1, 9), S: (1, 9), "face_matching": (2, 9), "speech_matching": (2, 9)
    },
    "seven-tasks": {
        "token_mlm": (2, 11), VR: (1, 11), VE: (1, 11), S: (1, 11), "face_matching": (2, 11),
        "speech_matching": (2, 11), "matching": (2, 11),
    },
    "emotion-tasks": {"token_mlm": (1, 6), "emotion_words": (1, 6), VR: (1, 6), VE: (1, 6), "matching": (2, 6)},
    "lare": {"token_mlm": (2, 9), VR: (1, 9), VE: (1, 9), S: (1, 9), "matching": (2, 9), "lare": (2, 9)},
    "swapped-contrast": {W: (2, 6), VR: (1, 6), VE: (1, 6), S: (1, 6), "tuple_contrast": (1, 6)},
    "frame-contrast": {
        W: (2, 7), VR: (1, 7), VE: (1, 7), S: (1, 7), "span_visual_contrast": (1, 7), "span_speech_contrast": (1, 7)
    },
    "autoencoder": {W: (2, 5), "masked_autoencoder": (3, 5)},
    "words-and-faces": {W: (2, 4), VR: (1, 4), VE: (1, 4)},
    "words-and-speech": {W: (2, 3), S: (1, 3)},
    "seven-cases": {  # 6 + 3 + 3 + 3, 6 + 3 + 3, 6 + 3, 3, 3, 3 + 3, 3 + 3 + 3
        W: (6, 57), VR: (3, 57), VE: (3, 57), S: (3, 57), "words_lv": (6, 57), "faces_lv": (3, 57),
        "face_emotions_lv": (3, 57), "words_la": (6, 57), "speech_la": (3, 57), "words_l": (3, 57),
        "speech_a": (3, 57), "faces_v": (3, 57), "face_emotions_v": (3, 57), "faces_va": (3, 57),
        "face_emotions_va": (3, 57), "speech_va": (3, 57),
    },
    "missing-modalities": {  # 2 + 1 + 1 + 1, 1 + 1 + 1, 1 + 1, 1, 1, 1 + 1, 1 + 1 + 1
        W: (2, 17), VR: (1, 17), VE: (1, 17), S: (1, 17),
    } | dict.fromkeys((
        "words_lv", "faces_lv", "face_emotions_lv", "words_la", "speech_la", "words_l", "speech_a", "faces_v",
        "face_emotions_v", "faces_va", "face_emotions_va", "speech_va",
    ), (1, 17)),
    "two-and-three": {  # 6 + 3 + 3 + 3, 6 + 3 + 3, 6 + 3
        W: (6, 36), VR: (3, 36), VE: (3, 36), S: (3, 36), "words_lv": (6, 36), "faces_lv": (3, 36),
        "face_emotions_lv": (3, 36), "words_la": (6, 36), "speech_la": (3, 36),
    },
    "prompts": dict.fromkeys([f"prompt_{case}" for case in ("lva", "lv", "la", "l", "va", "v", "a")], (1, 7)),
    "sentence-prompts": {"sentence_prompt": (1, 1)},
}  # fmt: skip

CLASSES = {"label": ("anger", "happy", "neutral", "sad"), "emotions": ("neutral", "happy", "sad")}

# what the objectives then do; everything else is as the base says
DOES = {
    "single-span": {name: {"kind": "single_span"} for name in (VR, VE, S)},
    "independent": {name: {"kind": "independent", "ratio": (3, 20)} for name in (VR, VE, S)},
    "mixed-spans": {name: {"kind": "mixed", "length": length} for name, length in ((VR, 5), (VE, 5), (S, 6))},
    "dice": {name: {"kind": "span", "dice": True} for name in (VR, VE, S)},
    "emotion-words": {"emotion_words": {"kind": "whole_word_emotion", "probability": (3, 20)}},
    "token-words": {"token_mlm": {"kind": "token", "probability": (3, 20)}},
    "words-30": {W: {"kind": "whole_word", "probability": (3, 10)}},
    "words-50": {W: {"kind": "whole_word", "probability": (1, 2)}},
    "spans-50": {name: {"kind": "span", "ratio": (1, 2), "length": 5} for name in (VR, VE, S)},
    "five-tasks": {"token_mlm": {"kind": "token"}} | {name: {"kind": "independent"} for name in (VR, VE, S)},
}  # fmt: skip


def test_every_fragment_is_in_these_tables():
    assert sorted(SHARES) == fragments() and not set(fragments()) & set(shipped())
    for name in fragments():
        assert 30 < len(described(name)) < 118 and ("published" in described(name) or name == "dice"), name
    assert {described(name)[0].isupper() for name in fragments()} == {True}


@pytest.mark.parametrize("fragment", fragments())
@pytest.mark.parametrize("base", ["memobert-base", "demo"])
def test_a_fragment_changes_a_base_as_published(base, fragment):
    recipe = read([base, fragment], ["corpora.0.path=demo"])
    plain = read(base, ["corpora.0.path=demo"])
    shares = {name: Fraction(share).limit_denominator(1000) for name, share in recipe.shares.items()}
    assert shares == {name: Fraction(*share) for name, share in SHARES[fragment].items()}
    built = objectives.build(recipe.objective_options, None, CLASSES)
    for name, one in built.items():
        case = name.rpartition("_")[2]
        if case in CONDITIONS:
            assert one.hides == tuple(name for name in MODALITIES if name not in modalities_of(case)), name
    for name, policy in DOES.get(fragment, {}).items():
        assert {key: getattr(built[name].policy, key) for key in policy} == policy
    unchanged = plain.train if fragment != "on-task" else plain.train.model_copy(
        update={"samples": 64, "lr": 2e-5, "updates": 2000, "warmup": 0}
    )  # fmt: skip
    assert (recipe.train, recipe.model, recipe.validate_) == (unchanged, plain.model, plain.validate_)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """One with everything that objectives need, and one with words, their emotions, labels, faces and speech alone."""
    full, plain = (corpus_of_every_objective(tmp_path_factory.mktemp(name)) for name in ("full", "plain"))
    text = Corpus.open(plain).stores["text"]
    with writer_like(text, plain / "text-alone", emotions=(), with_parts_of_speech=False) as writer:
        for id in text.ids:
            lacking = ("emotions", "part_of_speech", "polarity")
            writer.put(id, **{name: value for name, value in fields_of(text, id).items() if name not in lacking})
    replace_store(plain, "text", plain / "text-alone", {})
    return full, plain


# what follows objectives. of the demo in the one line
REFUSED = {
    "emotional-matching": "matching: no corpus can serve it, none has text rows and .* and known emotions;",
    "emotions": "utterance_emotion: no corpus has emotions; run memofast pseudo-label on one$",
    "sure-emotions": "utterance_emotion: no corpus has emotions; run memofast pseudo-label on one$",
    "lare": "lare: no corpus can serve it, none has .*part_of_speech and polarity",
    "prompts": "prompt_lva: 'neutral' is no word of the corpora's vocabulary; choose another one$",
}
PROMPTS = "template: 'i feel [MASK] .', words: {neutral: calm, fear: afraid, contempt: smug}"
NEEDS = {  # of the demo, whose eight emotions are not all words of it
    "lare": ["objectives.lare.sentence_classes=8"],
    "sentence-prompts": [f"objectives.sentence_prompt={{{PROMPTS}}}"],
    "prompts": [f"objectives.{name}={{{PROMPTS}}}" for name in SHARES["prompts"]],
}


@pytest.mark.parametrize("fragment", fragments())
def test_a_dry_run_says_what_would_be_drawn_or_what_the_corpus_lacks(corpora, tmp_path, fragment):
    full, plain = corpora
    line = ["demo", "+", fragment, "--dry-run", "train.samples=24"]
    if fragment in REFUSED:
        refused = pretrain(tmp_path, *line, f"corpora.0.path={plain}")
        (said,) = refused.stderr.splitlines()
        assert refused.returncode == 2 and re.search(f"pretrain: objectives.{REFUSED[fragment]}", said), said
    given = NEEDS.get(fragment, [])
    told = pretrain(tmp_path, *line, f"corpora.0.path={full if fragment in REFUSED else plain}", *given)
    assert told.returncode == 0 and not told.stderr, told.stderr
    (drawn,) = re.findall(r"^  draws (.*)$", told.stdout, re.MULTILINE)
    shares = {name: f"{part / whole:.0%}" for name, (part, whole) in SHARES[fragment].items()}
    assert dict(one.split() for one in drawn.split(", ")) == shares
    assert re.search(r"^demo: token_ids .* targets \{", told.stdout, re.MULTILINE) and not list(tmp_path.iterdir())


def test_prompts_of_the_demo_show_what_their_case_says(tmp_path):
    plan = make_plan(
        read(["demo", "prompts"], [f"corpora.0.path={small_corpus(tmp_path)}", "train.samples=30", *NEEDS["prompts"]])
    )
    (update,) = first_updates(PreTraining(plan), 1)
    (view,) = update.micro_batches[0].views
    assert sorted(view.reads) == sorted(SHARES["prompts"])
    lengths = torch.stack([view.batch.offsets_of(name).diff() for name in MODALITIES], 1)
    for name, read_ in view.reads.items():
        samples = torch.searchsorted(view.batch.offsets[1:].to(torch.int64), read_.rows, right=True)
        case = name.rpartition("_")[2]
        assert ("l" in case) == bool((lengths[samples, 0] > 6).all()) and ("l" not in case) == bool(
            (lengths[samples, 0] == 6).all()
        )
        assert "v" in case or not lengths[samples, 1].any()
        assert "a" in case or not lengths[samples, 2].any()


def test_fragments_join_one_another():
    one = read(["memobert-base", "token-words", "independent", "matching"], ["corpora.0.path=demo"])
    other = read(["memobert-base", "five-tasks"], ["corpora.0.path=demo"])
    assert one.shares == other.shares and one.objective_options == other.objective_options
    sixth = read(["memobert-base", "without-faces", "single-span", "order"], ["corpora.0.path=demo"])
    assert list(sixth.objectives) == [W, S, "visual_order", "speech_order"]
    assert sixth.objective_options[S] == {"policy": "single_span"}


@pytest.mark.parametrize(
    ("others", "policies"),
    [
        (["token-words"], {"token_mlm": "token"}),
        (["emotion-words"], {"emotion_words": "whole_word_emotion"}),
        (["emotion-tasks"], {"token_mlm": "token", "emotion_words": "emotion_word"}),
        (["two-and-three"], dict.fromkeys((W, "words_lv", "words_la"), "whole_word")),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_more_words_are_hidden_by_every_objective_of_words(others, policies, first):
    names = ["memobert-base", "words-50", *others] if first else ["memobert-base", *others, "words-50"]
    recipe = read(names, ["corpora.0.path=demo"])
    assert recipe.shares == read(["memobert-base", *others], ["corpora.0.path=demo"]).shares and not recipe.each
    built = objectives.build(recipe.objective_options)
    words = {name: one.policy for name, one in built.items() if isinstance(one, MaskedWords)}
    assert {name: policy.kind for name, policy in words.items()} == policies
    assert {policy.probability for policy in words.values()} == {(1, 2)}


def test_an_objective_left_out_reaches_neither_plan_nor_heads(tmp_path):
    corpus = [f"corpora.0.path={small_corpus(tmp_path)}", "train.samples=8"]
    names = ["demo", "without-faces", "emotion-words", "order"]
    plan = make_plan(read(names, [*corpus, "objectives.speech_order.share=0"]))
    assert list(plan.objectives) == [S, "emotion_words", "visual_order"] == list(plan.parts[0].shares)
    assert list(plan.config.heads) == ["visual_order"]
    told = describe(plan)
    assert "emotion_words" in told and not any(f"{name}:" in told for name in (W, VR, VE, "speech_order"))


@pytest.mark.parametrize(
    ("names", "overrides", "message"),
    [
        (["matching"], [], "recipe matching is a fragment, .* join it to one, as memobert-base \\+ matching$"),
        (["order", "memobert-base"], [], "recipe order is a fragment"),
        (["demo", "matchin"], [], "recipe matchin: No such file or directory; did you mean matching\\?"),
        (["demo", "mixed-spans"], [f"objectives.{VR}.ratio=0.5"], "ratio has no effect with policy mixed"),
        (["demo", "single-span", "dice"], [], "dice has no effect with policy single_span"),
        (["demo", "without-speech"], [f"corpora.0.objectives=[{S}]"], f"asks for objective {S}, whose share is 0"),
        (["demo"], [f"objectives.{name}.share=0" for name in MAIN], "names no objective"),
        (["demo"], [f"objectives.{S}.share=0.00001"], "the share must be positive, .* 0 leaves the objective out"),
        (["demo"], [f"objectives.{S}.share=false"], "the share must be a number"),
        (["demo", "words-30", "words-50"], ["each.matchin.share=1"], "each.matchin: unknown objective 'matchin'; did"),
        (["demo", "words-30"], ["each.whole_word_mlm.share=1"], "each.whole_word_mlm.share: is of one objective"),
        (["demo", "prompts", "words-30"], [], "each.whole_word_mlm: the recipe has no objective of this kind"),
        (["demo", "words-30"], [f"objectives.{W}.probability=0.2"],
         f"each.{W}.probability is 0.3, objectives.{W}.probability is 0.2; leave one of them out$"),
        (["demo", "words-30"], ["each.whole_word_mlm.policies=token"], "unknown key policies; did you mean policy"),
    ],
)  # fmt: skip
def test_what_cannot_be_joined_is_one_line(names, overrides, message):
    with pytest.raises(MemofastError, match=message) as error:
        objectives.build(read(names, overrides).objective_options)
    assert "\n" not in str(error.value)


def test_a_fragment_alone_starts_nothing(tmp_path):
    assert here(tmp_path, "recipe", "finetune", "--list").stdout.count("+") == 0
    alone = pretrain(tmp_path, "matching")
    assert alone.returncode == 2 and len(alone.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())
