"""What fixed encoders make is computed once, and is the same however it is computed."""

import os
import signal

import numpy as np
import pytest
import torch
import yaml
from runs import here
from seen_talks import small_encoders, tower_recipe, write_seen_talks

from memofast.data.conditions import keep
from memofast.data.view import View
from memofast.errors import MemofastError
from memofast.model.families import open_emotion_model
from memofast.model.towers import kept_features
from memofast.model.towers.kept_features import fingerprint
from memofast.store.feature_cache import FeatureCache
from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
from memofast.train.fine_tuning_recipe import read

NAMES = ("text", "visual", "speech")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    write_seen_talks(folder / "corpus")
    encoders = small_encoders(folder)
    return folder, {name: encoders[name] | {"train": "frozen"} for name in NAMES}


def begun(place, *overrides, towers=None, **sections):
    folder, every = place
    recipe = tower_recipe(folder / "recipe.yaml", folder / "corpus", towers or every, **sections)
    plan = make_fine_tuning_plan(read(str(recipe), list(overrides)))
    torch.manual_seed(1)
    return plan, start_model(plan.recipe, plan.target, plan.folds[0].train)


def features(model, batch):
    """What each tower makes of the samples that have its modality, before the common width."""
    found, view = {}, View.of(batch)
    for name, tower in model.towers.items():
        if not len(there := tower.there(view).nonzero().flatten()):
            continue
        with torch.no_grad():
            found[name] = tower.kept.pooled(tower, view, there) if tower.kept else tower.pooled(view, there)
    return found


def test_a_number_depends_on_no_batch_order_mode_or_type(place, tmp_path):
    plan, model = begun(place, f"model.cache.path={tmp_path / 'c'}")
    _, plain = begun(place)
    split = plan.folds[0].train
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        first = features(model, split.pack(range(0, 20, 2)))
    assert all(tower.kept.made > 0 for tower in model.towers.values())
    again = features(model.eval(), split.pack(range(0, 20, 2)))
    for name, wanted in features(plain.eval(), split.pack(range(0, 20, 2))).items():
        assert torch.equal(first[name], again[name]) and first[name].dtype == torch.float32
        torch.testing.assert_close(first[name], wanted, rtol=1e-5, atol=1e-6)
    alone = [features(model, split.pack([number])) for number in range(0, 20, 2)]
    for name in NAMES:
        assert torch.equal(torch.cat([own[name] for own in alone if name in own]), first[name])


def test_only_what_is_lacking_is_made(place, tmp_path, monkeypatch):
    plan, model = begun(place, f"model.cache.path={tmp_path / 'c'}")
    split = plan.folds[0].train
    features(model, keep(split.pack(range(6)), "lv"))  # no sound
    before = {name: tower.kept.made for name, tower in model.towers.items()}
    features(model, split.pack(range(9)))
    made = {name: tower.kept.made - before[name] for name, tower in model.towers.items()}
    lengths = split.lengths
    assert made["visual"] == (lengths[6:9, 1] > 0).sum() and made["speech"] == (lengths[:9, 2] > 0).sum()
    assert made["text"] <= 3  # the same words said again are the same text
    with monkeypatch.context() as patch:
        patch.setattr(kept_features.KeptFeatures, "_made", None)
        features(model, split.pack(range(9)))


def test_what_says_which_vector_it_is(place, tmp_path):
    _, model = begun(place, f"model.cache.path={tmp_path / 'c'}")
    tower = model.towers["visual"]
    own = fingerprint(tower, "float32")
    assert own == fingerprint(tower, "float32") != fingerprint(tower, "float16")
    tower.entry = tower.entry | {"frames": tower.entry["frames"] + 1}
    assert fingerprint(tower, "float32") != own
    tower.entry = tower.entry | {"frames": tower.entry["frames"] - 1, "train": "full"}
    assert fingerprint(tower, "float32") == own
    with torch.no_grad():
        next(iter(tower.encoder.parameters())).view(-1)[3] += 1e-3
    assert fingerprint(tower, "float32") != own
    text = model.towers["text"]
    before = fingerprint(text, "float32")
    text.of_words = True
    assert fingerprint(text, "float32") != before


def test_half_precision_is_what_is_trained_with_from_the_first_epoch(place, tmp_path):
    plan, model = begun(place, f"model.cache={{path: {tmp_path / 'c'}, dtype: float16}}")
    batch = plan.folds[0].train.pack(range(8))
    made = features(model, batch)
    for values in made.values():
        assert torch.equal(values, values.half().float())
    assert all(torch.equal(made[name], values) for name, values in features(model, batch).items())
    model.eval().save_pretrained(tmp_path / "saved")
    opened, view = open_emotion_model(tmp_path / "saved"), View.of(batch)
    with torch.no_grad():
        found = [[tower(view, None)[0] for tower in one.towers.values()] for one in (model, opened)]
    for kept, without in zip(*found, strict=True):
        apart = (kept - without).abs()  # where a rounding falls the other way, 2^-11 of a number
        assert (apart > 1e-6).float().mean() < 0.05 and apart.max() < 1e-3


def test_runs_fill_it_and_end_the_same(place, tmp_path):
    """A training that fills the cache, one that finds all in it, and the commands that look after it."""
    folder, every = place
    options = {"train": {"epochs": 2, "samples": 8, "seeds": [1, 2], "device": "cpu", "precision": "fp32"}}
    tower_recipe(tmp_path / "recipe.yaml", folder / "corpus", every, **options)
    values = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    values["model"]["cache"] = {"path": str(tmp_path / "c")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    scores = []
    for _ in range(2):
        done = here(tmp_path, "finetune", "recipe.yaml")
        assert done.returncode == 0, done.stderr
        run = max((tmp_path / "runs").glob("recipe-*"), key=lambda path: path.stat().st_mtime_ns)
        (condition,) = {path.name for path in run.glob("fixed/seed-2/answers/test-lva.npz")}
        scores.append(np.load(run / "fixed" / "seed-2" / "answers" / condition)["scores"])
    np.testing.assert_array_equal(*scores)
    done = here(tmp_path, "cache", "fill", "recipe.yaml")
    assert done.returncode == 0 and done.stdout.startswith("0 vectors made"), done.stderr


def test_what_was_made_before_ctrl_c_is_kept(place, tmp_path, monkeypatch):
    folder, every = place
    tower_recipe(tmp_path / "recipe.yaml", folder / "corpus", every)
    line, makes, made = ("cache", "fill", "recipe.yaml", "model.cache.path=c"), kept_features.KeptFeatures._made, []

    def interrupted(self, tower, view, sample):
        made.append(tower.modality)
        if len(made) == 40:
            os.kill(os.getpid(), signal.SIGINT)
        return makes(self, tower, view, sample)

    with monkeypatch.context() as patch:
        patch.setattr(kept_features.KeptFeatures, "_made", interrupted)
        done = here(tmp_path, *line)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "memofast cache: interrupted\n")
    cache = FeatureCache(tmp_path / "c", writes=False)
    kept = len(cache)
    cache.close()
    assert 0 < kept < len(made) == 40
    done = here(tmp_path, *line)
    assert done.returncode == 0
    whole = FeatureCache(tmp_path / "c", writes=False)
    assert int(done.stdout.split()[0].replace(",", "")) == len(whole) - kept
    whole.close()


def test_mistakes_are_one_line(place, tmp_path):
    folder, every = place
    trained = {name: every[name] | {"train": "full"} for name in NAMES}
    with pytest.raises(MemofastError, match="cache keeps what frozen encoders make"):
        begun(place, f"model.cache.path={tmp_path / 'c'}", towers=trained)
    tower_recipe(tmp_path / "recipe.yaml", folder / "corpus", every)
    done = here(tmp_path, "cache", "fill", "recipe.yaml")
    assert done.returncode == 2 and "there is no cache to fill" in done.stderr
    done = here(tmp_path, "cache", "stat", "nowhere")
    assert done.returncode == 2 and "no cache of features" in done.stderr
    done = here(tmp_path, "cache", "prune", "nowhere", "--to", "much")
    assert done.returncode == 2 and "no size" in done.stderr
    done = here(tmp_path, "cache", "prune", "nowhere", "--to", "2M")
    assert done.returncode == 2 and "no cache of features" in done.stderr and not (tmp_path / "nowhere").exists()


def test_a_cache_is_counted_verified_and_pruned(tmp_path):
    cache = FeatureCache(tmp_path / "c")
    made = {bytes([number] * 48): np.full(50, number, np.float32) for number in range(1, 41)}
    cache.add(made)
    with cache._env.begin(write=True) as transaction:
        transaction.put(bytes([7] * 48), b"broken")
    cache.close()
    done = here(tmp_path, "cache", "stat", "c")
    assert len(done.stdout.splitlines()) == 40 and f"encoder {'09' * 16}: 1 vectors, 200 bytes" in done.stdout
    done = here(tmp_path, "cache", "verify", "c")
    assert done.returncode == 2 and "1 of 40 vectors are damaged" in done.stderr
    done = here(tmp_path, "cache", "verify", "c", "--remove")
    assert done.stdout == "removed 1 damaged vectors\n39 vectors are whole\n", done.stderr
    done = here(tmp_path, "cache", "prune", "c", "--to", "2k")
    assert done.stdout == "removed 29 vectors\n" and here(tmp_path, "cache", "verify", "c").returncode == 0
