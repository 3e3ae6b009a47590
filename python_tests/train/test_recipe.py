import pytest
from runs import small_recipe

from memofast.errors import MemofastError
from memofast.model.families import FAMILIES
from memofast.train import fine_tuning_recipe
from memofast.train.recipe import Recipe, read
from memofast.train.recipe_file import shipped, split_arguments
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.samples=99999999999", "train.samples: input should be less than or equal to 65536"),
        ("train.seed=99999999999999999999999", "train.seed: input should be less than 9223372036854775808"),
        ("train.lr=.inf", "train.lr: input should be a finite number"),
        ("train.betas=[1.5,2]", "train.betas.0: input should be less than 1"),
        ("train.betas=0.9", "train.betas: must be a list, got 0.9; write a list, as [0.9]"),
        ("train.updates=true", "train.updates: is neither true nor false"),
        (
            "train.track=true",
            "train.track: must be a mapping of entries, got True; its entries are to, project, online",
        ),
        ("train.threads=1000000000", "train.threads"),
        ("train.loader_threads=0", "train.loader_threads"),
        ("train.warmup=-1", "train.warmup"),
        ("train.rows.text=0", "train.rows.text"),
        ("train.groups={x: {}}", "train.groups: x names nothing that is otherwise"),
        ("train.groups={x: {lr: -1}}", "train.groups.x.lr"),
        ("train=3", "train: must be a mapping of entries, got 3; its entries are samples, accumulate, lr, "),
        ("validate.every=0", "validate.every"),
        ("model.hidden_size=0", "model.hidden_size"),
        ("model.hidden_size=20", "model.hidden_size: input should be a multiple of 8"),
        ("model.num_hidden_layers=-1", "model.num_hidden_layers"),
        ("model.hidden_dropout_prob=1", "model.hidden_dropout_prob"),
        ("model.hidden_dropout_prob=1e-9", "model.hidden_dropout_prob: is 0 or at least"),
        ("model.vocab_size=99999999999", "model.vocab_size"),
        ("model.init=" + "y" * 300, "model.init: is no path"),
        ("corpora.0.path=" + "x/" * 2500, "corpora.0.path: is no path"),
        ('corpora.0.path="a\\0b"', "corpora.0.path: is no path"),
        ("corpora.0.weight=1e9", "corpora.0.weight"),
        ("corpora=demo", "corpora: must be a list, got 'demo'; write a list, as [demo]"),
        ("corpora.0.objectives=whole_word_mlm", "write a list, as [whole_word_mlm]"),
        ("corpora.0=demo", "corpora.0: must be a mapping of entries"),
        ("corpora.²=x", "² is no place in a list of 1"),
        ("objectives=whole_word_mlm", "objectives: must be a mapping of entries"),
        ("objectives.whole_word_mlm.share=.nan", "objectives.whole_word_mlm.share: the share must be positive"),
        ("objectives.whole_word_mlm.share=true", "the share must be a number"),
        ("train.lr=" + "9" * 5000, "a number of 5,000 digits"),
        ("train.lr='" + "9" * 5000 + "'", "train.lr: input should be a finite number"),
        ("train.samples=010", "train.samples: YAML may read 010 as another value; write 10 or '010' in quotes"),
        ("train.lr.x=1", "lr is a value and has no entries"),
    ],
)
def test_numbers_have_bounds_and_keys_are_named(tmp_path, override, message):
    with pytest.raises(MemofastError) as error:
        read(str(small_recipe(tmp_path, "here")), [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.hide=.0004", "train.hide: is 0 or from 0.001 to 0.999"),
        ("train.hide=.9999", "train.hide: is 0 or"),
        ("train.hide_columns=1e-9", "train.hide_columns: is 0 or"),
        ("train.seeds=5", "train.seeds: must be a list, got 5; write a list, as [5]"),
        ("train.seeds=[true]", "train.seeds: is neither true nor false"),
        ("modalities.train=lva", "write a list, as [lva]"),
        ("folds.count=2", "folds.count: input should be greater than or equal to 3"),
        ("folds.only=[0]", "folds.only.0"),
        ("model=demo", "model: must be a mapping of entries, got 'demo'"),
        ("model.family=[x]", "model has no kind"),
        ("model.freeze=-1", "model.freeze: input should be greater than or equal to 0"),
        ("model={family: lstm_fusion, hidden_size: 0}", "model.hidden_size"),
        ("prompt.template=[]", "prompt.template"),
        ("target.map={happy: 3}", 'target.map.happy: input should be a valid string, got 3; put it in quotes, as "3"'),
        ("target.map={happy: no}", "target.map.happy: YAML may read no as another value"),
    ],
)
def test_fine_tuning_has_bounds_too(override, message):
    with pytest.raises(MemofastError) as error:
        fine_tuning_recipe.read("finetune-demo", [override])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("option", ["train.class_weights=balanced", "train.smoothing=0.1"])
def test_what_a_regression_has_no_use_for_is_refused(option):
    assert fine_tuning_recipe.read("finetune-demo", [option])
    with pytest.raises(MemofastError, match=option.split("=")[0]):
        fine_tuning_recipe.read("finetune-demo", ["target.kind=regression", option])


def test_an_override_of_a_section_merges_and_one_of_names_replaces(tmp_path):
    path = str(small_recipe(tmp_path, "here", train={"groups": {"a": {"lr": 2}}}))
    recipe = read(path, ["train={lr: 0.25, rows: {text: 50}}", "train.rows={speech: 70}", "corpora.0={weight: 3}"])
    assert (recipe.train.lr, recipe.train.samples, recipe.train.updates) == (0.25, 8, 12)
    assert (recipe.train.rows.text, recipe.train.rows.speech) == (50, 70)
    assert (recipe.corpora[0].path, recipe.corpora[0].weight) == ("here", 3)
    assert set(read(path, ["objectives={matching: {}}"]).objectives) == {"matching"}
    assert set(read(path, ["train.groups={b: {lr: 3}}"]).train.groups) == {"b"}
    own = read(path, ["objectives.whole_word_mlm={probability: 0.3}"]).objectives
    assert own["whole_word_mlm"] == {"share": 2, "probability": 0.3} and len(own) == 4


def test_several_recipes_are_joined_left_to_right(tmp_path):
    more, last = tmp_path / "more.yaml", tmp_path / "last.toml"
    more.write_text("corpora: [{path: x}]\nobjectives: {matching: {share: 3}}\ntrain: {lr: 0.5, samples: 7}\n")
    last.write_text("[train]\nsamples = 9\nbetas = [0.5, 0.75]\n")
    recipe = read(["memobert-base", str(more), str(last)], ["train.clip=2"])
    train = recipe.train
    assert (train.lr, train.samples, train.betas, train.clip, train.accumulate) == (0.5, 9, (0.5, 0.75), 2, 4)
    assert recipe.objectives["matching"] == {"share": 3} and len(recipe.objectives) == 5
    assert recipe.model.hidden_size == 768
    last.write_text("[train]\nsampels = 9\n")
    with pytest.raises(MemofastError, match=r"memobert-base \+ .*more.yaml \+ .*last.toml: unknown key train.sampels"):
        read(["memobert-base", str(more), str(last)])


def test_a_model_of_another_family_has_its_own_entries_alone():
    """`finetune` has a head and an init, which networks over rows do not know."""
    model = "model={family: sequence, network: {kind: ef_lstm}, standardise: none}"
    recipe = fine_tuning_recipe.read("finetune", ["corpus=c", model])
    assert (recipe.model.family, recipe.model.network.kind, recipe.model.standardise) == ("sequence", "ef_lstm", "none")
    again = fine_tuning_recipe.read("mosi-ef_lstm", ["corpus=c", "model={family: sequence, standardise: none}"])
    assert again.model.network == fine_tuning_recipe.read("mosi-ef_lstm", ["corpus=c"]).model.network
    assert again.model.standardise == "none"
    with pytest.raises(MemofastError, match=r"unknown key model\.network"):
        fine_tuning_recipe.read("mosi-ef_lstm", ["corpus=c", "model={family: memobert, network: {kind: ef_lstm}}"])
    plain = fine_tuning_recipe.read("finetune", ["corpus=c", "model={family: memobert, init: x}"]).model
    assert (plain.head, plain.init) == ("vqa", "x")


@pytest.mark.parametrize(
    ("arguments", "names", "overrides"),
    [
        ([], [], []),
        (["a=1"], [], ["a=1"]),
        (["x", "a=1"], ["x"], ["a=1"]),
        (["x", "+", "y.yaml", "+", "z", "a=1", "b=2"], ["x", "y.yaml", "z"], ["a=1", "b=2"]),
    ],
)
def test_recipes_and_overrides_are_told_apart(arguments, names, overrides):
    assert split_arguments(arguments) == (names, overrides)


@pytest.mark.parametrize("arguments", [["+", "x"], ["x", "+"], ["+"], ["x", "+", "y", "+"]])
def test_a_plus_needs_a_recipe_on_either_side(arguments):
    with pytest.raises(MemofastError, match="joins two recipes"):
        split_arguments(arguments)


def test_the_home_folder_may_be_abbreviated(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere/me")
    recipe = read("memobert-base", ["corpora.0.path=~/x", "model.init=~/y"])
    assert (recipe.corpora[0].path, recipe.model.init) == ("/nowhere/me/x", "/nowhere/me/y")
    assert fine_tuning_recipe.read("finetune", ["corpus=~/z"]).corpus == "/nowhere/me/z"


def test_no_file_is_too_large_to_be_refused(tmp_path):
    large, folder = tmp_path / "large.yaml", tmp_path / "folder.yaml"
    large.write_text("#" * 2**19)
    folder.mkdir()
    for path, message in ((large, "longer than any recipe"), (folder, "no file"), ("/dev/zero", "no file")):
        with pytest.raises(MemofastError, match=message):
            read(str(path))


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


SAID = {
    "memobert-flow": ("intermediate_size", 48), "lstm_fusion": ("hidden_size", 48), "sequence": ("vocab_size", 48),
    "perceiver": ("hop", 4), "towers": ("text", {"init": "FOLDER"}),
}  # fmt: skip


def test_every_other_family_is_tried():
    assert {*SAID} == {*FAMILIES} - {"memobert"}


@pytest.mark.parametrize("family", SAID)
@pytest.mark.parametrize("shipped", ["finetune", "finetune-demo"])
def test_another_family_leaves_nothing_of_the_model(shipped, family):
    name, value = SAID[family]
    named, said = f"model.family={family}", f"model.{name}={value}"
    one, other, whole = (
        fine_tuning_recipe.read(shipped, ["corpus=FOLDER", *overrides]).model.plain()
        for overrides in ([named, said], [said, named], [f"model={{family: {family}}}", said])
    )
    assert one == other == whole and one["family"] == family
    assert one[name] == value or one[name]["init"].endswith(value["init"])
    kept = fine_tuning_recipe.read("finetune-demo", ["model.family=memobert"]).model
    assert kept == fine_tuning_recipe.read("finetune-demo", []).model


@pytest.mark.parametrize(
    ("seeds", "message"), [("[-1]", "greater than or equal to 0"), ("[3, 4, 3]", "seed 3 is given")]
)
def test_seeds_are_checked_where_they_are_read(seeds, message):
    with pytest.raises(MemofastError, match=message) as error:
        fine_tuning_recipe.read("finetune-demo", [f"train.seeds={seeds}"])
    assert "train.seeds" in str(error.value) and "\n" not in str(error.value)
