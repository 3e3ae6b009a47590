"""transformers models from local folders: loaded whole or refused. Nothing is downloaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.model.folder import refuse_untrusted
from memofast.prepare.fingerprint import fingerprint

_NEVER_READ = ("masked_spec_embed", "mask_token")  # weights that only pre-training of the model itself reads


@dataclass(frozen=True)
class Pretrained:
    """A model in fp32, for inference. absent: names of weights that its checkpoint lacks and that its rows may not
    depend on."""

    model: Any
    absent: frozenset[str]

    def fingerprint(self, settings: dict[str, Any]) -> str:
        """See `fingerprint`; weights that the checkpoint lacks are left out, for they are random."""
        weights = self.model.state_dict()
        return fingerprint({name: weights[name] for name in weights.keys() - self.absent}, settings)


def read_config(folder: Path, purpose: str) -> Any:
    """The configuration of the model in `folder`; raises MemofastError where there is none, naming `purpose`, and as
    `refuse_untrusted`."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise MemofastError(f"no model at {folder}; {purpose} needs a local folder with config.json and weights")
    refuse_untrusted(folder)
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise MemofastError(
            f"{folder / 'config.json'} is not readable ({_first_line(error)}); fetch it again"
        ) from error


def load_pretrained(automatic: type, folder: Path) -> Pretrained:
    """The model of `folder` as the class `automatic` (such as `AutoModel`) builds it.

    Raises: MemofastError where weights are missing (transformers would draw them at random) or unreadable. A missing
    pooler is let pass: see `Pretrained.absent`. Also as `refuse_untrusted`.
    """
    from transformers.utils import logging

    refuse_untrusted(folder)
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # missing weights are told below, in one line
    logging.disable_progress_bar()
    try:
        model, info = automatic.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise MemofastError(f"the model at {folder} does not load ({_first_line(error)}); fetch it again") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    absent = frozenset(info["missing_keys"])
    needed = sorted(name for name in absent if "pooler" not in name and not name.endswith(_NEVER_READ))
    if needed or info["mismatched_keys"]:
        what = f"{len(needed)} weights are missing, as {needed[0]}" if needed else "some weights have another shape"
        raise MemofastError(
            f"the weights at {folder} do not fit its config.json: {what}; give the folder of a whole model"
        )
    return Pretrained(model.eval(), absent)


def preprocessing(folder: Path, part: str) -> dict[str, Any]:
    """What a model's folder says of its input: `preprocessor_config.json`, or `part` of `processor_config.json`; empty
    where neither is there."""
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", part)):
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings = read_json(path)
            settings = settings.get(key) if key else settings
        except (ValueError, AttributeError) as error:
            raise MemofastError(f"{path} is not readable ({error}); fetch it again") from error
        if isinstance(settings, dict):
            return settings
    return {}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
