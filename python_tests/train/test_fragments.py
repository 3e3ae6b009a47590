"""Fragments: joined to a base recipe they are the published configurations, whose shares stand here by hand."""

from fractions import Fraction

import pytest
from runs import here, pretrain, small_corpus

from memofast import objectives
from memofast.errors import MemofastError
from memofast.train.dry_run import describe
from memofast.train.plan import make_plan
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
}  # fmt: skip

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


@pytest.mark.parametrize("fragment", fragments())
@pytest.mark.parametrize("base", ["memobert-base", "demo"])
def test_a_fragment_changes_a_base_as_published(base, fragment):
    recipe = read([base, fragment], ["corpora.0.path=demo"])
    plain = read(base, ["corpora.0.path=demo"])
    shares = {name: Fraction(share).limit_denominator(1000) for name, share in recipe.shares.items()}
    assert shares == {name: Fraction(*share) for name, share in SHARES[fragment].items()}
    built = objectives.build(recipe.objective_options)
    for name, policy in DOES.get(fragment, {}).items():
        assert {key: getattr(built[name].policy, key) for key in policy} == policy
    unchanged = plain.train if fragment != "on-task" else plain.train.model_copy(
        update={"samples": 64, "lr": 2e-5, "updates": 2000, "warmup": 0}
    )  # fmt: skip
    assert (recipe.train, recipe.model, recipe.validate_) == (unchanged, plain.model, plain.validate_)


def test_fragments_join_one_another():
    one = read(["memobert-base", "token-words", "independent", "matching"], ["corpora.0.path=demo"])
    other = read(["memobert-base", "five-tasks"], ["corpora.0.path=demo"])
    assert one.shares == other.shares and one.objective_options == other.objective_options
    sixth = read(["memobert-base", "without-faces", "single-span", "order"], ["corpora.0.path=demo"])
    assert list(sixth.objectives) == [W, S, "visual_order", "speech_order"]
    assert sixth.objective_options[S] == {"policy": "single_span"}


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
