"""Recipes: `memofast recipe --list` and `memofast recipe --schema`."""

from typing import Annotated

import typer

from memofast.cli import run


def main(
    program: Annotated[
        str | None, typer.Argument(help="pretrain or finetune: of its recipes alone", show_default=False)
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="name the recipes that come with memofast, and the fragments")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="print the JSON Schema of recipes")] = False,
) -> None:
    """Show which recipes there are, or what a recipe may say.

    Example: memofast recipe pretrain --schema > pretrain.schema.json

    A fragment changes a recipe of pre-training that it is joined to: memofast pretrain memobert-base + matching + order

    An editor with a YAML language server checks a recipe that begins with
    # yaml-language-server: $schema=pretrain.schema.json
    """
    import json

    from memofast.errors import MemofastError, nearest
    from memofast.train.recipe_file import described, fragments, shipped, sweeps
    from memofast.train.recipe_schema import RECIPES, recipe_schema, schema_of_all

    if list_ == schema:
        raise MemofastError("give --list or --schema, one of them")
    if program not in (None, *RECIPES):
        raise MemofastError(f"no recipes of {program!r}{nearest(program, RECIPES)}")
    if schema:
        print(json.dumps(recipe_schema(program) if program else schema_of_all(), indent=2))
        return
    for name in [program] if program else RECIPES:
        for recipe in shipped(fine_tuning=name == "finetune"):
            print(f"memofast {name} {recipe}: {described(recipe)}")
        for fragment in fragments() if name == "pretrain" else ():
            print(f"memofast {name} RECIPE + {fragment}: {described(fragment)}")
        for sweep in sweeps() if name == "finetune" else ():
            print(f"memofast sweep {sweep}: {described(sweep)}")


if __name__ == "__main__":
    run(main, "memofast recipe")
