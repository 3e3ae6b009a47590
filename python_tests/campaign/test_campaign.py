"""Every part of the campaign, a little of it and all of it: what went wrong names seed and number, which repeat it."""

import pytest
from parts import PARTS, count_of

# what a quick run does of each kind of part; the rest it leaves to the campaign (test_prepare_command.py kills prepare)
FEW = {
    "kills: pretrain": 1, "kills: finetune": 1, "kills: pseudo-label": 2, "kills: extract npz": 1,
    **{part: 10 for part in PARTS if part.startswith("mutations: ")},
    **{part: 3 for part in PARTS if part.startswith("mutations: ") and ("cache" in part or "weights" in part)},
    **dict.fromkeys(("mutations: runs", "mutations: checkpoints", "mutations: fine-tuned runs"), 1),
    **dict.fromkeys(("mutations: prepared corpora", "mutations: text runs", "mutations: face networks"), 1),
    "mutations: media": 5, "mutations: pickles": 100,
    "mutations by command: checkpoints": 1, "mutations by command: store descriptions": 1,
    "two at once: extract npz": 1, "two at once: pseudo-label": 1, "growing store: store": 1,
    "kills: cache fill": 1, "filled at once: a cache": 1, "moved: frozen weights": 1,
    "mutations by command: pages of a cache": 1,
    "full disk: pretrain": 1, "full disk: pseudo-label": 1, "small disk: extract npz": 1,
}  # fmt: skip


def faults(result):
    again = f'python python_tests/campaign "{result["part"]}" --seed {result["seed"]} --only'
    return [f"{again} {number}: {fault}" for number, fault in result["faults"].items()]


def test_a_few_of_many_parts(warm, pytestconfig):
    """In one test, so that of several test processes one alone makes the corpora and runs that are damaged."""
    results = [warm.run(part, count, pytestconfig.getoption("seed")) for part, count in FEW.items()]
    assert not [fault for result in results for fault in faults(result)]
    skipped = {result["part"]: result["skipped"] for result in results if result["skipped"]}
    assert all(part.startswith("small disk") for part in skipped), skipped
    assert all(result["count"] > 0 for result in results if not result["skipped"])


@pytest.mark.campaign
@pytest.mark.parametrize("part", PARTS)
def test_all(part, warm, pytestconfig):
    result = warm.run(part, count_of(part, pytestconfig.getoption("count") or 1000), pytestconfig.getoption("seed"))
    if result["skipped"]:
        pytest.skip(result["skipped"])
    assert not faults(result) and result["count"] > 0
