import json
import subprocess
import sys

import pytest

from memofast import _C, info


def test_names_what_was_built_and_what_runs():
    facts = {(fact.section, fact.name): fact for fact in info.report()}
    assert facts["built", "sources"].value == _C.source_digest
    assert facts["available", "CPU kernels"].value.startswith(("portable", "avx2", "avx512"))


def test_what_is_missing_comes_with_its_remedy(monkeypatch):
    monkeypatch.setattr(info, "_version", lambda distribution: "")
    missing = {fact.name: fact.remedy for fact in info.report() if fact.section == "extras"}
    assert missing["face"] == 'pip install "memofast[face]"'
    assert all(missing.values())


def test_json_lists_the_same_facts():
    command = [sys.executable, "-m", "memofast.info", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [fact["name"] for fact in json.loads(printed)] == [fact.name for fact in info.report()]


@pytest.mark.parametrize("isa", ["sse9", "AVX2"])
def test_unknown_instruction_set_is_refused(isa):
    result = subprocess.run(
        [sys.executable, "-c", "from memofast import _C"],
        capture_output=True,
        text=True,
        env={"MEMOFAST_ISA": isa, "PATH": ""},
    )
    assert result.returncode != 0
    assert "MEMOFAST_ISA is portable, avx2 or avx512" in result.stderr
