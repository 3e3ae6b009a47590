"""A face network at the beginning of a training: what it is, and the weights and statistics that it begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isqrt
from typing import Any

import numpy as np
import torch

from memofast.data import Corpus, PackedBatch, Split
from memofast.errors import MemofastError
from memofast.model.face_networks.densenet import SIDES
from memofast.model.face_networks.network import PARTS, denseface_weights
from memofast.model.memobert.pre_training import MemoBertModel
from memofast.model.memobert.section import FaceSection

_MEAN, _STD = 127.5, 64.0  # of grey levels, where no DenseFace file says
_SETTLED = 512  # faces whose statistics a network begins with


def face_entries(
    section: FaceSection | None, before: Mapping[str, Any] | None, corpora: Sequence[Corpus]
) -> dict[str, Any] | None:
    """`MemoBertConfig.face` for corpora that are read together; None where rows come ready.

    Args: before: of the checkpoint to start from.
    Raises: `MemofastError` where raw faces meet no network, or a network none, for crops of different sides, and for
        what the section says beside a checkpoint or file that says otherwise.
    """
    raw = {corpus.width("visual"): corpus for corpus in corpora if "visual" in corpus.raw}
    if not raw:
        if section is None:
            if before and (ready := next((one for one in corpora if one.width("visual")), None)):
                raise MemofastError(
                    f"model.init makes rows of raw faces, corpus {ready.path} has them ready; prepare it with --face "
                    "raw, or leave its faces out"
                )
            return dict(before) if before else None
        where = ", ".join(str(corpus.path) for corpus in corpora)
        raise MemofastError(
            f"model.face: no raw faces in {where}; prepare them with --face raw, or leave model.face out"
        )
    (width, corpus), *others = raw.items()
    if others:
        raise MemofastError(
            f"raw faces are {isqrt(width)} pixels wide in corpus {corpus.path} and {isqrt(others[0][0])} in "
            f"{others[0][1].path}; prepare both alike"
        )
    if isqrt(width) ** 2 != width:
        raise MemofastError(f"raw faces of corpus {corpus.path} are {width} pixels, no square; prepare them anew")
    section = section or FaceSection()
    network = section.network or (before or {}).get("network")
    if network is None:
        raise MemofastError(
            f"corpus {corpus.path} has raw faces, of which something must make rows; add model.face.network=denseface "
            "(or resnet3d), or prepare rows"
        )
    found = dict(before or {"mean": _MEAN, "std": _STD, "frozen": 0, "augment": True, "noise": 0.0})
    if before and network != before["network"]:
        raise MemofastError(
            f"model.face.network is {network}, that of model.init {before['network']}; leave it out, or start from "
            "another checkpoint"
        )
    if before and before["crop"] != isqrt(width):
        raise MemofastError(
            f"model.init was trained on faces of {before['crop']} pixels, corpus {corpus.path} has {isqrt(width)}; "
            "prepare it alike"
        )
    if before and section.init:
        raise MemofastError("model.face.init: model.init has a face network of its own; leave one of them out")
    found |= {"network": network, "crop": isqrt(width)}
    found.setdefault("side", isqrt(width))
    if section.init:
        found |= denseface_weights(section.init, network)[1]
    found |= section.model_dump(exclude_none=True, include={"side", "frozen", "augment", "noise"})
    if found["frozen"] > PARTS[network]:
        raise MemofastError(f"model.face.frozen: {network} has {PARTS[network]} parts, not {found['frozen']}")
    if network == "denseface" and found["side"] not in SIDES:
        raise MemofastError(
            f"model.face.side: denseface sees faces of {', '.join(map(str, SIDES))} pixels, not {found['side']}; set "
            "one of them"
        )
    return found


def begin_faces(encoder: MemoBertModel, section: FaceSection | None, splits: Sequence[Split], fresh: bool) -> None:
    """Give a face network that no checkpoint had its first weights and statistics, and where the projection behind it
    is `fresh`, suit that to its rows.

    Args: splits: of training data; the first that has faces is looked at.
    """
    own, split = encoder.embeddings.visual, next(split for split in splits if split.lengths[:, 1].any())
    if section is not None and section.init:
        with torch.no_grad():
            own.network.body.load_state_dict(denseface_weights(section.init, own.network.kind)[0])
    batch = _some_faces(split)
    given = (batch.visual, batch.visual_offsets, batch.sample_keys)
    if section is None or not section.init:
        own.network.settle(*given)
    if fresh:
        training = own.network.training
        own.network.eval()
        with torch.no_grad():
            rows = own.network(*given, None).double()
        own.standardise(rows.mean(0).float(), rows.std(0, correction=0).float())
        own.network.train(training)


def _some_faces(split: Split) -> PackedBatch:
    """Clips evenly spaced over those of a split that have faces, with about as many as are looked at."""
    having = np.flatnonzero(split.lengths[:, 1])
    clips = min(len(having), ceil(_SETTLED / split.lengths[having, 1].mean()))
    return split.pack(having[np.linspace(0, len(having) - 1, clips).round().astype(np.int64)])
