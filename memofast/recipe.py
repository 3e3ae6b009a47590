"""Recipes: `memofast recipe --list` and `memofast recipe --schema pretrain`."""

from typing import Annotated

import typer

from memofast.cli import run


def main(
    list_: Annotated[bool, typer.Option("--list", help="name the recipes that come with memofast")] = False,
    schema: Annotated[
        str | None,
        typer.Option(metavar="PROGRAM", help="print the JSON Schema of the recipes of pretrain or of finetune"),
    ] = None,
) -> None:
    """Show which recipes there are, or what a recipe may say.

    Example: memofast recipe --schema pretrain > pretrain.schema.json

    An editor with a YAML language server checks a recipe that begins with
    # yaml-language-server: $schema=pretrain.schema.json
    """
    import json

    from memofast.errors import MemofastError, nearest
    from memofast.train.recipe_file import described, shipped
    from memofast.train.recipe_schema import RECIPES, recipe_schema

    if list_ == (schema is not None):
        raise MemofastError("give --list or --schema PROGRAM, one of them")
    if list_:
        for program, fine_tuning in (("pretrain", False), ("finetune", True)):
            for name in shipped(fine_tuning):
                print(f"memofast {program} {name}: {described(name)}")
        return
    if schema not in RECIPES:
        raise MemofastError(f"--schema: no recipes of {schema!r}{nearest(schema, RECIPES)}")
    print(json.dumps(recipe_schema(schema), indent=2))


if __name__ == "__main__":
    run(main, "memofast recipe")
