"""The command `memofast cache`: vectors of fixed encoders, computed once for all runs."""

import re
from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run

main = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Keep what fixed encoders make of samples: fill, count, verify and prune.",
)

Cache = Annotated[Path, typer.Argument(metavar="CACHE", help="folder of a cache")]
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@main.command(
    epilog="Example: memofast cache fill meld-towers corpus=corpora/meld model.text.init=ROBERTA "
    "model.text.train=frozen model.cache.path=features"
)
def fill(
    recipe: Annotated[str, typer.Argument(help="recipe of a fine-tuning whose model.cache.path is to be filled")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="its other settings")] = None,
) -> None:
    """Compute what a fine-tuning's fixed encoders make of its samples, of which the cache has none yet; a fine-tuning
    with this cache does the same where it lacks something. After Ctrl-C what was made is kept."""
    from memofast.errors import MemofastError
    from memofast.model.towers.filling import fill_cache
    from memofast.model.towers.section import TowersSection
    from memofast.train.fine_tuning_plan import make_fine_tuning_plan, start_model
    from memofast.train.fine_tuning_recipe import read

    plan = make_fine_tuning_plan(read(recipe, overrides or []))
    if not isinstance(plan.recipe.model, TowersSection) or plan.recipe.model.cache is None:
        raise MemofastError("there is no cache to fill; set model.cache.path=FOLDER in a recipe of model.family towers")
    model = start_model(plan.recipe, plan.target, plan.folds[0].train)
    splits = [part for fold in plan.folds for part in (fold.train, fold.validation, fold.test) if part is not None]
    made, had = fill_cache(model, splits)
    print(f"{made:,} vectors made, {had:,} were there, in {plan.recipe.model.cache.path}")


@main.command(epilog="Example: memofast cache stat features")
def stat(cache: Cache) -> None:
    """Count vectors and their bytes by encoder."""
    from memofast.store.feature_cache import FeatureCache

    for maker, found in FeatureCache(cache, writes=False).makers().items():
        print(f"encoder {maker}: {found.entries:,} vectors, {found.bytes:,} bytes")


@main.command(epilog="Example: memofast cache verify features --remove")
def verify(
    cache: Cache,
    remove: Annotated[bool, typer.Option("--remove", help="take damaged ones out, so that they are made anew")] = False,
) -> None:
    """Compare every vector with its check sum."""
    from memofast.errors import MemofastError
    from memofast.store.feature_cache import FeatureCache

    opened = FeatureCache(cache, writes=remove, new=False)
    damaged = opened.damaged()
    if damaged and not remove:
        raise MemofastError(
            f"{cache}: {len(damaged):,} of {len(opened):,} vectors are damaged; remove them by --remove"
        )
    if damaged:
        opened.remove(damaged)
        print(f"removed {len(damaged):,} damaged vectors")
    print(f"{len(opened):,} vectors are whole")


@main.command(epilog="Example: memofast cache prune features --to 2G")
def prune(
    cache: Cache,
    to: Annotated[str, typer.Option(metavar="SIZE", help="bytes of numbers that may stay, as 500M or 2G")],
) -> None:
    """Remove the oldest vectors until the rest takes no more than a size, while no other process has the cache open."""
    from memofast.store.feature_cache import FeatureCache

    most = _bytes(to)
    print(f"removed {FeatureCache(cache, new=False).prune(most):,} vectors")


def _bytes(given: str) -> int:
    from memofast.errors import MemofastError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", given.strip().lower())
    if not found:
        raise MemofastError(f"--to {given}: no size; write bytes, or a number with k, M, G or T, as 2G")
    return int(float(found[1]) * _UNITS[found[2]])


if __name__ == "__main__":
    run(main, "memofast cache")
