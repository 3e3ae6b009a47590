"""MELD as it is distributed, films and tables, to a conversation model's table and to what it says of a film, in three
commands."""

import json

import numpy as np
import pytest
from films import Picture, Tone, write_film
from media import write_clip
from readme_sources import SUBTITLES, meld_with_films
from runs import here
from text_emotion import GIVEN_AWAY
from tiny_models import save_roberta, save_speech_model, save_video_model
from torch import nn

from memofast.data import Corpus
from memofast.errors import MemofastError
from memofast.model.families import open_emotion_model
from memofast.train.fine_tuning_plan import make_fine_tuning_plan
from memofast.train.fine_tuning_recipe import read
from memofast.train.optimisation import parameter_groups


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where MELD lies, and the corpus and the run that two commands make of it."""
    folder = tmp_path_factory.mktemp("meld")
    meld_with_films(folder / "MELD.Raw", write_clip(folder / "clip.mp4", 0.5, rate=6, size=(64, 48)))
    said = [*GIVEN_AWAY.values(), "speaker 1 2 3 : feels i did not expect that"]
    text = save_roberta(folder / "ROBERTA", said, max_position_embeddings=258)
    sound, pictures = save_speech_model(folder / "SOUND", "data2vec"), save_video_model(folder / "PICTURES", "videomae")
    asked = ["--corpus", "meld", "--out", "c", "--vocab", text, "--face", "frames,side=32", "--speech", "raw"]
    inits = [f"model.text.init={text}", f"model.speech.init={sound}", f"model.visual.init={pictures}"]
    small = ["train.epochs=1", "train.samples=7", "train.accumulate=1", "model.width=8", "train.device=cpu"]
    done = here(folder, "prepare", "MELD.Raw", *asked, "--workers", "1")
    assert done.returncode == 0, done.stderr
    done = here(folder, "finetune", "meld-towers", "corpus=c", *inits, *small)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return folder, run, done.stdout


def test_the_table(place):
    _, run, said = place
    results = json.loads((run / "results.json").read_text())
    assert len(results["rows"]) and (run / "results.md").is_file()
    assert "pictures are scaled from 32 to 16 pixels (bilinear); prepare --face frames,side=16" in said
    assert "read in dialogues: up to 8 earlier utterances, 256 rows, asked after it" in said
    assert "SPCL and TelME" in (run / "results.md").read_text()
    assert (run / "model" / "tokenizer.json").is_file()


def test_its_words_are_those_of_the_encoder(place):
    folder, run, _ = place
    corpus = Corpus.open(folder / "c")
    assert set(corpus.modalities) == {"text", "visual", "speech"} and corpus.raw == {"visual", "speech"}
    model = open_emotion_model(run)
    assert len(model.classes) == 7 and model.context.utterances == 8
    assert model.reads["text"] > np.max([corpus.split(name).words.pack([0]).token_ids.max() for name in corpus.splits])


def test_films_are_predicted_in_their_dialogue(place, tmp_path):
    film = write_film(tmp_path / "film.mkv", Picture(4.0, rate=5), Tone(seconds=4.0))
    film.with_suffix(".srt").write_text(SUBTITLES)
    done = here(tmp_path, "predict", film, "--model", place[1], "--out", "p", "--html")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "p" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(row["modalities"] == ["text", "visual", "speech"] for row in rows)
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)
    assert all(set(row["importance"]) == {"text", "visual", "speech"} for row in rows)


def test_a_plan_names_the_rows_that_are_read_alone(place):
    folder, _, _ = place
    asked = [f"corpus={folder / 'c'}", "model.width=8", f"model.text.init={folder / 'ROBERTA'}"]
    for inits, rows in (([], []), ([f"model.speech.init={folder / 'SOUND'}"], ["speech"])):
        told = make_fine_tuning_plan(read("meld-towers", [*asked, *inits])).describe()
        assert [name for name in ("visual", "speech") if f"{name} rows: " in told] == rows


def test_with_every_tower_frozen_its_group_of_encoders_is_told_to_do_nothing(place):
    folder, _, _ = place
    frozen = [f"model.{name}.train=frozen" for name in ("text", "visual", "speech")]
    inits = [f"model.text.init={folder / 'ROBERTA'}", f"model.visual.init={folder / 'PICTURES'}"]
    inits += [f"model.speech.init={folder / 'SOUND'}"]
    plan = make_fine_tuning_plan(read("meld-towers", [f"corpus={folder / 'c'}", "model.width=8", *inits, *frozen]))
    assert "train.groups.*.encoder.*: none of its parameters is trained" in plan.describe()


def test_the_recipe_trains_encoders_a_hundred_times_slower(place):
    with pytest.raises(MemofastError, match=r"reads no modality; give text\.init, visual\.init or speech\.init"):
        read("meld-towers", ["corpus=c"])
    recipe = read("meld-towers", ["corpus=c", "model.speech.init=sound"])
    assert set(recipe.model.towers) == {"speech"} and recipe.train.lr == 1e-3
    learner = nn.ModuleDict({"model": open_emotion_model(place[1])})
    factors = {id(p): group["factor"] for group in parameter_groups(learner, recipe.train) for p in group["params"]}
    for name, parameter in learner.named_parameters():
        assert factors[id(parameter)] == (0.01 if ".encoder." in name else 1.0), name
