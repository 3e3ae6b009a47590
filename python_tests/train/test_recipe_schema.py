"""The JSON Schema of recipes names what there is, with its bounds."""

import json

import pytest
from runs import here

from memofast.train.recipe_file import described, fragments, read_values, shipped, sweeps
from memofast.train.recipe_schema import RECIPES, recipe_schema


def branches(schema, part):
    """What a part of a schema may be, with its references followed."""
    if "$ref" in part:
        return branches(schema, schema["$defs"][part["$ref"].rpartition("/")[2]])
    several = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
    return [one for own in several for one in branches(schema, own)] if several else [part]


def unknown_keys(schema, part, value, path=""):
    """Keys of nested mappings that the schema does not name."""
    found = []
    of = branches(schema, part)
    for number, entry in enumerate(value if isinstance(value, list) else ()):
        found += unknown_keys(
            schema, next((one["items"] for one in of if "items" in one), {}), entry, f"{path}.{number}"
        )
    for name, entry in value.items() if isinstance(value, dict) else ():
        parts = [one["properties"][name] for one in of if name in one.get("properties", ())]
        parts += [one["additionalProperties"] for one in of if isinstance(one.get("additionalProperties"), dict)]
        found += unknown_keys(schema, {"anyOf": parts}, entry, f"{path}.{name}") if parts else [f"{path}.{name}"]
    return found


@pytest.mark.parametrize(("program", "fine_tuning"), [("pretrain", False), ("finetune", True)])
def test_every_shipped_recipe_is_of_its_schema(program, fine_tuning):
    schema = recipe_schema(program)
    for name in shipped(fine_tuning):
        values = read_values(name, [], shipped(fine_tuning), RECIPES[program])[0]
        assert unknown_keys(schema, schema, values) == []
        assert unknown_keys(schema, schema, values | {"trian": {}}) == [".trian"]
        values["train"]["lrr"] = 1
        assert unknown_keys(schema, schema, values) == [".train.lrr"]


def test_bounds_and_options_are_said():
    schema = recipe_schema("pretrain")
    train = schema["$defs"]["Train"]["properties"]
    assert (train["samples"]["maximum"], train["lr"]["exclusiveMinimum"]) == (65536, 0)
    assert schema["properties"]["validate"] and "validate_" not in schema["properties"]
    words = schema["$defs"]["whole_word_mlm"]
    assert {"probability", "policy", "share"} <= words["properties"].keys() and not words["additionalProperties"]
    assert {"type": "number", "minimum": 0, "maximum": 1} in words["properties"]["probability"]["anyOf"]
    objectives = schema["properties"]["objectives"]
    assert {"$ref": "#/$defs/matching"} in objectives["properties"]["matching"]["anyOf"]
    assert all({"required": ["kind"]} in of["allOf"] for of in objectives["additionalProperties"]["anyOf"])


def test_the_command_lists_recipes_and_prints_schemas(tmp_path):
    listed = here(tmp_path, "recipe", "--list")
    names = [f"memofast pretrain {name}: {described(name)}" for name in shipped()]
    names += [f"memofast pretrain RECIPE + {name}: {described(name)}" for name in fragments()]
    names += [f"memofast finetune {name}: {described(name)}" for name in shipped(fine_tuning=True)]
    names += [f"memofast sweep {name}: {described(name)}" for name in sweeps()]
    assert listed.stdout.splitlines() == names and len(shipped()) == 9 and "mosi-lab-ablations" in sweeps()
    assert {"finetune", "finetune-demo", "mosi-lab", "crema-d-perceiver"} <= {*shipped(fine_tuning=True)}
    assert all(20 < len(described(name)) < 110 for name in (*shipped(), *shipped(fine_tuning=True), *sweeps()))
    assert here(tmp_path, "recipe", "pretrain", "--list").stdout.splitlines() == names[: len(shipped() + fragments())]
    assert json.loads(here(tmp_path, "recipe", "finetune", "--schema").stdout) == recipe_schema("finetune")
    of_all = json.loads(here(tmp_path, "recipe", "--schema").stdout)
    assert [of_all["$defs"][part["$ref"].removeprefix("memofast-")]["title"] for part in of_all["anyOf"]] == [
        "recipe of pretrain", "recipe of finetune"
    ]  # fmt: skip
    for wrong, message in ((["--schema", "pretrian"], "did you mean pretrain"), ([], "give --list or --schema")):
        refused = here(tmp_path, "recipe", *wrong)
        assert refused.returncode == 2 and message in refused.stderr and len(refused.stderr.splitlines()) == 1
