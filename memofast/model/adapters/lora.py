"""The adapters of one encoder: put on its linear maps, read and written as peft writes them, and merged."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from memofast.errors import MemofastError, MemofastWarning, nearest
from memofast.files import read_json
from memofast.model.adapters.base import Base
from memofast.model.adapters.dropout import AdapterDropout, Draws
from memofast.model.adapters.section import LoraSection
from memofast.model.weights import ADAPTER_CONFIG, first_of
from memofast.sections import checked, shown

if TYPE_CHECKING:
    from peft import LoraConfig, LoraModel
    from transformers import PreTrainedModel

ADAPTER_WEIGHTS = "adapter_model.safetensors"  # as peft names it
_PREFIX = "base_model.model."  # of names in that file
_ADAPTER = "default"
_ALL = "all-linear"
# modules of transformers that give weights of their maps to a function of torch, past whatever adapts them
_READS_WEIGHTS = {"WavLMAttention"}
# of an adapter_config.json, what says nothing of the adapters themselves
_NOT_OF_ADAPTERS = {
    "task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Lora:
    """The adapters of an encoder, which is changed in place. maps: names of those adapted. own: names of the encoder's
    tensors that no base has, which are none of the adapters'. dtype: in which a finished model keeps them."""

    encoder: nn.Module
    tuner: LoraModel
    config: LoraConfig
    maps: tuple[str, ...]
    own: frozenset[str]
    base: Base
    dtype: torch.dtype

    def tensors(self) -> dict[str, Tensor]:
        """What is the adapters', under the names of peft's files."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self.encoder, adapter_name=_ADAPTER, save_embedding_layers=False)
        return {_PREFIX + name: tensor for name, tensor in found.items() if name not in self.own}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Bring the adapters to such tensors, which have been looked at."""
        from peft import set_peft_model_state_dict

        named = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        set_peft_model_state_dict(self.encoder, named, adapter_name=_ADAPTER)

    def write_config(self, folder: Path) -> None:
        """What peft and `read_section` need to know beside the tensors."""
        self.config.inference_mode = True  # as peft says it of what is saved
        self.config.save_pretrained(folder)
        self.config.inference_mode = False
        self.base.write(folder)

    def merge(self) -> None:
        """Add the adapters to the weights of the maps, which are plain ones again."""
        self.tuner.merge_and_unload(safe_merge=True)
        vars(self.encoder).pop("peft_config", None)  # which some versions leave behind

    def told(self) -> str:
        """A line: what is adapted, and how."""
        config, ends = self.config, dict.fromkeys(name.rpartition(".")[2] for name in self.maps)
        how = f"r {config.r}, lora_alpha {config.lora_alpha}, lora_dropout {config.lora_dropout:g}, bias {config.bias}"
        patterns = [f"{n} {getattr(config, n)}" for n in ("rank_pattern", "alpha_pattern") if getattr(config, n)]
        flags = [name for name in ("use_rslora", "use_dora", "lora_bias") if getattr(config, name)]
        how = ", ".join([how, *patterns, *flags])
        return f"LoRA on {len(self.maps)} maps ({', '.join(ends)}) of {self.base.path}: {how}"


def adapted(
    encoder: nn.Module,
    section: LoraSection,
    maps: Mapping[str, nn.Linear],
    own: Collection[str],
    base: Base,
    where: str,
    draws: Draws | None = None,
) -> Lora:
    """Put adapters on an encoder's maps; of its parameters they alone are trained from now on, and those of `own`.

    Args: maps: by name in the encoder, those that may be adapted: that are called, or asked whether they are plain.
        own: as of `Lora`. where: the section's place in a recipe, for messages. draws: what dropout draws by, to be
        told before every pass in training; None: by torch's generator, as peft has it, for encoders that all draw so.
    Raises: `MemofastError` where peft is not installed, for targets that match none of the maps, or something else, and
        for what peft refuses.
    """
    trained = [p for name, p in encoder.named_parameters() if name in own and p.requires_grad]
    _need_peft(where)
    from peft import LoraConfig, LoraModel

    options = section.options() | {"base_model_name_or_path": base.path}
    if section.target_modules == _ALL:
        options["target_modules"] = list(maps)
    try:
        config = LoraConfig(**options)
        chosen = _chosen(config, encoder, maps, where)
        with warnings.catch_warnings(record=True) as told:
            tuner = LoraModel(encoder, config, _ADAPTER)
    except MemofastError:
        raise
    except (ValueError, TypeError, KeyError, re.error) as error:  # each of them of an option
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MemofastError(f"{where}: peft refuses it ({reason}); change or leave out what it names") from None
    for one in told:
        if one.category in (UserWarning, RuntimeWarning):
            warnings.warn(f"{where}: peft says: {str(one.message).splitlines()[0]}", MemofastWarning, stacklevel=2)
    for parameter in trained:
        parameter.requires_grad_(True)
    numbers = {name: number for number, name in enumerate(maps)}
    for name in chosen:
        adapter = encoder.get_submodule(name)
        if config.lora_dropout and draws is not None:
            adapter.lora_dropout[_ADAPTER] = AdapterDropout(config.lora_dropout, numbers[name], draws)
    return Lora(encoder, tuner, config, chosen, frozenset(own), base, getattr(torch, section.dtype))


def _need_peft(what: str) -> None:
    try:
        import peft  # noqa: F401
    except ImportError:
        raise MemofastError(f'{what} needs peft, which is not installed: pip install "memofast[lora]"') from None


def linear_maps(encoder: PreTrainedModel) -> dict[str, nn.Linear]:
    """The maps of an encoder of transformers that it calls, by name."""
    read = [name for name, module in encoder.named_modules() if type(module).__name__ in _READS_WEIGHTS]
    return {
        name: module
        for name, module in encoder.named_modules()
        if type(module) is nn.Linear and name.rpartition(".")[0] not in read
    }


def _chosen(config: LoraConfig, encoder: nn.Module, maps: Mapping[str, nn.Linear], where: str) -> tuple[str, ...]:
    """The names of the maps that a configuration means."""
    from peft.tuners.tuners_utils import check_target_module_exists

    place, ends = f"{where}.target_modules", list(dict.fromkeys(name.rpartition(".")[2] for name in maps))
    found = [name for name, _ in encoder.named_modules() if name and check_target_module_exists(config, name)]
    targets = config.target_modules if isinstance(config.target_modules, set) else ()
    modules = [name for name, _ in encoder.named_modules()]
    for target in sorted(targets):
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            raise MemofastError(f"{place}: {shown(target)} is no module of the encoder{nearest(target, ends)}")
    if others := [name for name in found if name not in maps]:
        raise MemofastError(
            f"{place}: means {first_of(others)}, of which no adapter would take part; there are {', '.join(ends)}"
        )
    if not found:
        raise MemofastError(
            f"{place}: matches none of the {len(maps)} maps, with what is excluded and the layers chosen; there are "
            f"{', '.join(ends)}"
        )
    _check_patterns(config, found, encoder, where)
    ranks, most = [config.r, *config.rank_pattern.values()], max(min(maps[name].weight.shape) for name in found)
    if max(ranks) > most:
        raise MemofastError(f"{where}: rank {max(ranks)} is more than the {most} of what is adapted; give a lower r")
    return tuple(found)


def _check_patterns(config: LoraConfig, found: Sequence[str], encoder: nn.Module, where: str) -> None:
    """Raises: `MemofastError` for what says something of no map."""
    from peft.tuners.tuners_utils import check_target_module_exists

    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in found))
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field):
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in found):  # as peft matches
                raise MemofastError(
                    f"{where}.{field}: {shown(pattern)} matches nothing adapted{nearest(pattern, ends)}"
                )
    if config.exclude_modules:
        whole = copy(config)
        whole.exclude_modules = None
        every = [name for name, _ in encoder.named_modules() if name and check_target_module_exists(whole, name)]
        if len(every) == len(found):
            raise MemofastError(f"{where}.exclude_modules: {shown(config.exclude_modules)} leaves nothing out")


def read_section(folder: Path) -> LoraSection:
    """What the adapters in a folder are. Raises: `MemofastError` where peft says of them what was not trained here, or
    is not installed."""
    _need_peft(str(folder))
    from peft import LoraConfig

    path = folder / ADAPTER_CONFIG
    try:
        found = read_json(path)
    except (OSError, ValueError):
        raise MemofastError(f"{path}: not valid JSON; restore it") from None
    if not isinstance(found, dict):
        raise MemofastError(f"{path}: no mapping of entries; restore it")
    known, default = LoraSection.model_fields.keys() - {"dtype"}, LoraConfig().to_dict()
    for name, value in found.items():
        if name not in known | _NOT_OF_ADAPTERS and value not in (None, default.get(name)):
            raise MemofastError(f"{path}: {name} is {shown(value)}, which memofast has no adapters of; give others")
    asked = {name: value for name, value in found.items() if name in known and value not in (None, {})}
    return checked(asked, str(path), LoraSection)
