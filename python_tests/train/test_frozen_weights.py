"""Weights that do not learn, kept once beside the runs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from runs import environment, tiny_model
from safetensors.torch import load_file

from memofast import objectives
from memofast.errors import MemofastError, MemofastWarning
from memofast.files import read_json, sha256_of
from memofast.model.memobert.pre_training import MemoBertForPreTraining
from memofast.model.weights import read_weights
from memofast.objectives import Learner
from memofast.runs.cleaning import clean_weights
from memofast.runs.verification import changed_weights, faults
from memofast.train import fine_tuning_run, weights
from memofast.train.checkpoints import Checkpoints
from memofast.train.optimisation import adamw
from memofast.train.recipe import Train
from memofast.train.state import State
from memofast.train.weights import FrozenWeights, held_together, move_model, unused, weight_files


@pytest.fixture(autouse=True)
def small_files_are_worth_while(monkeypatch):
    monkeypatch.setattr(weights, "_LEAST", 1)


def half_frozen(seed=3):
    torch.manual_seed(seed)
    model = tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("encoder" not in name)
    return model


def names_of(model, frozen):
    return {name for name, one in model.named_parameters() if one.requires_grad != frozen}


def only_blob(runs):
    (found,) = (runs / "weights").iterdir()
    return found


@pytest.mark.parametrize("keeping", ["hard", "symbolic"])
def test_two_runs_and_all_checkpoints_share_a_file(tmp_path, keeping):
    model, kept = half_frozen(), []
    for run in ("one", "two"):
        frozen = FrozenWeights(tmp_path, keeping)
        for step in ("1", "2"):
            folder = tmp_path / run / step
            frozen.save(model, folder)
            kept.append(folder)
            last = {name: one.detach().clone() for name, one in model.named_parameters()}
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += parameter.requires_grad  # what learns is another every time
    blob = only_blob(tmp_path)
    assert blob.stem == sha256_of(blob) and set(load_file(blob)) == names_of(model, frozen=True)
    for folder in kept:
        learnt, shared = weight_files(folder, "restore it")
        assert os.path.samefile(shared, blob) and shared.is_symlink() == (keeping == "symbolic")
        assert set(load_file(learnt)) >= names_of(model, frozen=False)
        assert not set(load_file(learnt)) & names_of(model, frozen=True)
        assert not (folder / "model.safetensors").exists()
    opened = MemoBertForPreTraining.from_pretrained(kept[-1])
    for name, parameter in opened.named_parameters():
        assert torch.equal(parameter, last[name]), name
    index = read_json(kept[0] / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == sum(4 * one.numel() for one in model.state_dict().values())
    assert len(load_file(weight_files(kept[0], "restore it")[0])) < len(model.state_dict())


def test_files_are_for_whoever_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        FrozenWeights(tmp_path).save(half_frozen(), tmp_path / "a")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in weight_files(tmp_path / "a", "restore it")} == {0o640}


def test_other_weights_are_another_file(tmp_path):
    frozen = FrozenWeights(tmp_path)
    model = half_frozen()
    frozen.save(model, tmp_path / "a")
    with torch.no_grad():
        next(one for one in model.parameters() if not one.requires_grad).add_(1)
    frozen.save(model, tmp_path / "b")
    assert len(list((tmp_path / "weights").iterdir())) == 2
    first, second = (load_file(weight_files(tmp_path / name, "restore it")[1]) for name in "ab")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_what_learns_as_a_whole_or_is_small_stays_one_file(tmp_path, monkeypatch):
    FrozenWeights(tmp_path).save(tiny_model(), tmp_path / "a")
    FrozenWeights(tmp_path, "copy").save(half_frozen(), tmp_path / "b")
    monkeypatch.undo()
    FrozenWeights(tmp_path).save(half_frozen(), tmp_path / "c")
    assert all((tmp_path / name / "model.safetensors").is_file() for name in "abc")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("keeping", ["hard", "reflink"])
def test_a_disk_without_links_gets_copies_and_a_note(tmp_path, monkeypatch, keeping):
    def refused(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(weights.os, "link", refused)
    monkeypatch.setattr(weights.fcntl, "ioctl", refused)
    with pytest.warns(MemofastWarning, match=f"no {keeping} links .* are copied"):
        FrozenWeights(tmp_path, keeping).save(half_frozen(), tmp_path / "a")
    copy = weight_files(tmp_path / "a", "restore it")[1]
    assert not os.path.samefile(copy, only_blob(tmp_path)) and sha256_of(copy) == only_blob(tmp_path).stem


def test_a_broken_file_under_its_name_is_written_anew(tmp_path):
    FrozenWeights(tmp_path).save(half_frozen(), tmp_path / "a")
    blob = only_blob(tmp_path)
    shutil.rmtree(tmp_path / "a")
    blob.write_bytes(blob.read_bytes()[:-9] + bytes(9))
    assert [path for path, _ in changed_weights(tmp_path)] == [blob]
    FrozenWeights(tmp_path).save(half_frozen(), tmp_path / "a")
    assert only_blob(tmp_path) == blob and sha256_of(blob) == blob.stem and not list(changed_weights(tmp_path))


@pytest.mark.parametrize("keeping", ["hard", "symbolic"])
def test_a_model_and_the_whole_tree_may_move(tmp_path, keeping):
    FrozenWeights(tmp_path / "runs", keeping).save(
        half_frozen(), tmp_path / "runs" / "one" / "fixed" / "seed-1" / "model"
    )
    run = tmp_path / "runs" / "one"
    move_model(run / "fixed" / "seed-1" / "model", run / "model")
    assert not (run / "fixed" / "seed-1" / "model").exists()
    (tmp_path / "runs").rename(tmp_path / "moved")
    model = tmp_path / "moved" / "one" / "model"
    assert os.path.samefile(weight_files(model, "restore it")[1], only_blob(tmp_path / "moved"))
    MemoBertForPreTraining.from_pretrained(model)


@pytest.mark.parametrize("keeping", ["hard", "symbolic"])
def test_files_go_with_the_last_run_that_is_linked_to_them(tmp_path, keeping):
    for run in ("one", "two"):
        FrozenWeights(tmp_path, keeping).save(half_frozen(), tmp_path / run / "model")
    blob = only_blob(tmp_path)
    old = time.time() - 7200
    os.utime(blob, (old, old))
    shutil.rmtree(tmp_path / "one")
    assert unused(tmp_path) == []
    shutil.rmtree(tmp_path / "two")
    assert [one.path for one in clean_weights(tmp_path, dry=True)] == [blob] and blob.is_file()
    assert [one.bytes for one in clean_weights(tmp_path, dry=False)] and not blob.exists()
    FrozenWeights(tmp_path, keeping).save(half_frozen(), tmp_path / "three")
    shutil.rmtree(tmp_path / "three")
    assert unused(tmp_path) == []  # young: somebody may be about to link it


def test_checkpoints_go_on_from_shared_weights(tmp_path):
    learner = Learner(half_frozen(), objectives.build({}))
    optimiser = adamw(learner, Train())
    checkpoints = Checkpoints(tmp_path / "runs" / "one" / "checkpoints")
    checkpoints.folder.parent.mkdir(parents=True)
    state = State(step=4, loader={"seed": 1, "updates": 4, "streams": []}).to_json() | {"environment": {"torch": "2"}}
    folder = checkpoints.save(4, learner, optimiser, state)
    assert only_blob(tmp_path / "runs").stat().st_nlink == 2
    other = Learner(half_frozen(seed=8), objectives.build({}))
    checkpoints.load(4, other, adamw(other, Train()))
    for own, wanted in zip(other.parameters(), learner.parameters(), strict=True):
        assert torch.equal(own, wanted)
    weight_files(folder, "restore it")[1].unlink()
    with pytest.raises(Exception, match=r"model-00002-of-00002\.safetensors is missing"):
        checkpoints.load(4, other, adamw(other, Train()))


def flip(path, place=-5):
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("keeping", ["hard", "symbolic"])
@pytest.mark.parametrize("shard", [0, 1])
def test_changed_weights_are_refused_wherever_they_are_read(tmp_path, keeping, shard):
    FrozenWeights(tmp_path, keeping).save(half_frozen(), tmp_path / "a")
    files = weight_files(tmp_path / "a", "restore it")
    assert len(read_weights(tmp_path / "a")) > 1
    flip(files[shard])
    for read in (lambda: weight_files(tmp_path / "a", "restore it"), lambda: read_weights(tmp_path / "a")):
        with pytest.raises(MemofastError, match=rf"{files[shard].name} is not the file that was saved.*restore it"):
            read()
    index = tmp_path / "a" / "model.safetensors.index.json"
    assert {path for path, _ in faults(tmp_path / "a")} == {index}


def test_a_link_that_leads_nowhere_says_where(tmp_path):
    FrozenWeights(tmp_path, "symbolic").save(half_frozen(), tmp_path / "a")
    only_blob(tmp_path).unlink()
    with pytest.raises(MemofastError, match=r"model-00002-of-00002.safetensors is missing, a link to \.\./weights/"):
        read_weights(tmp_path / "a")


@pytest.mark.parametrize(
    "broken", ['{"weight_map": 3}', "[]", '{"weight_map": {"a": "../b"}}', "{", '{"weight_map": {}}']
)
def test_a_broken_index_is_one_line(tmp_path, broken):
    (tmp_path / "model.safetensors.index.json").write_text(broken)
    with pytest.raises(MemofastError, match=r"index\.json.*; start again"):
        weight_files(tmp_path, "start again")


def test_what_a_killed_process_was_writing_goes(tmp_path):
    left = tmp_path / "weights" / ".new.safetensors.4000000.partial"
    left.parent.mkdir()
    left.write_bytes(b"half")
    FrozenWeights(tmp_path).save(half_frozen(), tmp_path / "a")
    assert not left.exists() and only_blob(tmp_path)


def test_a_model_that_moved_is_never_half_in_its_old_place(tmp_path, monkeypatch):
    FrozenWeights(tmp_path / "runs", "symbolic").save(half_frozen(), tmp_path / "runs" / "one" / "seed-1" / "model")
    monkeypatch.setattr(weights, "remove", lambda path: None)  # as if it was killed
    move_model(tmp_path / "runs" / "one" / "seed-1" / "model", tmp_path / "runs" / "one" / "model")
    assert not (tmp_path / "runs" / "one" / "seed-1" / "model").exists()
    assert read_weights(tmp_path / "runs" / "one" / "model")


def test_half_of_a_model_never_has_its_name(tmp_path, monkeypatch):
    model = half_frozen()
    trainer = SimpleNamespace(frozen=FrozenWeights(tmp_path), learner=SimpleNamespace(model=model))
    with monkeypatch.context() as patch:
        patch.setattr(weights, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space left"):
            fine_tuning_run._keep_model(trainer, tmp_path / "run" / "model")
    assert not list((tmp_path / "run").iterdir()) and not list((tmp_path / "weights").iterdir())
    for _ in range(2):  # the second time one is there already, of a process that was killed
        fine_tuning_run._keep_model(trainer, tmp_path / "run" / "model")
    assert read_weights(tmp_path / "run" / "model").keys() == model.state_dict().keys()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]


def test_weights_are_removed_only_while_nobody_links_to_them(tmp_path):
    FrozenWeights(tmp_path).save(half_frozen(), tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    os.utime(only_blob(tmp_path), (1, 1))
    with ThreadPoolExecutor() as pool:
        with held_together(tmp_path / "weights"), held_together(tmp_path / "weights"):
            cleaning = pool.submit(clean_weights, tmp_path, dry=False)
            time.sleep(0.1)
            assert not cleaning.done()
            os.utime(only_blob(tmp_path))
        assert cleaning.result() == [] and only_blob(tmp_path)


def test_links_that_are_made_and_moved_keep_weights_young(tmp_path):
    for place in ("first", "second"):
        FrozenWeights(tmp_path, "symbolic").save(half_frozen(), tmp_path / place / "model")
        assert time.time() - only_blob(tmp_path).stat().st_mtime < 600
        os.utime(only_blob(tmp_path), (1, 1))
    move_model(tmp_path / "first" / "model", tmp_path / "model")
    assert time.time() - only_blob(tmp_path).stat().st_mtime < 600


WRITER = """
import sys, torch
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + '/..']
from test_frozen_weights import half_frozen
from memofast.train import fine_tuning_run, weights
weights._LEAST = 1
runs, name, model = Path({runs!r}), sys.argv[1], half_frozen()
print("begun", flush=True)
for step in range(10**6):
    with torch.no_grad():
        next(one for one in model.parameters() if not one.requires_grad).fill_(step % 5)
    weights.FrozenWeights(runs).save(model, runs / name / str(step))
"""


@pytest.mark.slow
def test_two_writers_that_are_killed_leave_whole_files(tmp_path):
    runs = tmp_path / "runs"
    program = WRITER.format(tests=os.path.dirname(__file__), runs=str(runs))
    writers = [
        subprocess.Popen([sys.executable, "-c", program, name], env=environment(), stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for writer in writers:
        writer.stdout.readline()
    deadline = time.monotonic() + 60
    while not all((runs / name / "6").is_dir() for name in ("one", "two")) and time.monotonic() < deadline:
        time.sleep(0.05)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    blobs = [path for path in (runs / "weights").iterdir() if not path.name.startswith(".")]
    assert len(blobs) == 5 and not list(changed_weights(runs))
    for name in ("one", "two"):
        for step in range(6):  # the last may be cut off
            _, shared = weight_files(runs / name / str(step), "restore it")
            assert shared.samefile(runs / "weights" / f"{sha256_of(shared)}.safetensors")
