import pytest
from runs import small_recipe

from memofast.errors import MemofastError
from memofast.train import fine_tuning_recipe
from memofast.train.recipe import Recipe, read
from memofast.train.recipe_file import shipped
from memofast.train.recipe_text import to_yaml


def test_published_run():
    recipe = read("memobert-base", ["corpora.0.path=movies"])
    train = recipe.train
    assert (train.samples, train.accumulate, train.updates, train.warmup) == (160, 4, 40_000, 4_000)
    assert (train.lr, train.betas, train.eps, train.weight_decay, train.clip) == (5e-5, (0.9, 0.98), 1e-6, 0.01, 5)
    assert train.mixing == "update" and train.schedule == "linear"
    assert recipe.shares == {
        "whole_word_mlm": 0.4,
        "span_visual_regression": 0.2,
        "span_visual_emotion": 0.2,
        "span_speech_regression": 0.2,
    }


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_survive_yaml(name, tmp_path):
    recipe = read(name, ["corpora=[{path: x}]"])
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(recipe.plain()))
    assert read(str(again)) == recipe


def test_overrides(tmp_path):
    path = str(small_recipe(tmp_path, "here"))
    recipe = read(
        path, ["train.lr=3e-5", "corpora.0.weight=2", "corpora.1.path=there", "objectives.whole_word_mlm.policy=token"]
    )
    assert recipe.train.lr == 3e-5
    assert [(c.path, c.weight) for c in recipe.corpora] == [("here", 2), ("there", 1)]
    assert recipe.objective_options["whole_word_mlm"] == {"policy": "token"}
    assert recipe.objectives["whole_word_mlm"]["share"] == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=1", "unknown key train.lrr; did you mean train.lr?"),
        ("trian.lr=1", "unknown key trian; did you mean train?"),
        ("corpora.0.wieght=1", "unknown key corpora.0.wieght; did you mean corpora.0.weight?"),
        ("model.hiden_size=8", "did you mean model.hidden_size?"),
        ("train.rows.txt=8", "did you mean train.rows.text?"),
        ("train.lr=-1", "train.lr: input should be greater than 0, got -1"),
        ("train.mixing=both", "train.mixing"),
        ("validate.split=test", "test data"),
        ("train.lr", "write key=value"),
        ("corpora.5.path=x", "no place in a list of 1"),
        ("objectives.whole_word_mlm.share=-1", "share must be positive"),
        ("objectives.whole_word_mlm.share=much", "share must be a number"),
        ("corpora.0.objectives=[whole_word_mml]", "did you mean whole_word_mlm?"),
        ("corpora=[]", "names no corpus"),
        ("objectives={}", "names no objective"),
    ],
)
def test_mistakes(tmp_path, override, message):
    with pytest.raises(MemofastError) as error:
        read(str(small_recipe(tmp_path, "here")), [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_recipe():
    with pytest.raises(MemofastError, match="did you mean memobert-base"):
        read("memobert-bass")
    with pytest.raises(MemofastError, match="No such file"):
        read("nowhere.yaml")


@pytest.mark.parametrize("text", ["train: [1, 2", "- a list", "", "train: {lr: 1}\n\tx: 2"])
def test_invalid_yaml(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(MemofastError) as error:
        read(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_defaults_name_every_section():
    assert set(Recipe().model_dump(by_alias=True)) == {"corpora", "model", "objectives", "train", "validate"}


def test_a_family_that_there_is_not_is_one_line_with_the_nearest():
    with pytest.raises(MemofastError, match=r"model has no kind 'lstm_fusio'; did you mean lstm_fusion\?$"):
        fine_tuning_recipe.read("finetune-lstm", ["model.family=lstm_fusio"])


@pytest.mark.parametrize(
    ("seeds", "message"), [("[-1]", "greater than or equal to 0"), ("[3, 4, 3]", "seed 3 is given")]
)
def test_seeds_are_checked_where_they_are_read(seeds, message):
    with pytest.raises(MemofastError, match=message) as error:
        fine_tuning_recipe.read("finetune-demo", [f"train.seeds={seeds}"])
    assert "train.seeds" in str(error.value) and "\n" not in str(error.value)
