"""Folders that hold models: where in a run they lie, and of which architecture they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from memofast.errors import MemofastError
from memofast.files import NestedTooDeeply, read_json, refuse_bomb, refuse_pointer
from memofast.sections import checked

T = TypeVar("T")
_OF_TORCH = {".bin", ".pt", ".pth"}
_POINTERS_UP_TO = 1024  # bytes of a Git LFS pointer


def refuse_untrusted(folder: Path) -> None:
    """Look at a model's folder before any library does.

    Raises: `MemofastError` where a configuration names Python code to run (`auto_map`), or is nested too deeply to be
    read, or a file is a Git LFS pointer, or weights unpack to more than they have.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.is_file():
            continue
        if path.stat().st_size <= _POINTERS_UP_TO:
            refuse_pointer(path)
        if path.suffix in _OF_TORCH:
            refuse_bomb(path)
        if path.name.endswith("config.json"):
            try:
                contents = read_json(path)
            except NestedTooDeeply:
                raise MemofastError(f"{path}: nested too deeply for a configuration; fetch it again") from None
            except (OSError, ValueError):
                continue  # who reads it says so
            if _names_code(contents):
                raise MemofastError(
                    f"{path} names Python code of its own to run (auto_map), which memofast never does; give a model "
                    "of an architecture that transformers knows"
                )


def _names_code(contents: Any) -> bool:
    waiting = [contents]
    while waiting:
        at = waiting.pop()
        if isinstance(at, dict) and at.get("auto_map"):
            return True
        waiting += at.values() if isinstance(at, dict) else at if isinstance(at, list) else ()
    return False


def model_folder(folder: Path) -> Path:
    """The folder of the model itself, given that or the folder of the run that made it: of a pre-training the best
    checkpoint."""
    if (folder / "model" / "config.json").is_file():
        return folder / "model"
    steps = sorted(step for step in folder.glob("checkpoints/step-*") if step.name[5:].isdecimal())
    if (folder / "config.json").is_file() or not steps:
        return folder
    try:
        best = read_json(steps[-1] / "trainer.json")["best"]
    except (OSError, ValueError, KeyError, TypeError):
        return steps[-1]
    return next((step for step in steps if int(step.name[5:]) == best), steps[-1])


def model_type(folder: Path) -> str | None:
    """The `model_type` in a model folder's `config.json`, None where it names none.

    Raises: `MemofastError` where the folder or the file is missing, or the file is not JSON, and as
        `refuse_untrusted`.
    """
    if not folder.is_dir():
        raise MemofastError(f"{folder}: no such checkpoint folder; give the folder that holds config.json")
    refuse_untrusted(folder)
    try:
        found = read_json(folder / "config.json")
    except FileNotFoundError:
        remedy = "give the folder that save_pretrained wrote"
        if (folder / "config.yaml").is_file():
            remedy = f"it is a run without a model as yet: go on with it by --resume {folder}"
        raise MemofastError(f"{folder}: no config.json; {remedy}") from None
    except ValueError:
        raise MemofastError(
            f"{folder / 'config.json'}: not valid JSON; restore it or give another checkpoint"
        ) from None
    return found.get("model_type") if isinstance(found, dict) else None


FloatingType = Literal["float64", "float32", "bfloat16", "float16"]


class ConfigFile(BaseModel):
    """Entries of a `config.json` that are read; a folder may hold others. A wrong kind, as "768" for 768, is a
    mistake."""

    model_config = ConfigDict(strict=True, extra="ignore")

    dtype: FloatingType | None = None
    torch_dtype: FloatingType | None = None  # what older folders call it


def read_checked(folder: Path, kinds: Mapping[str, type[ConfigFile]]) -> dict[str, Any]:
    """The `config.json` of a folder, `{}` where there is none; a `model_type` that is not among `kinds` is unchecked.

    Raises: `MemofastError` where it is no JSON, or an entry is of a wrong kind or out of bounds, and as
        `refuse_untrusted`.
    """
    refuse_untrusted(folder)
    path = folder / "config.json"
    try:
        found = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError):
        raise MemofastError(f"{path}: not valid JSON; restore it or give another checkpoint") from None
    if not isinstance(found, dict):
        raise MemofastError(f"{path}: no mapping of entries; restore it or give another checkpoint")
    if isinstance(kind := found.get("model_type"), str) and kind in kinds:
        try:
            checked(found, str(path), kinds[kind])
        except MemofastError as error:
            raise MemofastError(f"{error}; restore it or give another checkpoint") from None
    return found


def in_one_line(folder: Path | str, load: Callable[[], T]) -> T:
    """What `load` makes of a folder. Raises: `MemofastError` for all that goes wrong in it."""
    try:
        return load()
    except MemofastError:
        raise
    except Exception as error:  # a damaged folder has as many kinds of error as libraries that read it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MemofastError(f"{folder}: the model does not load ({reason}); give the folder of a whole model") from None


def load_whole(
    load: Callable[..., tuple[Any, dict]], folder: Path | str, may_begin_anew: str = "$^", may_differ: str = "$^"
) -> Any:
    """A model from its folder with every weight that it needs, and what transformers told of loading it.

    Args: load: `from_pretrained` of a transformers class, bound to what it is given but for what it shall tell.
        may_begin_anew: pattern of parameters that the folder need not have; may_differ: of those that begin anew where
        they have another shape there.
    Raises: `MemofastError` where the weights are missing, damaged, of more layers, or not those of the configuration,
        and as `refuse_untrusted`.
    """
    refuse_untrusted(Path(folder))
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True, "trust_remote_code": False}
    with _quiet_transformers():
        model, found = in_one_line(folder, lambda: load(**options))
    lacking = [name for name in found["missing_keys"] if not re.match(may_begin_anew, name)]
    other = [name for name, *_ in found["mismatched_keys"] if not re.match(may_differ, name)]
    if lacking or other:
        names = sorted(lacking or other)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what = "lack" if lacking else "have another shape of"
        raise MemofastError(
            f"{folder}: its weights {what} {names[0]}{more}, unlike the configuration; give the folder of a whole model"
        )
    if beyond := _beyond(model, found.get("unexpected_keys", ())):
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        raise MemofastError(
            f"{folder}: its weights have {beyond[0]}{more}, of layers that its config.json does not count; give the "
            "folder of a whole model"
        )
    tensors = (*model.parameters(), *model.buffers()) if hasattr(model, "parameters") else ()
    for tensor in tensors:  # a file's header may be of any length
        if tensor.data_ptr() % tensor.element_size():
            tensor.data = tensor.data.clone()
    return model, found


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without its report of weights, of which we tell in one line, and bars of what is quick."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _beyond(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Weights of a file, among those that a model has no place for, that are as its own but of a layer of another
    number; those of heads, which a model may lack, are not."""
    if not hasattr(model, "state_dict"):
        return []
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = {re.sub(r"\d+", "N", name.removeprefix(prefix)) for name in model.state_dict()}
    return sorted(name for name in unexpected if re.sub(r"\d+", "N", name.removeprefix(prefix)) in own)
