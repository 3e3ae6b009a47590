"""What a recipe may say, as a JSON Schema: for editors, and to look things up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from memofast.objectives.build import KINDS
from memofast.train.fine_tuning_recipe import FineTuneRecipe
from memofast.train.recipe import SHARES, Recipe

RECIPES = {"pretrain": Recipe, "finetune": FineTuneRecipe}


def recipe_schema(program: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the recipes of `pretrain` or `finetune`."""
    schema = RECIPES[program].model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"recipe of {program}"}
    if program == "pretrain":
        schema["properties"]["objectives"] |= _objectives(schema["$defs"])
        kinds = {name: {"$ref": f"#/$defs/{name}"} for name in KINDS}
        schema["properties"]["each"] |= {"properties": kinds, "additionalProperties": False}
    return schema


def schema_of_all() -> dict[str, Any]:
    """The JSON Schema of any recipe; those of the programs are embedded, each with an `$id` that its references are
    relative to (draft 2020-12, compound documents)."""
    programs = {program: {"$id": f"memofast-{program}"} | recipe_schema(program) for program in RECIPES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "recipe of memofast",
        "anyOf": [{"$ref": of["$id"]} for of in programs.values()],
        "$defs": programs,
    }


def _objectives(definitions: dict[str, Any]) -> dict[str, Any]:
    """The options of each objective by its name; under another name an objective says its `kind`."""
    share = (Annotated[float, Field(ge=SHARES[0], le=SHARES[1])] | Literal[0], 1.0)
    for name, objective in KINDS.items():
        model = create_model(name, __base__=objective.Options, share=share, kind=(Literal[name], name))
        own = model.model_json_schema()
        definitions |= own.pop("$defs", {})  # which references seek at the root
        definitions[name] = own
    options = {name: {"$ref": f"#/$defs/{name}"} for name in KINDS}
    return {
        "properties": {name: {"anyOf": [of, {"type": "null"}]} for name, of in options.items()},
        "additionalProperties": {"anyOf": [{"allOf": [of, {"required": ["kind"]}]} for of in options.values()]},
    }
