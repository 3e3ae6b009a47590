"""The speed report of a real, small measurement, and its refusal to claim what no test vouches for."""

import importlib
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "bench"
pytestmark = pytest.mark.skipif(not BENCH.is_dir(), reason="bench/ is not beside the tests")


# pytest after pytest in one process, which imports PyTorch once; two files of one name are two modules
SESSIONS = """
import json, sys
import pytest
for line in json.loads(sys.argv.pop()):
    sys.argv[1:] = ["-p", "no:cacheprovider", *line]
    for name in [name for name in sys.modules if name.startswith("test_")]:
        del sys.modules[name]
    if code := pytest.main(sys.argv[1:]):
        sys.exit(int(code))
"""


def sessions(lines: list[list[str]]) -> str:
    """What sessions of pytest print, one after another in a process without this one's xdist."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    line = [sys.executable, "-c", SESSIONS, json.dumps(lines)]
    done = subprocess.run(line, cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with a small measurement and the tests of its build, and with the errors that other tests told."""
    folder = tmp_path_factory.mktemp("speed")
    lines = [
        ["python_tests/ops/test_span_mask.py", "-k", "refus or empty", f"--junitxml={folder / 'tests.xml'}"],
        [
            "python_tests/ops/test_bias_gelu.py", "-k", "matches_reference and 768 and 129",
            f"--junitxml={folder / 'errors.xml'}",
        ],
        ["bench/test_span_mask.py", "-k", "call_of", f"--benchmark-json={folder / 'speed.json'}"],
    ]  # fmt: skip
    sessions(lines)
    return folder


@pytest.fixture(scope="module")
def program():
    """`bench/report.py` in this process: a function of its arguments that returns what is printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        main = importlib.import_module("report").main

        def run(*arguments):
            with mock.patch.object(sys, "argv", ["report.py", *map(str, arguments)]):
                printed = io.StringIO()
                with redirect_stdout(printed):
                    main()
            return printed.getvalue()

        yield run


@pytest.fixture
def report(program):
    return lambda folder, *options: program(folder / "speed.json", *options)


def test_rows_and_machine(measured, report):
    text = report(measured, "--tests", measured / "tests.xml")
    assert "| call_of_span_mask | torch add | " in text and "| ratio |" in text and "withheld" not in text
    assert (
        "- measured by: `pytest -p no:cacheprovider bench/test_span_mask.py -k call_of --benchmark-json=speed.json`"
        in text
    )
    assert "twice (gradients: three times) the error" in text and "/tmp/" not in text
    assert "kernels: " in text and "## Where we lose" in text and "Ceilings: not measured" in text


def test_files_and_page(measured, report, tmp_path):
    report(measured, "--tests", measured / "tests.xml", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "speed.md").read_text() == report(measured, "--tests", measured / "tests.xml")
    assert "<table>" in (tmp_path / "out" / "speed.html").read_text()


def test_no_claim_without_tests_of_the_same_build(measured, report, tmp_path):
    other = tmp_path / "speed.json"
    data = json.loads((measured / "speed.json").read_text())
    data["machine_info"]["memofast"]["build"] = "another"
    other.write_text(json.dumps(data))
    text = report(tmp_path, "--tests", measured / "tests.xml")
    assert "withheld: test_span_mask did not pass on this build" in text


def test_targets_name_benchmarks():
    """A benchmark that is renamed would leave its target unmeasured for ever."""
    collected = sessions([["bench", "-m", "gpu", "--collect-only", "-o", "addopts="]])
    targets = yaml.safe_load((BENCH / "targets_h200.yaml").read_text())
    for target in targets.values():
        for part in ("row", "less"):
            assert part not in target or f"<Function test_{target[part]}>" in collected, target


def summary(seconds):
    return {"median": seconds, "p20": seconds, "p80": seconds}


def row(name, file, seconds, **facts):
    """As `on_gpu` writes it."""
    ratios = {who: summary(own["median"] / seconds["ours"]["median"]) for who, own in seconds.items() if who != "ours"}
    info = {"device": "gpu", "seconds": seconds, "ratios": ratios, "target": {}, "facts": facts}
    return {"name": f"test_{name}", "fullname": f"bench/{file}::test_{name}", "extra_info": info}


OPERATORS = ("attention", "cross_attention", "embed", "dropout_add_norm", "bias_gelu")
OF_A_STEP = (*OPERATORS, "losses", "captured_step")


def vouched(folder, build, *files):
    """JUnit XML of a run on a GPU in which these test files passed; losses have no test of their own there."""
    gpu = '<properties><property name="device" value="gpu"/></properties>'
    cases = "".join(
        f'<testcase classname="python_tests.test_{file}" name="t">{gpu if file != "losses" else ""}</testcase>'
        for file in files
    )
    properties = f'<properties><property name="build" value="{build}"/></properties>'
    (folder / "tests.xml").write_text(f"<testsuites><testsuite>{properties}{cases}</testsuite></testsuites>")
    return folder / "tests.xml"


def test_targets_of_a_gpu_and_the_ladder(measured, report, tmp_path):
    """Backward is both passes without forward; another GPU, or a row that is not there, is not measured."""
    data = json.loads((measured / "speed.json").read_text())
    attention = "attention_gpu[{}-memobert-256-0.1-bf16]"
    rungs = {
        name: {"peak_bytes": 3_000_000_000, "launches": launches} for name, launches in (("eager", 900), ("ours", 3))
    }
    data["benchmarks"] = [
        row(attention.format("forward"), "test_attention.py",
            {"ours": summary(50e-6), "flash_varlen": summary(70e-6), "padded_sdpa": summary(160e-6)}),
        row(attention.format("both"), "test_attention.py", {"ours": summary(170e-6)}),
        row(
            "gpu_ladder[256]", "test_ladder.py", {"ours": summary(0.025), "eager": summary(0.1)},
            samples=256, rows=25600,
            flop=10e12, ladder=["eager", "ours"], last="cuda graphs", rungs=rungs,
        ),
        row("gpu_fed_step[256]", "test_fed_step.py", {"ours": summary(0.03)}, loader_over_step=1.6),
        {"name": "test_gpu_matrix_product[8192-8192]", "fullname": "",
         "extra_info": {"ceiling": {"rate": 800_000, "unit": "GFLOP/s"}}},
    ]  # fmt: skip
    data["benchmarks"][0]["extra_info"]["target"] = {"padded_sdpa": 3.0, "fastest": 1.5}
    tests = vouched(tmp_path, data["machine_info"]["memofast"]["build"], *OF_A_STEP)
    known = {
        "attention, forward | at most 52 us": "50 us | met",
        "attention, backward | at most 115 us": "120 us | **not met**",
        "whole step | at most 27 ms": "25 ms | met",
        "samples per second of the whole step | at least 9,400": "1.024e+04 | met",
        "use of the chip's bf16 rate by the whole step | at least 0.5": "0.4044 | **not met**",
        "rate of the loader over that of the step | at least 1.5": "1.6 | met",
        "bias and GELU, forward | at most 86 us": "not measured | ",
        "attention, forward, against the fastest rival that can do dropout | at least 1.5x": "1.4x | **not met**",
        "attention, forward, against SDPA padded with a mask | at least 3x": "3.2x | met",
        "whole step, against eager as transformers has it | at least 2.5x": "4x | met",
        "whole step, against the compiled form | at least 1.5x": "not measured | ",
        "dropout, addition and LayerNorm, forward, against torch.compile | at least 1.1x": "not measured | ",
        "dropout, addition and LayerNorm, forward and backward, against eager | at least 3x": "not measured | ",
        "bias and GELU, forward, against eager | at least 1.8x": "not measured | ",
        "embeddings with their projections, forward, against padded eager | at least 5x": "not measured | ",
    }
    for gpu in ("NVIDIA H200", "other"):
        data["machine_info"]["memofast"]["gpu"] = gpu
        (tmp_path / "speed.json").write_text(json.dumps(data))
        text = report(tmp_path, "--tests", tests)
        for target, result in known.items():
            assert f"| {target} | {result if gpu != 'other' else 'not measured | '} |" in text
    assert "| eager | 100 ms [100 ms, 100 ms] | 2,560 | 256,000 | 100 | 12 % | 3.00 GB | 900 |" in text
    assert "| cuda graphs | 25 ms [25 ms, 25 ms] | 10,240 | 1,024,000 | 400 | 50 % | 3.00 GB | 3 |" in text
    assert "3x padded_sdpa met, 1.5x fastest **not met** |" in text
    assert "against flash_varlen: 1.40x" in text[text.index("## Where we lose") :]
    withheld = report(tmp_path)
    assert "| whole step | at most 27 ms | not measured |  |" in withheld and "| eager | 100 ms" not in withheld


def test_steps_and_learning_need_every_test_of_their_parts(measured, report, tmp_path):
    data = json.loads((measured / "speed.json").read_text())
    curves = {who: [1.0, 2.0] * 20 for who in ("padded", "memofast")}
    info = {"device": "gpu", "curves": curves, "objectives": ["words", "faces"]}
    data["benchmarks"] = [
        row("gpu_fed_step[64]", "test_fed_step.py", {"ours": summary(1.0), "compiled": summary(2.0)}),
        {"name": "test_gpu_learning", "fullname": "bench/test_learning.py::test_gpu_learning", "extra_info": info},
    ]
    (tmp_path / "speed.json").write_text(json.dumps(data))
    build = data["machine_info"]["memofast"]["build"]
    text = report(tmp_path, "--tests", vouched(tmp_path, build, *OF_A_STEP))
    assert (
        "| gpu_fed_step[64] | 1 s [1 s, 1 s] | compiled |" in text
        and "| gpu_learning | faces | 2 | 2 (0) | 2 (0) |" in text
    )
    for missing in ("losses", "captured_step", "embed"):
        others = [name for name in OF_A_STEP if name != missing]
        text = report(tmp_path, "--tests", vouched(tmp_path, build, *others), "--out", tmp_path / missing)
        text = (tmp_path / missing / "speed.md").read_text()
        reason = f"withheld: test_{missing} did not pass on this build"
        assert f"| {reason} |  |" in text and f"| gpu_learning | {reason} |" in text and "learning.png" not in text


def test_files_that_vouch_for_rows_on_a_gpu_have_tests_there():
    """Without one the report would withhold their rows for ever."""
    for name in (*OPERATORS, "captured_step", "span_mask", "token_mask"):
        (file,) = (ROOT / "python_tests").glob(f"*/test_{name}.py")
        assert "mark.gpu" in file.read_text(), name
    (losses,) = (ROOT / "python_tests").glob("*/test_losses.py")
    assert "mark.gpu" not in losses.read_text()


def test_nothing_is_claimed_where_no_test_was_looked_at(measured, report):
    text = report(measured)
    assert "withheld: test_span_mask did not pass" in text and "nothing is claimed" in text
    assert "## How exact\n\nNot measured." in text
    assert "torch add: " not in text[text.index("## Where we lose") :]


def test_errors_of_the_tests_are_told(measured, report, tmp_path):
    """Of each operator and type the test that came nearest to what is allowed; none of tests that failed, or ran
    elsewhere."""
    text = report(measured, "--tests", measured / "errors.xml")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| bias_gelu | ")]
    assert [row[1:3] for row in rows] == [
        ["bfloat16", "forward"], ["float32", "forward"], ["bfloat16", "gradients"], ["float32", "gradients"],
    ]  # fmt: skip
    for _, dtype, _, ours, plain, share in rows:
        assert 0 < float(ours) < (0.1 if dtype == "bfloat16" else 1e-4) and float(plain) > 0
        assert 0 < int(share.split()[0]) <= 100
    xml = (measured / "errors.xml").read_text()
    assert "error forward bfloat16" in xml
    (tmp_path / "tests.xml").write_text(xml.replace("</testcase>", "<failure/></testcase>", 1))
    assert "| bias_gelu | bfloat16" not in report(measured, "--tests", tmp_path / "tests.xml")


def test_runs_of_one_build_are_one_report(measured, report, tmp_path, capsys):
    data = json.loads((measured / "speed.json").read_text())
    other = data | {"benchmarks": [row("bias_gelu_gpu[x]", "test_bias_gelu_gpu.py", {"ours": summary(1.0)}, width=7)]}
    (tmp_path / "other.json").write_text(json.dumps(other))
    text = report(measured, tmp_path / "other.json")
    assert "- bias_gelu_gpu[x]: width 7" in text and "| call_of_span_mask | " in text
    other["machine_info"] = {"memofast": other["machine_info"]["memofast"] | {"build": "another"}}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(SystemExit) as stopped:
        report(measured, tmp_path / "other.json")
    assert stopped.value.code == 2 and "other.json: its build is another" in capsys.readouterr().err
