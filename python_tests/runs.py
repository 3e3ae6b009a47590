"""Runs as a user starts them: a small demo corpus, a small recipe, the program in this process, which need not import
everything again, or in processes of its own where it is killed, stopped or one of several."""

import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, chdir, closing, redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file

from memofast import cli
from memofast.data import Loader, Update
from memofast.data.demo import demo_corpus, vocabulary
from memofast.model import MemoBertConfig, MemoBertForPreTraining
from memofast.train.metrics_log import read_metrics
from memofast.train.sweep_processes import LOG
from memofast.train.task import Task

SMALL = {
    "model": {
        "vocab_size": len(vocabulary()),
        "mask_token_id": 4,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,  # 32 wide, as the CUDA kernels take them
        "intermediate_size": 64,
    },
    "objectives": {  # by name, as their order decides what is drawn: opensmile lets yaml write it as it is here
        "span_speech_regression": {},
        "span_visual_emotion": {},
        "span_visual_regression": {},
        "whole_word_mlm": {"share": 2},
    },
    "train": {"samples": 8, "mixing": "sample", "updates": 12, "lr": 1e-3, "log_every": 2, "save_every": 4},
    "validate": {"every": 6},
}


def tiny_model() -> MemoBertForPreTraining:
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return MemoBertForPreTraining(MemoBertConfig(**sizes, intermediate_size=32, visual_width=8, speech_width=8))


def small_corpus(folder: Path) -> Path:
    return demo_corpus(folder / "corpus", {"train": 48, "validation": 16, "test": 8})


def small_recipe(folder: Path, corpus: Path | str | None, **sections: dict) -> Path:
    """A recipe file; sections add to or replace entries of `SMALL`."""
    values = {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in SMALL}
    values["corpora"] = [{"path": str(corpus)}] if corpus else []
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(*arguments: object, program: str = "pretrain") -> list[str]:
    return [sys.executable, "-m", f"memofast.{program}", *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **extra}


def pretrain(folder: Path, *arguments: object, **extra: str) -> subprocess.CompletedProcess:
    return here(folder, "pretrain", *arguments, **extra)


def finetune(folder: Path, *arguments: object, **extra: str) -> subprocess.CompletedProcess:
    return here(folder, "finetune", *arguments, **extra)


def without_curves() -> AbstractContextManager:
    """Reports without their curves, which take longer than a small run of many objectives."""
    return mock.patch("memofast.train.report._draw", lambda folder, plan: False)


def two_ranks(program: str, lines: dict[Path, list]) -> subprocess.CompletedProcess:
    """Runs, each with its folder as the working directory, one after another by the same two ranks under torchrun."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    told = json.dumps([[str(folder), program, *map(str, arguments)] for folder, arguments in lines.items()])
    line = [sys.executable, *launcher, __file__, told]
    return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300)


def _of_a_rank(lines: list[list[str]]) -> None:
    """The ranks meet once and stay together: meeting again under one launcher may wait for ever."""
    dist.init_process_group("gloo")
    together = mock.patch.object(dist, "init_process_group"), mock.patch.object(dist, "destroy_process_group")
    with without_curves(), together[0], together[1]:
        for folder, *arguments in lines:
            sys.argv = ["memofast", *arguments]
            with chdir(folder):
                try:
                    cli.main()
                except SystemExit as stopped:
                    if stopped.code:
                        raise
    dist.destroy_process_group()


def here(folder: Path, program: str, *arguments: object, **extra: str) -> subprocess.CompletedProcess:
    """`memofast PROGRAM` in this process, with `folder` as the working directory."""
    line = ["memofast", program, *map(str, arguments)]
    out, error, code, threads = io.StringIO(), io.StringIO(), 0, torch.get_num_threads()
    with (
        chdir(folder), redirect_stdout(out), redirect_stderr(error), mock.patch.object(sys, "argv", line),
        mock.patch.dict(os.environ, extra),
    ):  # fmt: skip
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        except Exception:
            code = 1
            traceback.print_exc()
        finally:
            torch.set_num_threads(threads)
    return subprocess.CompletedProcess(line, code, out.getvalue(), error.getvalue())


def settings_here(folders: list[Path], resources: object = None) -> Iterator[tuple[Path, int | None]]:
    """As `sweep_processes.run_local`, without starting Python again."""
    for folder in folders:
        yield folder, None
        done = here(Path.cwd(), "finetune", "--resume", folder)
        (folder / LOG).write_text(done.stdout + done.stderr)
        yield folder, done.returncode


def start(folder: Path, *arguments: object, program: str = "pretrain") -> subprocess.Popen:
    """A run that goes on in the background; what it says, errors too, is read from its standard output."""
    return subprocess.Popen(
        command(*arguments, program=program), cwd=folder, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for(folder: Path, pattern: str, process: subprocess.Popen) -> None:
    """Until a file of this pattern lies in the folder."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list(folder.glob(pattern)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no {pattern}: {process.communicate()[0]}")


def first_updates(task: Task, count: int) -> list[Update]:
    """What a trainer of one process would get from its loader."""
    options = task.options
    loader = Loader(
        task.streams(), capacity=task.capacity, seed=options.seed, micro_batches=options.accumulate,
        mixing=options.mixing, work=task,
    )  # fmt: skip
    with closing(iter(loader)) as updates:
        return list(islice(updates, count))


def the_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run


def losses(run: Path) -> list[dict]:
    """What a run logged, or one fold and seed of it, without what depends on the clock and on the machine."""
    clock = ("samples_per_s", "rows_per_s", "peak_memory_gib")
    return [{k: v for k, v in entry.items() if k not in clock} for entry in read_metrics(run / "metrics.jsonl")]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").glob("step-*"))
    return load_file(newest / "model.safetensors")


if __name__ == "__main__":
    _of_a_rank(json.loads(sys.argv[1]))
