"""The span-task loader written the original's way, in one process.

Rules: per sample one lz4 frame of msgpack for the text and one msgpack-numpy dict each for faces and speech, read from LMDB by id;
features cast to float32; the span mask of each sample drawn in Python (ratio 0.2, spans of 3 frames); collate pads each modality to
its longest sample, builds position ids, the attention mask, the gather index and the padded masks, and gathers target features by boolean
selection. What is slow only by accident is left out: length files are read once, arrays are converted without copies where that is
possible, spans are marked by slices, padding is filled through preallocated tensors, and no strings but the ids are decoded twice.
Source of the behaviour: MEmoBERT's data sets, sampler and collate functions.
"""

import random
from pathlib import Path

import lmdb
import lz4.frame
import msgpack
import msgpack_numpy
import numpy as np
import torch

CLS, SEP = 101, 102


def write(path: Path, samples: list[dict]) -> None:
    """Three LMDBs of samples {id, tokens, words, text, visual, soft_labels, speech}."""
    for name in ("text", "visual", "speech"):
        (path / name).mkdir(parents=True)
        environment = lmdb.open(str(path / name), map_size=2 << 30)
        with environment.begin(write=True) as transaction:
            for sample in samples:
                transaction.put(sample["id"].encode(), _value(name, sample))
        environment.close()


def _value(name: str, sample: dict) -> bytes:
    if name == "text":
        record = {
            "id": sample["id"],
            "img_fname": sample["id"],
            "input_ids": sample["tokens"].tolist(),
            "toked_caption": sample["text"].split(),
        }
        return lz4.frame.compress(msgpack.packb(record, use_bin_type=True))
    rows = len(sample[name])
    record = {"features": sample[name], "frame_idxs": np.arange(rows, dtype=np.float16)}
    if name == "visual":
        record |= {"confidence": np.ones(rows, np.float16), "soft_labels": sample["soft_labels"]}
    return msgpack.packb(record, use_bin_type=True, default=msgpack_numpy.encode)


class SpanLoader:
    """Batches of the span visual regression task, in the given order of ids."""

    def __init__(self, path: Path):
        environments = [lmdb.open(str(path / name), readonly=True) for name in ("text", "visual", "speech")]
        self._transactions = [environment.begin(buffers=True) for environment in environments]

    def sample(self, id: str) -> dict:
        key = id.encode()
        text, visual, speech = (transaction.get(key) for transaction in self._transactions)
        text = msgpack.unpackb(lz4.frame.decompress(text), raw=False)
        visual, speech = (
            msgpack.unpackb(value, object_hook=msgpack_numpy.decode, raw=False) for value in (visual, speech)
        )
        faces = torch.from_numpy(visual["features"].astype(np.float32))
        sound = torch.from_numpy(speech["features"].astype(np.float32))
        mask = span_mask(len(faces))
        masked = faces.clone()
        masked[mask] = 0
        ids = torch.tensor([CLS, *text["input_ids"], SEP])
        return {"ids": ids, "visual": masked, "targets": faces, "mask": mask, "speech": sound}

    def batch(self, ids: list[str]) -> dict[str, torch.Tensor]:
        return collate([self.sample(id) for id in ids])


def span_mask(frames: int, ratio: float = 0.2, span: int = 3) -> torch.Tensor:
    mask = torch.zeros(frames, dtype=torch.bool)
    starts = frames - span - 1
    count = min(int(frames * ratio // span), starts)
    if count > 0:
        for start in random.sample(range(starts), count):
            mask[start : start + span] = True
    else:
        mask[random.randrange(frames)] = True
    return mask


def collate(samples: list[dict]) -> dict[str, torch.Tensor]:
    count = len(samples)
    longest = {name: max(len(sample[name]) for sample in samples) for name in ("ids", "visual", "speech")}
    total = max(len(s["ids"]) + len(s["visual"]) + len(s["speech"]) for s in samples)
    padded = {
        "ids": torch.zeros(count, longest["ids"], dtype=torch.long),
        "visual": torch.zeros(count, longest["visual"], samples[0]["visual"].shape[1]),
        "speech": torch.zeros(count, longest["speech"], samples[0]["speech"].shape[1]),
    }
    visual_mask = torch.zeros(count, longest["visual"], dtype=torch.bool)
    joint_mask = torch.zeros(count, total, dtype=torch.bool)
    attention = torch.zeros(count, total, dtype=torch.long)
    gather = torch.arange(total).repeat(count, 1)
    for row, sample in enumerate(samples):
        text, faces, sound = len(sample["ids"]), len(sample["visual"]), len(sample["speech"])
        for name in padded:
            padded[name][row, : len(sample[name])] = sample[name]
        visual_mask[row, :faces] = sample["mask"]
        joint_mask[row, text : text + faces] = sample["mask"]
        attention[row, : text + faces + sound] = 1
        gather[row, text : text + faces] = torch.arange(longest["ids"], longest["ids"] + faces)
        start = longest["ids"] + longest["visual"]
        gather[row, text + faces : text + faces + sound] = torch.arange(start, start + sound)
    targets = torch.cat([sample["targets"][sample["mask"]] for sample in samples])
    positions = {f"{name}_positions": torch.arange(length)[None] for name, length in longest.items()}
    return (
        padded
        | positions
        | {
            "visual_mask": visual_mask,
            "joint_mask": joint_mask,
            "attention": attention,
            "gather": gather,
            "targets": targets,
        }
    )
