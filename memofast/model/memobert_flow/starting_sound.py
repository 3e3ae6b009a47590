"""A network of speech at the beginning of a training: what it is, and the weights and statistics it begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from memofast.data import Corpus, Split
from memofast.errors import MemofastError
from memofast.files import read_json
from memofast.model.folder import load_whole
from memofast.model.memobert_flow.folder_config import read_wav2vec2
from memofast.model.memobert_flow.models import MemoBertFlowModel
from memofast.model.memobert_flow.section import SoundSection
from memofast.model.memobert_flow.sound_networks import HEARS_SOUND, sound_network, stored_width
from memofast.model.weights import stored_weights

_PREPROCESSOR = "preprocessor_config.json"
_SETTLED = 2048  # stored rows whose statistics a network begins with
_PREPARE = {"compare": "--speech compare,stack=8"} | dict.fromkeys(HEARS_SOUND, "--speech raw")


def sound_entries(
    section: SoundSection | None, before: Mapping[str, Any] | None, corpora: Sequence[Corpus]
) -> dict[str, Any] | None:
    """`MemoBertFlowConfig.sound` for corpora that are read together; None where rows come ready.

    Args: before: of the checkpoint to start from.
    Raises: `MemofastError` where sound meets no network, or a network none, and for what the section says beside a
        checkpoint that says otherwise.
    """
    having = [corpus for corpus in corpora if corpus.width("speech")]
    raw = [corpus for corpus in having if "speech" in corpus.raw]
    network = (section and section.network) or (before or {}).get("network")
    if network is None:
        if raw:
            raise MemofastError(
                f"corpus {raw[0].path} has raw sound, of which something must make rows; add "
                "model.sound.network=wav2vec2 (or waveform), or prepare rows"
            )
        return None
    if before and network != before["network"]:
        raise MemofastError(
            f"model.sound.network is {network}, that of model.init {before['network']}; leave it out, or start from "
            "another checkpoint"
        )
    if section and section.init and (before or network != "wav2vec2"):
        reason = "model.init has a network of its own" if before else f"{network} begins with random weights"
        raise MemofastError(f"model.sound.init: {reason}; leave it out")
    found = dict(before) if before else _described(network, section)
    for corpus in having:
        if ("speech" in corpus.raw) != (network in HEARS_SOUND) or corpus.width("speech") != stored_width(found):
            what = "samples" if "speech" in corpus.raw else "values"
            raise MemofastError(
                f"model.sound.network {network} reads rows of {stored_width(found)}, as prepare {_PREPARE[network]} "
                f"keeps them; those of speech of corpus {corpus.path} have {corpus.width('speech')} {what}"
            )
    return found


def _described(network: str, section: SoundSection) -> dict[str, Any]:
    if network != "wav2vec2":
        return {"network": network}
    if not section.init:
        raise MemofastError("model.sound.network wav2vec2 begins with a trained one; add model.sound.init=FOLDER")
    folder = Path(section.init)
    found = {"network": network, "settings": read_wav2vec2(folder), "normalise": _normalises(folder)}
    with torch.device("meta"):
        wanted = sum(weight.numel() for weight in sound_network(found).parameters())
    if (stored := sum(prod(weight.shape) for weight in stored_weights(folder).values())) < wanted:
        raise MemofastError(  # before memory is taken for them
            f"model.sound.init: the weights of {folder} are {stored:,} numbers, its config.json is of {wanted:,}; give "
            "the folder of a whole model"
        )
    return found


def says_whether_to_normalise(folder: Path) -> bool:
    return (folder / _PREPROCESSOR).is_file()


def _normalises(folder: Path) -> bool:
    """Whether a wav2vec 2.0 was trained on clips of mean 0 and variance 1; yes where its folder does not say, as in
    transformers."""
    path = folder / _PREPROCESSOR
    if not says_whether_to_normalise(folder):
        return True
    try:
        found = read_json(path)
    except (OSError, ValueError):
        raise MemofastError(f"{path}: not valid JSON; fetch it again") from None
    given = found.get("do_normalize", True) if isinstance(found, dict) else None
    if not isinstance(given, bool):
        raise MemofastError(f"{path}: does not say by true or false whether to do_normalize; fetch it again")
    return given


def begin_sound(encoder: MemoBertFlowModel, section: SoundSection | None, splits: Sequence[Split]) -> None:
    """Give a network that no checkpoint had its first weights and statistics, and suit the projection behind it to its
    rows.

    Args: splits: of training data; the first that has speech is looked at.
    """
    own, split = encoder.embeddings.speech, next(split for split in splits if split.lengths[:, 2].any())
    having = np.flatnonzero(split.lengths[:, 2])
    clips = min(len(having), ceil(_SETTLED / split.lengths[having, 2].mean()))
    batch = split.pack(having[np.linspace(0, len(having) - 1, clips).round().astype(np.int64)])
    if section is not None and section.init:
        own.network.body.load_state_dict(_wav2vec2_weights(Path(section.init)))
    else:
        own.network.settle(batch.speech)
    training = own.network.training
    own.network.eval()
    with torch.no_grad():
        rows = own.network(batch.speech, batch.speech_offsets, batch.sample_keys, None).double()
    own.standardise(rows.mean(0).float(), rows.std(0, correction=0).float())
    own.network.train(training)


def _wav2vec2_weights(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import Wav2Vec2Model

    def load(trust_remote_code: bool = False, **options: Any) -> Any:  # never; see load_whole
        return Wav2Vec2Model.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, **options
        )

    model, _ = load_whole(load, folder, "masked_spec_embed$")
    return {name: weight for name, weight in model.state_dict().items() if name != "masked_spec_embed"}
