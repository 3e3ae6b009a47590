"""A device that fails, or memory that runs out, in the middle of a run: one line, exit code 2, the last
checkpoint as it was."""

import sys
from pathlib import Path

import pytest
import torch
from runs import small_corpus, small_recipe, the_run

from memofast import cli
from memofast.errors import DeviceError, MemofastError
from memofast.pretrain import main
from memofast.train.checkpoints import Checkpoints
from memofast.train.step import Step
from memofast.train.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def failing(monkeypatch):
    """`failing(owner, method, error, after)`: the method raises once it was called `after` times."""

    def plant(owner, method, error, after):
        run, calls = getattr(owner, method), []

        def counted(*arguments, **options):
            calls.append(None)
            if len(calls) > after:
                raise error
            return run(*arguments, **options)

        monkeypatch.setattr(owner, method, counted)

    return plant


ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 9 GiB. See documentation for"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (torch.AcceleratorError(ILLEGAL), ("illegal memory access was encountered; ", "MEMOFAST_DEBUG=1")),
        (torch.OutOfMemoryError(FULL), ("Tried to allocate 2.00 GiB; ", "lower train.samples or train.rows")),
        (DeviceError("embed: cudaErrorLaunchFailure"), ("after update 5: embed: cudaErrorLaunchFailure; continue",)),
        (MemoryError("attention: out of memory"), ("attention: out of memory", "train.accumulate")),
    ],
    ids=["illegal", "memory", "kernel", "host"],
)
def test_one_line_and_the_checkpoint(corpus, tmp_path, monkeypatch, capsys, failing, error, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["memofast", "pretrain", str(small_recipe(tmp_path, corpus))])
    failing(Step, "add_gradients", error, after=5)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("memofast pretrain: ")]
    run = the_run(tmp_path)
    assert stopped.value.code == 2 and "Traceback" not in said
    for part in (*says, "after update 5", f"continue from update 4 with --resume runs/{run.name}"):
        assert part in line
    assert Checkpoints(run / "checkpoints").steps() == [4]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    main([], resume=Path("runs") / run.name)
    assert Checkpoints(run / "checkpoints").steps()[-1] == 12


def test_a_fault_while_saving_leaves_no_half(corpus, tmp_path, monkeypatch, failing):
    monkeypatch.chdir(tmp_path)
    failing(torch, "save", torch.AcceleratorError(ILLEGAL), after=1)
    with pytest.raises(MemofastError, match=r"after update 8: .* illegal memory access .* continue from update 4"):
        main([str(small_recipe(tmp_path, corpus)), "validate.every=12"])
    assert [entry.name for entry in (the_run(tmp_path) / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_fault_before_the_first_update(corpus, tmp_path, monkeypatch, failing):
    monkeypatch.chdir(tmp_path)
    failing(Trainer, "_restore", torch.OutOfMemoryError(FULL), after=0)
    with pytest.raises(MemofastError, match=r"while the run was set up: .* nothing was saved yet"):
        main([str(small_recipe(tmp_path, corpus))])


def test_other_errors_stay_themselves(corpus, tmp_path, monkeypatch, failing):
    monkeypatch.chdir(tmp_path)
    failing(Step, "add_gradients", RuntimeError("mat1 and mat2 shapes cannot be multiplied"), after=0)
    with pytest.raises(RuntimeError, match="mat1"):
        main([str(small_recipe(tmp_path, corpus))])
