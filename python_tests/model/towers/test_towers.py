"""Towers over small encoders: what each reads is what transformers makes of the sample alone; drawing, freezing,
saving."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from seen_talks import small_encoders, tower_recipe, write_seen_talks
from tiny_models import save_speech_model, save_video_model
from transformers import AutoConfig, AutoModel, VideoMAEImageProcessorPil, Wav2Vec2FeatureExtractor

from memofast.data.conditions import CONDITIONS, keep
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.model.families import open_emotion_model
from memofast.model.towers.inputs import pictures_of, receptive_field, rows_of_sound
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.fine_tuning_recipe import read

MASK, LOUD, BRIGHT = 4, 32768.0, 255


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers")
    write_seen_talks(folder / "corpus")
    return folder, small_encoders(folder)


def planned(place, towers=None, corpus=None, overrides=(), **sections):
    folder, every = place
    recipe = tower_recipe(folder / "recipe.yaml", corpus or folder / "corpus", towers or every, **sections)
    plan = make_fine_tuning_plan(read(str(recipe), list(overrides)))
    torch.manual_seed(1)
    return plan, start_model(plan.recipe, plan.target, plan.folds[0].train).eval()


def one_tower(place, name, **changes):
    return {name: place[1][name] | changes}


def having(split, column):
    return np.flatnonzero(split.lengths[:, column] > (column == 0))


def by_itself(name, model, row):
    tower = model.towers[name]
    return tower.project(row)


def test_text_is_read_where_it_is_asked(place):
    plan, model = planned(place, one_tower(place, "text"))
    split = plan.folds[0].train
    bert = AutoModel.from_pretrained(place[1]["text"]["init"]).eval()
    for number in having(split, 0)[:6]:
        batch = split.pack([number])
        ids = batch.token_ids.to(torch.int64)[None]
        (asked,) = (ids[0] == MASK).nonzero().flatten().tolist()
        hidden = bert(input_ids=ids).last_hidden_state
        expected = by_itself("text", model, hidden[:, asked])
        torch.testing.assert_close(model.represented(keep(batch, "l")), expected)
        assert asked == len(ids[0]) - 2 and not torch.allclose(hidden[:, 0], hidden[:, asked])
    _, alone = planned(place, one_tower(place, "text"), context=None)
    batch = keep(split.pack([0]), "l")
    first = bert(input_ids=batch.token_ids.to(torch.int64)[None]).last_hidden_state[:, 0]
    torch.testing.assert_close(alone.represented(batch), by_itself("text", alone, first))


def test_text_is_the_mean_of_an_utterances_own_words(place):
    plan, model = planned(place, one_tower(place, "text"), context={"utterances": 2, "tokens": 40, "pool": "words"})
    split = plan.folds[0].train
    bert = AutoModel.from_pretrained(place[1]["text"]["init"]).eval()
    found = model.represented(keep(split.pack(range(8)), "l"))
    for number in having(split, 0)[:6]:
        batch = split.pack([number])
        hidden = bert(input_ids=batch.token_ids.to(torch.int64)[None]).last_hidden_state[0]
        if own := (batch.word_ids >= 0).nonzero().flatten().tolist():
            expected = by_itself("text", model, hidden[own].mean(0, keepdim=True))
            torch.testing.assert_close(found[number : number + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "first"])
@pytest.mark.parametrize(
    ("kind", "norm", "normalise"),
    [("data2vec", "layer", True), ("wav2vec2", "group", False), ("wavlm", "layer", True), ("hubert", "group", True)],
)
def test_sound_is_what_its_clip_alone_gives(place, tmp_path, kind, norm, normalise, pool):
    changes = {"feat_extract_norm": norm} if kind != "data2vec" else {}
    folder = save_speech_model(tmp_path / kind, kind, normalise, **changes)
    plan, model = planned(place, {"speech": {"init": str(folder), "pool": pool}})
    split, encoder = plan.folds[0].train, AutoModel.from_pretrained(folder).eval()
    heard = Wav2Vec2FeatureExtractor(do_normalize=normalise)
    found = model.represented(split.pack(range(len(split))))
    rows = split.lengths[:, 2]
    assert len({*rows[rows > 0]}) > 3
    for number in having(split, 2):
        sound = split.pack([number]).speech.reshape(-1).numpy() / LOUD
        values = heard(sound.astype(np.float32), sampling_rate=16_000, return_tensors="pt").input_values
        values = torch.nn.functional.pad(values, (0, max(0, 400 - values.shape[1])))  # what a row sees
        hidden = encoder(values).last_hidden_state
        row = hidden.mean(1) if pool == "mean" else hidden[:, 0]
        torch.testing.assert_close(found[number : number + 1], by_itself("speech", model, row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "pool", "row"), [("videomae", None, "mean"), ("timesformer", None, "first")])
@pytest.mark.parametrize("side", [16, 21])
def test_pictures_are_what_the_processor_makes_of_them(place, tmp_path, kind, pool, row, side):
    corpus = write_seen_talks(tmp_path / "corpus", side=side)
    folder = save_video_model(tmp_path / kind, kind)
    plan, model = planned(place, {"visual": {"init": str(folder), "pool": pool}}, corpus)
    split, encoder = plan.folds[0].train, AutoModel.from_pretrained(folder).eval()
    processor = VideoMAEImageProcessorPil.from_pretrained(folder)
    found, scaled = model.represented(split.pack(range(len(split)))), "\n".join(plan.notes)
    assert ("scaled from 21 to 16 pixels (bilinear)" in scaled) == (side == 21)
    for number in having(split, 1):
        pictures = split.pack([number]).visual[:, : 3 * side * side].numpy().reshape(-1, side, side, 3)
        n = len(pictures)
        chosen = [pictures[(2 * part + 1) * n // 8] for part in range(4)]
        hidden = encoder(processor(chosen, return_tensors="pt").pixel_values).last_hidden_state
        expected = by_itself("visual", model, hidden.mean(1) if row == "mean" else hidden[:, 0])
        near = {"rtol": 1e-4, "atol": 1e-5} if side == 16 else {"rtol": 0.02, "atol": 0.02}  # Pillow's own rounding
        torch.testing.assert_close(found[number : number + 1], expected, **near)


def test_grey_pictures_become_grey_ones_in_colour(place, tmp_path):
    corpus = write_seen_talks(tmp_path / "corpus", channels=1)
    plan, model = planned(place, one_tower(place, "visual"), corpus)
    assert "pictures are grey and shown to the encoder as grey ones in colour" in plan.notes
    batch = plan.folds[0].train.pack([0])
    seen = model.towers["visual"]._seen(batch.visual[:1, :256][None])
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.5, 0.5, 0.5])
    expected = (batch.visual[0, :256].float() / BRIGHT)[None] - mean[:, None]
    torch.testing.assert_close(seen[0, 0].flatten(1), expected / std[:, None])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_batch_is_its_samples(place, condition):
    plan, model = planned(place)
    split = plan.folds[0].train
    whole = model(keep(split.pack(range(len(split))), condition))
    alone = torch.cat([model(keep(split.pack([number]), condition)) for number in range(len(split))])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # in parts of a few clips
        torch.testing.assert_close(model(keep(split.pack(range(len(split))), condition)), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fusion",
    [
        {"kind": "concat"}, {"kind": "modality_shifting"}, {"kind": "adaptation_gate"}, {"kind": "low_rank"},
        {"kind": "self_attention"}, {"kind": "text_guided_experts"}, {"kind": "disentangled"},
    ],
    ids=lambda fusion: fusion["kind"],
)  # fmt: skip
def test_vectors_are_joined_by_any_fusion(place, tmp_path, fusion):
    plan, model = planned(place, place[1] | {"fusion": fusion})
    split = plan.folds[0].train
    whole = model(split.pack(range(6)))
    alone = torch.cat([model(split.pack([number])) for number in range(6)])
    torch.testing.assert_close(whole, alone, rtol=1e-4, atol=1e-5)
    assert model.represents == model.fusion.width == model.represented(split.pack([0])).shape[1]
    model.save_pretrained(tmp_path)
    assert torch.equal(open_emotion_model(tmp_path)(split.pack(range(6))), whole)
    model.train()
    answers = model.answer(View(split.pack(range(6))), rng=torch.tensor([1, 2]), lesson=object())
    learning = fusion["kind"] in ("disentangled", "text_guided_experts")
    assert set(answers.losses) == set(model.losses) and bool(model.losses) == learning


def test_what_a_sample_lacks_is_a_learnt_vector(place):
    plan, model = planned(place)
    split = plan.folds[0].train
    batch = split.pack(range(len(split)))
    vectors = model.represented(batch).unflatten(1, (3, 8))
    for place_of, (name, least) in enumerate((("text", 2), ("visual", 1), ("speech", 1))):
        lacks = torch.from_numpy(split.lengths[:, place_of] < least)
        assert 0 < lacks.sum() < len(split)
        model.fusion.placeholders[name].data.fill_(3.0)
        again = model.represented(batch).unflatten(1, (3, 8))[:, place_of]
        assert torch.equal(again[lacks], torch.full_like(again[lacks], 3.0))
        assert torch.equal(again[~lacks], vectors[:, place_of][~lacks])
    model.represented(keep(batch, "l")).sum().backward()
    assert model.fusion.placeholders["speech"].grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.towers["speech"].encoder.parameters())


def test_hidden_rows_are_silent_and_black(place):
    plan, model = planned(place)
    batch = plan.folds[0].train.pack([0])
    for name in ("visual", "speech"):
        rows = batch.rows_of(name)
        hidden = View(batch, sources={name: torch.full((len(rows),), -1, dtype=torch.int32)})
        blank = batch.map(lambda values, rows=rows: torch.zeros_like(values) if values is rows else values)
        torch.testing.assert_close(model(hidden), model(blank))
    with pytest.raises(ValueError, match="order"):
        model(View(batch, positions={"text": torch.zeros(1, dtype=torch.int32)}))


def test_what_is_drawn_depends_on_seed_update_and_samples_alone(place):
    plan, model = planned(place)
    split = plan.folds[0].train
    model.train()
    with pytest.raises(ValueError, match="needs rng"):
        model(split.pack([0, 1]))

    def said(batch, update=3):
        torch.rand(int(torch.randint(9, ())))
        before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
        found = model.represented(batch, rng=torch.tensor([7, update]))
        assert torch.equal(torch.random.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        return found

    batch = split.pack([0, 4, 9, 14])
    assert torch.equal(said(batch), said(batch))
    assert not torch.equal(said(batch), said(batch, 4))
    twice = batch.map(lambda values: values)
    twice.sample_keys = batch.sample_keys + 1  # another micro-batch of the same update
    assert not torch.equal(said(twice), said(batch))


def test_spec_augment_is_asked_for_and_spares_short_clips(place, tmp_path):
    changes = {"mask_time_prob": 0.9, "mask_time_length": 2, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    changes |= {"activation_dropout": 0.0, "feat_proj_dropout": 0.0, "layerdrop": 0.0}
    folder = str(save_speech_model(tmp_path / "sound", "wav2vec2", **changes))
    asked = planned(place, {"speech": {"init": folder, "spec_augment": True}})
    plain = planned(place, {"speech": {"init": folder}})
    split, rng = plain[0].folds[0].train, torch.tensor([7, 3])
    rows = split.lengths[:, 2]
    short, long = ((np.flatnonzero((rows > 0) & own)) for own in (rows <= 2, rows >= 4))
    assert len(short) and len(long)
    for (_, model), hides in ((asked, True), (plain, False)):
        still = model.represented(split.pack(long)), model.represented(split.pack(short))
        model.train()
        moved = model.represented(split.pack(long), rng=rng), model.represented(split.pack(short), rng=rng)
        assert torch.equal(moved[1], still[1]) and torch.equal(moved[0], still[0]) != hides
        np.random.seed(len(long))  # which the masks are not drawn by
        assert torch.equal(moved[0], model.represented(split.pack(long), rng=rng))


def test_a_frozen_encoder_neither_learns_nor_drops(place):
    towers = {name: own | {"train": "frozen"} for name, own in place[1].items()}
    plan, model = planned(place, towers)
    batch, still = plan.folds[0].train.pack(range(6)), None
    still = model.represented(batch)
    model.train()
    assert model.training and model.towers.training and not any(own.encoder.training for own in model.towers.values())
    drawn = model.represented(batch, rng=torch.tensor([1, 2]))
    assert torch.equal(drawn, still)
    drawn.sum().backward()
    for name, weight in model.named_parameters():
        assert weight.requires_grad != (".encoder." in name) and (".encoder." not in name or weight.grad is None)
    _, full = planned(place)
    full.train()
    assert not torch.equal(full.represented(batch, rng=torch.tensor([1, 2])), still)


def test_saved_and_opened_without_the_encoders_folders(place, tmp_path):
    folder, towers = place
    moved = {name: {"init": shutil.copytree(own["init"], tmp_path / name)} for name, own in towers.items()}
    moved = {name: {"init": str(own["init"])} for name, own in moved.items()}
    plan, model = planned((tmp_path, moved), corpus=folder / "corpus")
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "model")
    for name in towers:
        shutil.rmtree(tmp_path / name)
    opened = open_emotion_model(tmp_path / "model")
    batch = plan.folds[0].train.pack(range(8))
    assert torch.equal(opened(batch), model(batch)) and not opened.training
    assert opened.context == plan.recipe.context and opened.classes == ("calm", "glad")
    assert set(opened.state_dict()) == set(model.state_dict())
    told = (tmp_path / "model" / "config.json").read_text()
    assert str(tmp_path) not in told
    config = json.loads(told)
    config["towers"]["speech"]["encoder"]["num_hidden_layers"] = 4
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MemofastError, match=r"weights lack towers\.speech\.encoder"):
        open_emotion_model(tmp_path / "model")
    config["towers"]["speech"] = {"train": "full"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MemofastError, match=r"config\.json.*towers\.speech"):
        open_emotion_model(tmp_path / "model")


def test_convolutions_see_and_make_as_many_as_they_do(tmp_path):
    kernels, strides = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
    assert receptive_field(kernels, strides) == 400
    encoder = AutoModel.from_pretrained(save_speech_model(tmp_path / "sound", "data2vec"))
    for samples in (400, 719, 720, 16_000, 12_345):
        expected = encoder._get_feat_extract_output_lengths(samples)
        assert rows_of_sound(samples, kernels, strides) == int(expected), samples


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stored": 770}, "keeps pictures of 770 numbers, no squares"),
        ({"size": {"height": 16, "width": 20}}, "makes pictures of 16 pixels out of None"),
        ({"resample": 0}, "resample"),
        ({"image_std": [1.0, 1.0]}, "image_std"),
        ({"num_channels": 4}, "sees 4 colours, not 3"),
    ],
    ids=str,
)
def test_pictures_of_a_wrong_kind(tmp_path, change, told):
    folder = save_video_model(tmp_path / "videomae", "videomae", change)
    config = AutoConfig.from_pretrained(folder)
    config.num_channels = change.get("num_channels", 3)
    stored = change.get("stored", 768)
    corpus = SimpleNamespace(path="c", stores={"visual": None}, raw={"visual"}, width=lambda name: stored)
    with pytest.raises(MemofastError, match=told):
        pictures_of(folder, config, corpus)


def test_the_middle_of_larger_pictures_is_seen(place, tmp_path):
    told = {"size": {"shortest_edge": 20}, "resample": 3, "image_std": None}
    folder = save_video_model(tmp_path / "videomae", "videomae", told)
    plan, model = planned(place, {"visual": {"init": str(folder)}}, write_seen_talks(tmp_path / "corpus", side=20))
    batch = plan.folds[0].train.pack([0])
    seen = model.towers["visual"]._seen(batch.visual[:1, :1200][None])
    picture = batch.visual[:1, :1200].numpy().reshape(1, 20, 20, 3)
    processor = VideoMAEImageProcessorPil.from_pretrained(folder, image_std=[0.5] * 3)
    expected = processor([picture[0]], return_tensors="pt").pixel_values
    torch.testing.assert_close(seen, expected)
    assert len(plan.notes) == 1 and model.config.towers["visual"]["resample"] == "bicubic"
