"""The recipe: everything a run needs, one pydantic model read from YAML with dotted overrides."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from memofast.errors import MemofastError

DEMO = "demo"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CorpusEntry(Section):
    """path: corpus folder, `demo` for the embedded synthetic one (write `./demo` for a folder of that name).

    weight: how often the corpus is drawn, relative to the others. objectives: names of those it serves; None: all it can.
    """

    path: str
    weight: float = Field(1.0, gt=0)
    objectives: list[str] | None = None


class Rows(Section):
    """Row counts by modality; None: no limit."""

    text: int | None = Field(None, gt=0)
    visual: int | None = Field(None, gt=0)
    speech: int | None = Field(None, gt=0)


class Model(Section):
    """Entries of `MemoBertConfig`; None: its default, the checkpoint's value, or for feature widths the corpora's.

    init: folder of a BERT or memofast checkpoint, or a state dict of the original MEmoBERT; None: random weights.
    """

    init: str | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    hidden_dropout_prob: float | None = Field(None, ge=0, lt=1)
    attention_probs_dropout_prob: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int | None = None
    visual_width: int | None = None
    speech_width: int | None = None
    visual_positions: int | None = None
    speech_positions: int | None = None
    visual_classes: int | None = None
    mask_token_id: int | None = None

    def entries(self) -> dict[str, Any]:
        """What the recipe says about `MemoBertConfig`."""
        return self.model_dump(exclude_none=True, exclude={"init"})


class Train(Section):
    """samples, rows: most samples and rows of a micro-batch. longest: longer samples are left out. accumulate: micro-batches per
    update and process. mixing: one objective and corpus per update, or an objective per sample. clip: largest global gradient norm.
    precision `auto`: bf16 autocast on GPUs and on CPUs with bf16 matrix instructions, else fp32. graphs: replay the step from CUDA
    graphs on a GPU. compile: pass the model through torch.compile first. threads: of the CPU; None: torch's default. log_every, save_every: in updates."""

    samples: int = Field(32, gt=0)
    rows: Rows = Rows()
    longest: Rows = Rows()
    accumulate: int = Field(1, gt=0)
    mixing: Literal["update", "sample"] = "update"
    updates: int = Field(1000, gt=0)
    lr: float = Field(5e-5, gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["linear", "constant"] = "linear"
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(1e-6, gt=0)
    clip: float = Field(5.0, gt=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    graphs: bool = True
    compile: bool = False
    threads: int | None = Field(None, gt=0)
    seed: int = Field(1234, ge=0)
    log_every: int = Field(20, gt=0)
    save_every: int = Field(500, gt=0)


class Validate(Section):
    """split: what chooses the checkpoint, never test data. every: in updates. samples: most per corpus, from the split's beginning."""

    split: str = "validation"
    every: int = Field(500, gt=0)
    samples: int | None = Field(None, gt=0)
    longest: Rows = Rows()

    @field_validator("split")
    @classmethod
    def _not_test(cls, split: str) -> str:
        if split.lower().startswith(("test", "tst")):
            raise ValueError(f"{split!r} is test data, which must not choose a checkpoint; name a validation split")
        return split


class Recipe(Section):
    """objectives: by name the options of `memofast.objectives.build` and `share`, its weight among the objectives (default 1)."""

    corpora: list[CorpusEntry] = []
    model: Model = Model()
    objectives: dict[str, dict[str, Any] | None] = {}
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

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False)


def shipped() -> list[str]:
    """Names of the recipes that come with memofast."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def read(name: str, overrides: list[str] = ()) -> Recipe:
    """Read a recipe.

    Args: name: a shipped recipe or the path of a YAML file; overrides: `dotted.key=value`, the value in YAML; `corpora.0.path=FOLDER`
        reaches into a list, one past its end appends.
    Raises: `MemofastError` for a missing or invalid recipe, an unknown key (naming the nearest), a value of the wrong kind.
    """
    text, source = _text(name)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise MemofastError(
            f"{source}{line}: not valid YAML ({getattr(error, 'problem', error)}); correct it"
        ) from None
    if not isinstance(values, dict):
        raise MemofastError(f"{source}: a recipe is a YAML mapping with corpora, model, objectives, train, validate")
    for override in overrides:
        _apply(values, override)
    return _checked(values, source)


def _folder():
    return resources.files("memofast.recipes")


def _text(name: str) -> tuple[str, str]:
    if name in shipped():
        return (_folder() / f"{name}.yaml").read_text(), f"recipe {name}"
    try:
        return Path(name).read_text(), name
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(name, shipped(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"give a YAML file or one of {', '.join(shipped())}"
        reason = getattr(error, "strerror", None) or "not a text file"
        raise MemofastError(f"recipe {name}: {reason}; {hint}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise MemofastError(f"{override!r} is no override; write key=value, such as train.lr=3e-5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise MemofastError(f"{override!r}: the value is not valid YAML; quote it") from None
    *parents, last = path.split(".")
    place: Any = values
    for depth, name in enumerate(parents):
        following = [] if [*parents, last][depth + 1].isdigit() else {}
        place = _enter(place, name, override, following)
    if isinstance(place, list):
        _enter(place, last, override, None)
        place[int(last)] = value
    else:
        place[last] = value


def _enter(place: Any, name: str, override: str, empty: Any) -> Any:
    """The entry `name` of a mapping or list, made where it is missing (in a list: only one past the end)."""
    if isinstance(place, list):
        if not name.isdigit() or int(name) > len(place):
            raise MemofastError(f"{override!r}: {name} is no place in a list of {len(place)}; count from 0")
        if int(name) == len(place):
            place.append(empty)
        return place[int(name)]
    if place.get(name) is None:
        place[name] = empty
    if not isinstance(place[name], (dict, list)):
        raise MemofastError(f"{override!r}: {name} is a value and has no entries")
    return place[name]


def _checked(values: dict[str, Any], source: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(values)
        shares = [float((options or {}).get("share", 1)) for options in recipe.objectives.values()]
    except ValidationError as error:
        raise MemofastError(_first_problem(error, source)) from None
    except (TypeError, ValueError):
        raise MemofastError(f"{source}: an objective's share must be a number, such as share: 2") from None
    if not recipe.objectives:
        raise MemofastError(f"{source}: names no objective; add one, such as objectives.whole_word_mlm.share=1")
    if min(shares) <= 0:
        raise MemofastError(f"{source}: an objective's share must be positive; leave out objectives not wanted")
    if not recipe.corpora:
        raise MemofastError(f"{source}: names no corpus; add corpora.0.path=FOLDER (memofast prepare makes one)")
    for entry in recipe.corpora:
        for name in entry.objectives or ():
            if name not in recipe.objectives:
                raise MemofastError(
                    f"{source}: corpus {entry.path} asks for objective {name!r}{_nearest(name, recipe.objectives)}"
                )
    return recipe


def _first_problem(error: ValidationError, source: str) -> str:
    problem = error.errors()[0]
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        reason = problem["msg"].removeprefix("Value error, ")
        return f"{source}: {path}: {reason[0].lower()}{reason[1:]}, got {problem['input']!r}"
    *parents, wrong = problem["loc"]
    known = _keys(Recipe, parents)
    prefix = "".join(f"{part}." for part in parents)
    return f"{source}: unknown key {path}{_nearest(wrong, known, prefix)}"


def _keys(section: type[BaseModel], path: list[str | int]) -> list[str]:
    """Keys of the section that a path of keys leads to."""
    for name in path:
        if isinstance(name, str):
            found = {(f.alias or key): f.annotation for key, f in section.model_fields.items()}[name]
            section = getattr(found, "__args__", (found,))[0]
    return [f.alias or key for key, f in section.model_fields.items()]


def _nearest(word: str, known, prefix: str = "") -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(prefix + key for key in known)}"
