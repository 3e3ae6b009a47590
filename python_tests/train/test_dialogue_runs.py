"""Fine-tuning on utterances in their dialogues: it learns what only context tells, keeps it, and evaluates with it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from packed_batches import small_config
from rich.console import Console
from runs import here
from talks import MODEL, PIECES, SPEAKERS, telling_talks, two_talks, write_talks

from memofast.data import Corpus
from memofast.data.conditions import keep
from memofast.data.conversations import context_of
from memofast.data.dialogue import Context
from memofast.data.folds import read_groups, write_groups
from memofast.data.prompt import MASK as PROMPT_MASK
from memofast.errors import MemofastError
from memofast.evaluate import how_chosen
from memofast.evaluate.evaluations import of_corpus
from memofast.evaluate.model_on_corpus import open_model, predict_on, target_on
from memofast.inference.dialogues import as_read
from memofast.inference.split_predictions import label_space_of, predict_split
from memofast.model import MemoBertForPreTraining
from memofast.model.families import export_model, open_emotion_model, open_encoder
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model, told_of_context
from memofast.train.fine_tuning_recipe import read
from memofast.train.fine_tuning_runs import answers, fine_tune
from memofast.train.loss_sections import TeacherSection
from memofast.train.sweep_file import SWEEP, read_sweep, write_sweep
from memofast.train.teachers import taught
from memofast.train.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return telling_talks(tmp_path_factory.mktemp("talks") / "talks")


def recipe_file(folder, corpus, **sections):
    values = {
        "corpus": str(corpus), "model": MODEL, "settings_chosen_on": "nothing",
        "modalities": {"train": ["l"], "evaluate": ["l"]}, "context": {"utterances": 1, "tokens": 40},
        "train": {"epochs": 20, "samples": 16, "lr": 1e-2, "patience": 99, "precision": "fp32", "device": "cpu"},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values | sections))
    return path


@pytest.fixture(scope="module")
def ran(corpus, tmp_path_factory):
    """What the command said, and the folder of its run."""
    folder = tmp_path_factory.mktemp("ran")
    done = here(folder, "finetune", recipe_file(folder, corpus))
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return done.stdout, run


def test_it_learns_what_only_context_tells(ran, corpus):
    said, run = ran
    results = json.loads((run / "results.json").read_text())
    (row,) = [row for row in results["rows"] if row["split"] == "test"]
    assert row["selected on validation"]["pooled"]["wa"]["mean"] > 0.95, row
    assert "read in dialogues: up to 1 earlier utterances, 40 rows, asked after it; 0 texts" in said
    assert "simple baselines read the utterance alone (TF-IDF)" in (run / "results.md").read_text()
    (words,) = [own for name, own in results["baselines"].items() if name == "logistic regression"]
    assert words["rows"][0]["selected on validation"]["pooled"]["wa"]["mean"] < 0.8
    assert yaml.safe_load((run / "config.yaml").read_text())["context"]["utterances"] == 1


def test_the_model_keeps_its_context_and_evaluates_with_it(ran, corpus):
    _, run = ran
    model = open_emotion_model(run)
    assert model.context == Context(utterances=1, tokens=40)
    split = Corpus.open(corpus).split("test")
    found = predict_split(model, split, label_space_of(model), "fp32", "l").known
    assert (found.named == found.truth).mean() > 0.95
    opened = open_model(run)
    again = predict_on(opened, split, target_on(opened, split.corpus), ["l"])["l"]
    kept = np.load(run / "fixed" / "seed-42" / "answers" / "test-l.npz")
    np.testing.assert_allclose(again.scores, kept["scores"], atol=1e-6)
    done = here(run.parent, "evaluate", run, "--corpus", corpus, "--split", "test", "--out", run.parent / "evaluated")
    assert done.returncode == 0, done.stderr


def test_one_by_one_is_the_batch(ran, corpus):
    model = open_emotion_model(ran[1])
    split = as_read(model, Corpus.open(corpus).split("test"))
    whole, *alone = (keep(split.pack(chosen), "l") for chosen in (range(len(split)), *([n] for n in range(len(split)))))
    whole, alone = model.probabilities(whole), torch.cat([model.probabilities(batch) for batch in alone])
    torch.testing.assert_close(whole, alone)
    assert as_read(model, split).corpus is split.corpus


def test_the_question_is_read(ran, corpus):
    """What is read is the row of [MASK] at its position, or that of [CLS] where text is hidden."""
    model = open_emotion_model(ran[1])
    split = as_read(model, Corpus.open(corpus).split("test"))
    batch = split.pack([4])
    asked = model.memobert(batch).hidden[len(batch.token_ids) - 2][None]
    torch.testing.assert_close(model(batch), model.emotion(model.memobert.pooled(asked), batch.sample_keys, None))
    shown = keep(batch, "v")
    first = model.memobert(shown).hidden[:1]
    torch.testing.assert_close(model(shown), model.emotion(model.memobert.pooled(first), shown.sample_keys, None))


def test_the_mean_of_its_own_words_is_read(corpus, tmp_path):
    """Learnt in a few updates; the words are those between the marks, whatever stands around."""
    context = {"utterances": 1, "tokens": 40, "query": None, "pool": "words"}
    plan = make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus, context=context)), ["train.epochs=2"]))
    assert told_of_context(plan.recipe.context).endswith("40 rows, the mean of its own words")
    fine_tune(plan, tmp_path / "run", Console(quiet=True))
    model = open_emotion_model(tmp_path / "run")
    split = as_read(model, Corpus.open(corpus).split("test"))
    batch = keep(split.pack([2, 4, 9]), "l")
    hidden, means = model.memobert(batch).hidden, []
    for begin, words in zip(
        batch.offsets.tolist(), batch.word_ids.split(batch.text_offsets.diff().tolist()), strict=False
    ):
        means.append(hidden[begin : begin + len(words)][words >= 0].mean(0))
    wanted = model.emotion(model.memobert.pooled(torch.stack(means)), batch.sample_keys, None)
    torch.testing.assert_close(model(batch), wanted)
    alone = torch.cat([model(keep(split.pack([place]), "l")) for place in (2, 4, 9)])
    torch.testing.assert_close(model(batch), alone)
    shown = keep(split.pack([2, 4, 9]), "v")
    first = model.memobert(shown).hidden[shown.offsets[:-1].long()]
    torch.testing.assert_close(model(shown), model.emotion(model.memobert.pooled(first), shown.sample_keys, None))


def test_it_learns_what_only_earlier_speech_tells(tmp_path):
    """The words and its own rows say nothing; the rows of the one before tell the class."""
    draw, talks, rows = np.random.default_rng(1), {}, {}
    for number in range(90):
        loud = draw.integers(0, 2, 3)
        labels = [None, *loud[:2].tolist()]
        talks[f"t{number:02}"] = [(SPEAKERS[place], "so", labels[place]) for place in range(3)]
        for place in range(3):
            own = np.stack([np.full(4, loud[place] - 0.5), draw.normal(size=4)], 1)
            rows[f"t{number:02}-{9 - place}"] = own[: 2 + number % 3]
    names = list(talks)
    splits = {"train": names[:60], "validation": names[60:75], "test": names[75:]}
    corpus = write_talks(tmp_path / "talks", talks, splits, rows={"speech": rows})
    asked = {"modalities": {"train": ["la"], "evaluate": ["la"]}, "baselines": False}
    asked["context"] = {"utterances": 1, "tokens": 40, "speech": 12}
    plan = make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus, **asked)), []))
    assert told_of_context(plan.recipe.context).endswith("asked after it, 12 of speech")
    assert "0 texts, 0 speech of the corpus have less for that" in plan.describe()
    fine_tune(plan, tmp_path / "run", Console(quiet=True))
    (said,) = [found for *_, part, _, found in answers(plan, tmp_path / "run") if part == "test"]
    assert (said.known.named == said.known.truth).mean() > 0.9
    mute = write_talks(tmp_path / "mute", talks, splits)
    (tested, *_, read_in, lacks, skipped, alone, nobody), _, found, *_ = evaluated_on(tmp_path / "run", holed(mute))
    assert "split test, 45 samples" in tested and read_in.startswith("read in dialogues: up to 1 earlier")
    assert lacks == "corpus talks has no speech rows to read"
    assert skipped.startswith("positions skip 1,584 numbers in 88 dialogues: ")
    assert alone == "6 samples of the corpus are in no dialogue and read alone"
    assert nobody == "6 samples of dialogues have no speaker, who has no number"
    assert {row["condition"] for row in found["rows"]} == {"l"}
    model = open_emotion_model(tmp_path / "run")
    assert model.context.rows == {"speech": 12}
    split = as_read(model, Corpus.open(corpus).split("test"))
    whole, *alone = (keep(split.pack(chosen), "la") for chosen in (range(9), *([n] for n in range(9))))
    torch.testing.assert_close(model.probabilities(whole), torch.cat([model.probabilities(one) for one in alone]))


def evaluated_on(run, corpus):
    """Lines that stand before the table, and what else an evaluation has."""
    found, folder = of_corpus(run, corpus, "test", None, (), None, "cpu")
    return found.about, folder, found.results


def holed(corpus):
    """Two dialogues are none, and of three no speaker is known."""
    opened = Corpus.open(corpus)
    for name, lacking in (("dialogue", ("t00", "t01")), ("speaker", ("t00", "t02", "t05"))):
        write_groups(corpus, name, {id: own for id, own in read_groups(opened, name).items() if id[:3] not in lacking})
    return corpus


def test_a_sweep_leaves_context_out_and_adds_a_loss(corpus, tmp_path):
    """Variants of whole sections, kept and opened again as the same."""
    near = {"losses": {"near": {"kind": "spcl", "weight": 0.5}}}
    variants = [{}, {"context": None}, {"context": {"utterances": 0}}, near]
    file = {"recipe": str(recipe_file(tmp_path, corpus)), "set": {"train.epochs": 1}, "variants": variants}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(file))
    sweep = read_sweep(tmp_path / "grid.yaml")
    found = [setting.recipe for setting in sweep.settings]
    assert [one.context and one.context.utterances for one in found] == [1, None, 0, 1]
    assert [one.losses["near"].weight if one.losses else None for one in found] == [None, None, None, 0.5]
    assert [context_of(setting.plan.corpus) for setting in sweep.settings] == [one.context for one in found]
    assert sweep.describe().count("read in dialogues: up to 1 earlier") == 1
    write_sweep(tmp_path, sweep)
    again = read_sweep(tmp_path / SWEEP)
    assert [setting.recipe.plain() for setting in again.settings] == [one.plain() for one in found]


def test_a_model_from_one_with_context_forgets_it(ran, corpus, tmp_path):
    plain = read(str(recipe_file(tmp_path, corpus, context=None, model={"init": str(ran[1]), "head": "emocls"})), [])
    plan = make_fine_tuning_plan(plain)
    assert start_model(plan.recipe, plan.target, plan.folds[0].train).context is None


@pytest.mark.parametrize("context", [None, Context(utterances=3, tokens=50)], ids=["none", "other"])
def test_a_teacher_reads_its_own_context(ran, corpus, context):
    """Whatever that of the model it teaches; and one without context none."""
    split, teacher = Corpus.open(corpus).split("train"), TeacherSection(path=str(ran[1]), condition="l")
    model = open_emotion_model(ran[1])
    with torch.no_grad():
        wanted = model(keep(as_read(model, split).pack(range(9)), "l"))
    if context is not None:
        split = as_read(SimpleNamespace(context=context, streams={}), split, ran[1])
    said = taught([teacher], [split], model.classes, False, torch.device("cpu"))
    torch.testing.assert_close(said.of(torch.from_numpy(split.keys[:9]))[0], wanted, rtol=1e-4, atol=1e-5)
    plain = as_read(SimpleNamespace(context=None, streams={}), split)
    assert plain.lengths[:, 0].max() < as_read(model, split).lengths[:, 0].max()


def test_a_teacher_of_other_word_pieces_is_refused(ran, corpus, tmp_path):
    other = shutil.copytree(ran[1], tmp_path / "other")
    for folder in (other, other / "model"):
        if (words := folder / "vocab.txt").is_file():
            pieces = words.read_text().split("\n")
            words.write_text("\n".join([*pieces[:-3], pieces[-2], pieces[-3], pieces[-1]]))
    losses = {"taught": {"kind": "dist", "teachers": [{"path": str(other)}]}}
    with pytest.raises(MemofastError, match=r"losses\.taught: teacher: .* has other word pieces than corpus"):
        make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus, losses=losses)), []))
    done = here(tmp_path, "evaluate", other, "--corpus", corpus)
    assert done.returncode == 2 and "has other word pieces than corpus" in done.stderr and done.stderr.count("\n") == 1


def test_a_teacher_that_has_seen_what_is_tested_is_told_of(ran, corpus, tmp_path):
    losses = {"taught": {"kind": "dist", "teachers": [{"path": str(ran[1])}]}}
    turned = {"folds": {"train": "test", "validation": "train", "test": "validation"}}
    learnt, chosen = (len(Corpus.open(corpus).split(name)) for name in ("train", "validation"))
    recipe = recipe_file(tmp_path, corpus, losses=losses, baselines=False, **turned)
    done = here(tmp_path, "finetune", recipe, "train.epochs=1")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    evaluated = here(tmp_path, "evaluate", run)
    seen = f"{learnt} of the {learnt} samples of validation (fold fixed) were in its training part; numbers on"
    chose = f"{chosen} of the {chosen} samples of test (fold fixed) chose its checkpoint; numbers on test are too good"
    for text in (done.stdout, evaluated.stdout, (run / "results.md").read_text()):
        assert all(line in " ".join(text.split()) for line in (seen, chose)), text
    assert not make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus, losses=losses)), [])).leaks
    moved = shutil.copytree(corpus, tmp_path / "renamed")
    names = json.loads((moved / "corpus.json").read_text())
    (moved / "corpus.json").write_text(json.dumps(names | {"name": "renamed"}))
    leaks = make_fine_tuning_plan(read(str(recipe_file(tmp_path, moved, losses=losses, **turned)), [])).leaks
    assert len(leaks) == 2 and all("have the names and words of samples of" in line for line in leaks), leaks
    recipe_file(tmp_path, corpus, baselines=False, **turned)
    own = make_fine_tuning_plan(read(str(recipe), [f"model.init={ran[1]}"])).leaks
    assert [line.partition(":")[0] for line in own] == [f"model.init {ran[1]}/model"] * 2
    (gone := shutil.copytree(ran[1], tmp_path / "alone") / "config.yaml").unlink()
    lone = make_fine_tuning_plan(
        read(str(recipe), [f"losses.x={{kind: dist, teachers: [{{path: {gone.parent}}}]}}"])
    ).leaks
    assert [line.partition("teacher ")[2] for line in lone] == [
        f"{gone.parent}: what it learnt from is not known, samples tested here may be among it"
    ]


def test_an_interrupted_run_goes_on_to_the_same_answers(corpus, tmp_path, monkeypatch):
    plan = make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus)), ["train.epochs=4"]))
    updates = iter(range(9))

    def interrupted(self, update, real=Trainer.update):
        if next(updates, None) is None:
            raise KeyboardInterrupt
        return real(self, update)

    fine_tune(plan, tmp_path / "whole", Console(quiet=True))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(plan, tmp_path / "cut", Console(quiet=True))
    fine_tune(plan, tmp_path / "cut", Console(quiet=True))
    for one, other in zip(answers(plan, tmp_path / "cut"), answers(plan, tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one[-1].scores, other[-1].scores)


def test_mistakes_are_one_line(corpus, tmp_path):
    bare = write_talks(tmp_path / "bare", two_talks(), {"train": ["d1"], "validation": ["d10"]}, groups=False)
    done = here(tmp_path, "finetune", recipe_file(tmp_path, bare))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no groups 'dialogue'" in done.stderr
    assert not (tmp_path / "runs").exists()

    def refused(*overrides, **sections):
        with pytest.raises(MemofastError) as error:
            make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus, **sections)), list(overrides)))
        return str(error.value)

    assert "65 is more than the 64 rows of text that the model reads; set context.tokens=64" in refused(
        "context.tokens=65"
    )
    assert "context is read by model.family memobert and towers, not by sequence" in refused(
        model={"family": "sequence"}
    )
    assert "context.visual 600 is more than the 512 rows of visual that the model reads" in refused(
        "context.visual=600", "modalities.train=[lv]", "modalities.evaluate=[lv]"
    )
    assert "context.visual: no condition of modalities shows visual" in refused("context.visual=60")
    assert "has no speech rows, which context.speech reads" in refused("context.speech=60")
    assert "towers reads the words of other utterances alone; leave context.visual out" in refused(
        "context.visual=60", model={"family": "towers", "text": {"init": "somewhere"}}
    )
    assert "set context.query=null" in refused("prompt={}", "model.init=somewhere")
    own = {"query": None, "pool": "words", "tokens": 40}
    assert "set context.pool=row" in refused("prompt={}", "model.init=somewhere", context=own)
    assert "mask_token_id" in refused("model.mask_token_id=1")
    (corpus / "vocab.txt").rename(tmp_path / "vocab.txt")
    try:
        assert "carries no vocabulary" in refused()
    finally:
        (tmp_path / "vocab.txt").rename(corpus / "vocab.txt")


def test_a_prompt_asks_beside_context(corpus, tmp_path):
    start = small_config(vocab_size=200, visual_width=4, speech_width=0)
    MemoBertForPreTraining(start).save_pretrained(tmp_path / "start")
    own = {"template": [PIECES.index("feels"), PROMPT_MASK], "words": {"calm": 12, "glad": 13}}
    sections = {"model": {"init": str(tmp_path / "start")}, "prompt": own, "context": {"query": None, "tokens": 40}}
    plan = make_fine_tuning_plan(read(str(recipe_file(tmp_path, corpus, **sections)), []))
    model, split = start_model(plan.recipe, plan.target, plan.folds[0].train), plan.folds[0].test
    assert model.context == Context(query=None, tokens=40)
    prompted, _ = model.prompt.applied(split.pack([2]))
    text = " ".join("[MASK]" if piece == PROMPT_MASK else PIECES[piece] for piece in prompted.token_ids[:-1])
    assert text == "[CLS] feels [MASK] speaker 1 : bad speaker 2 : bad [SEP] speaker 3 : bad"
    batches = [keep(split.pack(chosen), "l") for chosen in (range(6), *([n] for n in range(6)))]
    whole, *alone = (model.eval().probabilities(batch) for batch in batches)
    torch.testing.assert_close(whole, torch.cat(alone))


def test_context_is_searched(corpus, tmp_path):
    recipe = read(str(recipe_file(tmp_path, corpus)), ["search={context.utterances: [0, 2]}", "folds.by=dialogue"])
    tried = make_fine_tuning_plan(recipe).candidates
    assert [plan.recipe.context.utterances for plan in tried] == [0, 2]
    lengths = [plan.folds[0].train.lengths[:, 0].sum() for plan in tried]
    assert lengths[0] < lengths[1]
    told = make_fine_tuning_plan(recipe).describe()
    assert "up to 0 earlier utterances" in told and "up to 2 earlier utterances" in told


@pytest.mark.parametrize("chosen", [{"one": 2, "two": 0}, {"one": 2, "two": 2}])
def test_a_table_tells_the_context_that_every_fold_chose(corpus, tmp_path, monkeypatch, chosen):
    recipe = read(str(recipe_file(tmp_path, corpus)), ["search={context.utterances: [0, 2]}", "inner_folds=3"])
    choices = {
        fold: SimpleNamespace(fold=fold, settings={"context.utterances": number}) for fold, number in chosen.items()
    }
    monkeypatch.setattr(how_chosen, "read_choice", lambda run, fold: choices[fold])
    monkeypatch.setattr(how_chosen, "_search", lambda choices: {})
    told = how_chosen.how_chosen(recipe, tmp_path, list(chosen))["context"]
    lines = {n: f"read in dialogues: up to {n} earlier utterances, 40 rows, asked after it" for n in (0, 2)}
    each = {"fold one " + lines[2], "fold two " + lines[0]} if chosen["two"] == 0 else {lines[2]}
    assert set(told.split("; ")[:-1]) == each


def test_dialogues_in_two_parts_are_told(corpus, tmp_path):
    recipe = str(recipe_file(tmp_path, corpus))
    told = make_fine_tuning_plan(read(recipe, ["folds.validation=null"])).describe()
    assert " lies in train and validation of fold fixed" in told and "folds.by=dialogue keeps dialogues whole" in told
    assert (
        "lies in" not in make_fine_tuning_plan(read(recipe, ["folds.validation=null", "folds.by=dialogue"])).describe()
    )


def test_what_reads_texts_alone_says_so(ran, tmp_path):
    with pytest.raises(MemofastError, match="hidden states are of texts alone"):
        open_encoder(ran[1])
    with pytest.raises(MemofastError, match="only one of texts alone can be exported"):
        export_model(ran[1], tmp_path / "model.pt2")
