"""The recipe: everything a run needs, one pydantic model read from YAML with dotted overrides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from memofast.errors import MemofastError, nearest
from memofast.model.families import PreTrainingSection
from memofast.model.memobert.section import MemoBertSection
from memofast.objectives.build import KINDS
from memofast.sections import FilePath, Section, checked, shown
from memofast.train.recipe_file import fragments, read_values, shipped
from memofast.train.tracking import Track
from memofast.train.weights import Keeping

# bounds that no run comes near, so that what lies beyond is a mistake, told before anything is allocated for it
SHARES = (1e-4, 1e4)  # of objectives and corpora, relative to each other
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Updates = Annotated[int, Field(gt=0, le=10**9)]
Weight = Annotated[float, Field(ge=SHARES[0], le=SHARES[1])]
Beta = Annotated[float, Field(ge=0, lt=1)]
Schedule = Literal["linear", "constant", "cosine"]
RowCount = Annotated[int, Field(gt=0, le=2**28)]


class CorpusEntry(Section):
    """path: corpus folder, `demo` for the embedded synthetic one (write `./demo` for a folder of that name).

    weight: how often the corpus is drawn, relative to the others. objectives: names of those it serves; None: all it
    can. features: modality -> stream of the corpus whose rows are read as that modality's, in place of its store.
    """

    path: FilePath = Field(min_length=1)
    weight: Weight = 1.0
    objectives: list[str] | None = Field(None, min_length=1)
    features: dict[Literal["visual", "speech"], str] = Field({})


class Rows(Section):
    """Row counts by modality; None: no limit."""

    text: RowCount | None = None
    visual: RowCount | None = None
    speech: RowCount | None = None


class Group(Section):
    """Parameters that are trained otherwise. lr: what the learning rate is multiplied with; weight_decay: None: that of
    all; biases, norms and parameters of objectives have none. warmup: updates over which its rate rises; None: those of
    all. clip: whether its gradients count in the norm that is clipped, and are clipped."""

    lr: float = Field(1.0, ge=0, le=1e4)
    weight_decay: float | None = Field(None, ge=0, le=1e4)
    warmup: int | None = Field(None, ge=0, le=10**9)
    clip: bool = True


class Training(Section):
    """What every training has. samples: most samples of a micro-batch. accumulate: micro-batches per update and
    process. clip: largest global gradient norm. groups: by pattern of parameter names, as `memobert.embeddings.*`, what
    is otherwise for them; the first that fits counts.
    precision `auto`: bf16 autocast on GPUs and on CPUs with bf16 matrix instructions, else fp32. graphs: replay the
    step from CUDA graphs on a GPU.
    compile: pass the model through torch.compile first. threads: of the CPU; None: torch's default. loader_threads:
    that pack and mask ahead; None: one, with a GPU up to four. track: a further place for curves. frozen_weights: how
    checkpoints hold what does not learn, see `FrozenWeights`."""

    samples: int = Field(32, gt=0, le=2**16)
    accumulate: int = Field(1, gt=0, le=1024)
    lr: float = Field(5e-5, gt=0, le=1e4)
    weight_decay: float = Field(0.01, ge=0, le=1e4)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    eps: float = Field(1e-6, gt=0, le=1)
    clip: float = Field(5.0, gt=0, le=1e9)
    groups: dict[str, Group] = Field({})
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    graphs: bool = True
    compile: bool = False
    threads: int | None = Field(None, gt=0, le=1024)
    loader_threads: int | None = Field(None, gt=0, le=256)
    track: Track | None = None
    frozen_weights: Keeping = "hard"

    @field_validator("groups")
    @classmethod
    def _last_changes_something(cls, groups: dict[str, Group]) -> dict[str, Group]:
        if groups and [*groups.values()][-1] == Group():  # an earlier one takes its parameters from those after it
            pattern = [*groups][-1]
            raise ValueError(
                f"{pattern} names nothing that is otherwise; give lr, weight_decay, warmup or clip, or leave it out"
            )
        return groups


class Train(Training):
    """rows: most rows of a micro-batch; None: enough for all but one batch in 250, which ends a few samples early.
    longest: longer samples are left out.
    mixing: one objective and corpus per update, or an objective per sample. log_every, save_every: in updates."""

    rows: Rows = Rows()
    longest: Rows = Rows()
    mixing: Literal["update", "sample"] = "update"
    updates: Updates = 1000
    warmup: int = Field(0, ge=0, le=10**9)
    schedule: Schedule = "linear"
    seed: Seed = 1234
    log_every: Updates = 20
    save_every: Updates = 500


class Validate(Section):
    """split: what chooses the checkpoint, never test data. every: in updates. samples: most per corpus, from the
    split's beginning."""

    split: str = "validation"
    every: Updates = 500
    samples: int | None = Field(None, gt=0, le=10**9)
    longest: Rows = Rows()

    @field_validator("split")
    @classmethod
    def _not_test(cls, split: str) -> str:
        if split.lower().startswith(("test", "tst")):
            raise ValueError(f"{split!r} is test data, which must not choose a checkpoint; name a validation split")
        return split


class Recipe(Section):
    """objectives: by name the options of `memofast.objectives.build` and `share`, its weight among the objectives
    (default 1); with share 0, as a fragment may say of what its base has, the objective is left out. each: by kind,
    options of all objectives of that kind, whatever their names; `read` brings them there."""

    corpora: list[CorpusEntry] = Field([])
    model: PreTrainingSection = MemoBertSection()
    objectives: dict[str, dict[str, Any] | None] = Field({})
    each: dict[str, dict[str, Any]] = Field({}, exclude=True)
    train: Train = Train()
    validate_: Validate = Field(Validate(), alias="validate")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    @property
    def shares(self) -> dict[str, float]:
        """Weight of each objective; they sum to one."""
        given = {name: float((options or {}).get("share", 1)) for name, options in self.objectives.items()}
        total = sum(given.values())
        return {name: share / total for name, share in given.items()}

    @property
    def objective_options(self) -> dict[str, dict[str, Any]]:
        """The options without the shares, as `memofast.objectives.build` takes them."""
        return {
            name: {option: value for option, value in (options or {}).items() if option != "share"}
            for name, options in self.objectives.items()
        }


def read(name: str | Sequence[str], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, or several joined, see `recipe_file.read_values`.

    Raises: `MemofastError` for a missing or invalid recipe, an unknown key (naming the nearest), a value of the wrong
        kind.
    """
    values, source = read_values(name, overrides, shipped(), Recipe, fragments())
    recipe = checked(values, source, Recipe)
    given = {name: (options or {}).get("share", 1) for name, options in recipe.objectives.items()}
    for name, share in given.items():
        _check_share(share, f"{source}: objectives.{name}.share")
    left_out = [name for name, share in given.items() if not share]
    recipe.objectives = {name: of for name, of in recipe.objectives.items() if name not in left_out}
    if not recipe.objectives:
        raise MemofastError(f"{source}: names no objective; add one, such as objectives.whole_word_mlm.share=1")
    for kind, options in recipe.each.items():
        _give_each(kind, options, recipe.objectives, f"{source}: each.{kind}")
    recipe.each = {}
    if not recipe.corpora:
        raise MemofastError(f"{source}: names no corpus; add corpora.0.path=FOLDER (memofast prepare makes one)")
    for entry in recipe.corpora:
        for name in entry.objectives or ():
            if name in left_out:
                raise MemofastError(
                    f"{source}: corpus {entry.path} asks for objective {name}, whose share is 0; take it out of the "
                    "corpus's objectives, or give it a share"
                )
            if name not in recipe.objectives:
                raise MemofastError(
                    f"{source}: corpus {entry.path} asks for objective {name!r}{nearest(name, recipe.objectives)}"
                )
    return recipe


def _check_share(share: Any, where: str) -> None:
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise MemofastError(f"{where}: the share must be a number, such as 2, got {shown(share)}")
    if share and not SHARES[0] <= share <= SHARES[1]:
        raise MemofastError(
            f"{where}: the share must be positive, from {SHARES[0]:g} to {SHARES[1]:g}, got {shown(share)}; 0 leaves "
            "the objective out"
        )


def _give_each(kind: str, options: dict[str, Any], objectives: dict[str, dict[str, Any] | None], where: str) -> None:
    """Give options to all objectives of a kind. Raises: `MemofastError` where there is none, or one says otherwise."""
    if kind not in KINDS:
        raise MemofastError(f"{where}: unknown objective {shown(kind)}{nearest(kind, KINDS)}")
    if own := {"share", "kind"} & options.keys():
        raise MemofastError(f"{where}.{min(own)}: is of one objective; write objectives.NAME.{min(own)}")
    given = {name: of or {} for name, of in objectives.items() if (of or {}).get("kind", name) == kind}
    if not given:
        raise MemofastError(f"{where}: the recipe has no objective of this kind; leave it out")
    for name, of in given.items():
        for option in options.keys() & of.keys():
            if of[option] != options[option]:
                raise MemofastError(
                    f"{where}.{option} is {shown(options[option])}, objectives.{name}.{option} is {shown(of[option])}; "
                    "leave one of them out"
                )
        objectives[name] = of | options
