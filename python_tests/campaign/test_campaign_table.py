"""The table of the campaign, from results as its runs leave them."""

import json

from table import table


def result(part, seed, count, faults=(), skipped=""):
    told = {"part": part, "seed": seed, "count": count, "faults": dict.fromkeys(faults, "why"), "skipped": skipped}
    return json.loads(json.dumps(told))


def test_cases_are_counted_once_and_mended_where_the_last_run_of_them_is_fine():
    measured = [
        result("kills: a", 0, 30, (2, 7, 29)),
        result("kills: a", 1, 11, (4,)),
        result("kills: a", 0, 30, (7,)),
        result("kills: a", 0, 5, (2,)),  # a shorter run, in which 2 fails again
        result("kills: b", 0, 1_200),
        result("mutations: c", 3, 40, (5,)),
        result("small disk: d", 0, 0, skipped="needs root"),
    ]
    assert table(measured).split("\n") == [
        "| part | count | failures | mended |",
        "| --- | ---: | ---: | ---: |",
        "| kills: a | 41 | 4 | 1 |",  # 29 of seed 0 is fine now
        "| kills: b | 1,200 | 0 | 0 |",
        "| mutations: c | 40 | 1 | 0 |",
        "| all kills | 1,241 | 4 | 1 |",
        "| all mutations | 40 | 1 | 0 |",
    ]
