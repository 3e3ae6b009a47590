"""The span-task loader written the original's way, in one process, and the same loader tidied.

Both read, per sample, one lz4 frame of msgpack for the text and one msgpack-numpy dict each for faces and speech from
LMDB by id; cast features to float32; draw the span mask of each sample in Python (ratio 0.2, spans of 3 frames); and
collate by padding each modality to its longest sample, with position ids, attention mask, gather index and the padded
masks. Length files are read once.

`OriginalSpanLoader` keeps what the original does with every frame: lists of frames and labels turned into tensors that
Python then walks element by element, target rows collected one by one and concatenated, a count of targets by Python's
`sum` over a tensor, tensors copied where they could be shared, every array of a record decoded, and `pad_sequence` over
lists of tensors.
`SpanLoader` gives the same batches with that removed: spans are marked by slices, arrays are converted without copies
where that is possible, padding is filled through preallocated tensors and targets are gathered by boolean selection.
Source of the behaviour: MEmoBERT's data sets, sampler and collate functions.
"""

import functools
import random
from pathlib import Path

import lmdb
import lz4.frame
import msgpack
import msgpack_numpy
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

CLS, SEP = 101, 102
MASKED, NO_TARGET = 1000, -1


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


@functools.cache
def reading(path: Path) -> lmdb.Transaction:
    """The one read transaction of an environment in this process."""
    return lmdb.open(str(path), readonly=True).begin(buffers=True)


class SpanLoader:
    """Batches of the span visual regression task, in the given order of ids, without the original's work per frame."""

    def __init__(self, path: Path):
        self._transactions = [reading(path / name) for name in ("text", "visual", "speech")]

    def records(self, id: str) -> tuple[dict, dict, dict]:
        """Text, faces and speech of one sample as they are stored."""
        text, visual, speech = (transaction.get(id.encode()) for transaction in self._transactions)
        unpack = functools.partial(msgpack.unpackb, object_hook=msgpack_numpy.decode, raw=False)
        return msgpack.unpackb(lz4.frame.decompress(text), raw=False), unpack(visual), unpack(speech)

    def sample(self, id: str) -> dict:
        text, visual, speech = self.records(id)
        faces = torch.from_numpy(visual["features"].astype(np.float32))
        sound = torch.from_numpy(speech["features"].astype(np.float32))
        mask = span_mask(len(faces))
        masked = faces.clone()
        masked[mask] = 0
        ids = torch.tensor([CLS, *text["input_ids"], SEP])
        return {"ids": ids, "visual": masked, "targets": faces, "mask": mask, "speech": sound}

    def batch(self, ids: list[str]) -> dict[str, torch.Tensor]:
        return collate([self.sample(id) for id in ids])


class OriginalSpanLoader(SpanLoader):
    """Batches of the span visual regression task, in the given order of ids, the original's way."""

    def sample(self, id: str) -> dict:
        text, visual, speech = self.records(id)
        faces, sound = (torch.tensor(record["features"]).float() for record in (visual, speech))
        ids = torch.tensor([CLS, *text["input_ids"], SEP])
        attention = torch.cat(
            [torch.ones(len(ids) + len(faces), dtype=torch.long), torch.ones(len(sound), dtype=torch.long)]
        )
        frames, labels = (torch.tensor(marks) for marks in frame_marks(len(faces)))
        mask = torch.tensor([bool(frame == MASKED) for frame in frames], dtype=torch.long)
        is_target = torch.tensor([bool(label != NO_TARGET) for label in labels])
        joint = torch.cat(
            [torch.zeros(len(ids), dtype=torch.bool), is_target, torch.zeros(len(sound), dtype=torch.bool)]
        )
        rows = [faces[place] for place in range(len(faces)) if labels[place] != NO_TARGET]
        targets = torch.cat(rows).reshape(-1, faces.shape[1])
        assert sum(joint) == len(targets)
        for place, source in enumerate(frames):
            if source != MASKED and source != place:
                faces[place] = faces[source]
        return {
            "ids": ids,
            "visual": faces,
            "speech": sound,
            "attention": attention,
            "mask": mask,
            "joint": joint,
            "targets": targets,
        }

    def batch(self, ids: list[str]) -> dict[str, torch.Tensor]:
        return pad_and_collate([self.sample(id) for id in ids])


def frame_marks(frames: int, ratio: float = 0.2, span: int = 3) -> tuple[list[int], list[int]]:
    """Per frame the frame to read or MASKED, and per frame its number where it is a target."""
    sources, labels = list(range(frames)), [NO_TARGET] * frames
    starts = list(range(frames - span - 1))
    count = min(int(frames * ratio // span), len(starts))
    if count > 0:
        places = [start + i for start in random.sample(starts, count) for i in range(span)]
    else:
        places = [random.choice(range(frames))]
    for place in places:
        sources[place], labels[place] = MASKED, place
    return sources, labels


def pad_rows(tensors: list[torch.Tensor]) -> torch.Tensor:
    padded = torch.zeros(len(tensors), max(len(rows) for rows in tensors), tensors[0].shape[1])
    for row, rows in enumerate(tensors):
        padded[row, : len(rows)] = rows
    return padded


def pad_and_collate(samples: list[dict]) -> dict[str, torch.Tensor]:
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    ids, mask, joint, attention = (
        pad_sequence(columns[name], batch_first=True) for name in ("ids", "mask", "joint", "attention")
    )
    visual, speech = pad_rows(columns["visual"]), pad_rows(columns["speech"])
    targets = torch.cat(columns["targets"]).view(-1, visual.shape[2])
    visual = visual.masked_fill(mask.bool().unsqueeze(-1).expand_as(visual), 0)
    assert torch.sum(joint) == len(targets)
    padded = {"ids": ids, "visual": visual, "speech": speech}
    gather = torch.arange(attention.shape[1]).repeat(len(samples), 1)
    for row, sample in enumerate(samples):
        text, faces, sound = len(sample["ids"]), len(sample["visual"]), len(sample["speech"])
        gather[row, text : text + faces] = torch.arange(ids.shape[1], ids.shape[1] + faces)
        start = ids.shape[1] + visual.shape[1]
        gather[row, text + faces : text + faces + sound] = torch.arange(start, start + sound)
    return (
        padded
        | positions(padded)
        | {
            "visual_mask": mask.bool(),
            "joint_mask": joint,
            "attention": attention,
            "gather": gather,
            "targets": targets,
        }
    )


def positions(padded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{name}_positions": torch.arange(rows.shape[1])[None] for name, rows in padded.items()}


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
    return (
        padded
        | positions(padded)
        | {
            "visual_mask": visual_mask,
            "joint_mask": joint_mask,
            "attention": attention,
            "gather": gather,
            "targets": targets,
        }
    )
