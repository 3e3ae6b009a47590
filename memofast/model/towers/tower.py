"""One tower: an encoder over what its modality keeps, pooled and mapped to the common width."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from memofast.data.batch import pad_rows
from memofast.data.dialogue import asked_rows
from memofast.data.view import View
from memofast.model.towers.drawing import drawing
from memofast.model.towers.encoders import encoder_of, longest_text, width_of
from memofast.model.towers.inputs import rows_of_sound
from memofast.model.towers.kept_features import KeptFeatures

_AT_ONCE = 8  # clips without gradients; those of a training are a micro-batch's
_SAMPLE = 32768.0  # of int16
_VARIANCE = 1e-7  # that transformers' feature extractor adds


class Tower(nn.Module):
    """Vectors of the samples that have the modality.

    Args: entry: see `TowersConfig.towers`. width: common one. encoder: with its weights; None: random ones.
    """

    modality = ""

    def __init__(self, entry: dict[str, Any], width: int, encoder: PreTrainedModel | None = None):
        super().__init__()
        self.entry, self.frozen = entry, entry["train"] == "frozen"
        self.kept: KeptFeatures | None = None
        self.encoder = encoder_of(entry["encoder"]) if encoder is None else encoder
        self.project = nn.Linear(width_of(self.encoder.config), width)
        if self.frozen:
            self.encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> Tower:
        """A frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, view: View, rng: Tensor | None) -> tuple[Tensor, Tensor]:
        """Vectors [B, width], zero where a sample lacks the modality, and which have it [B] bool. rng [2] int64: seed
        and update; None: nothing is dropped."""
        present = self.there(view)
        there = present.nonzero().flatten()
        nothing = self.project.weight.new_zeros(view.batch.samples, self.project.out_features)
        if not len(there):
            return nothing, present
        with drawing(None if self.frozen else rng, view.keys, self.modality):
            with torch.no_grad() if self.frozen else nullcontext():
                pooled = self.kept.pooled(self, view, there) if self.kept else self.pooled(view, there)
            found = self.project(pooled.half().to(pooled.dtype) if self.entry.get("rounded") else pooled)
        return nothing.to(found.dtype).index_copy(0, there, found), present

    def there(self, view: View) -> Tensor:
        """Which samples have the modality [B] bool."""
        if view.batch.rows_of(self.modality) is None:
            return torch.zeros_like(view.keys, dtype=torch.bool)
        return view.batch.offsets_of(self.modality).diff() > 0

    def pooled(self, view: View, there: Tensor) -> Tensor:
        """Of the samples [n] int64 that have it, a row of the encoder's each [n, C]."""
        raise NotImplementedError

    def contents(self, view: View, there: Tensor) -> list[bytes]:
        """SHA-256 of what is read of each of the samples [n] int64."""
        rows, offsets = self._rows(view).cpu(), view.batch.offsets_of(self.modality).tolist()
        return [_digest(rows[offsets[sample] : offsets[sample + 1]]) for sample in there.tolist()]

    def reading(self) -> dict[str, Any]:
        """What else, beside the entries, says which vector is made of a sample."""
        return {}

    def _rows(self, view: View) -> Tensor:
        """Stored rows of features [n, stored]; hidden ones are zero."""
        rows = view.batch.rows_of(self.modality)[:, : self.entry["stored"]]
        if (source := view.sources.get(self.modality)) is None:
            return rows
        return rows[source.clamp(min=0).to(torch.int64)] * (source >= 0)[:, None].to(rows.dtype)

    def _one_vector(self, hidden: Tensor) -> Tensor:
        return hidden.mean(1) if self.entry["pool"] == "mean" else hidden[:, 0]


class TextTower(Tower):
    """Word pieces, beside longer texts of a batch as alone; the row that a context's question masks is read, else the
    first, or of an utterance the mean of its own words' rows. query, mask: see `asked_rows`; None: the first row is
    read. of_words: whether that mean is.
    """

    modality = "text"

    def __init__(self, entry: dict[str, Any], width: int, encoder: PreTrainedModel | None = None):
        super().__init__(entry, width, encoder)
        self.longest = longest_text(self.encoder)
        self.query: str | None = None
        self.mask: int | None = None
        self.of_words = False

    def there(self, view: View) -> Tensor:
        return view.batch.offsets_of("text").diff() > 1  # more than [CLS]

    def pooled(self, view: View, there: Tensor) -> Tensor:
        offsets = view.batch.offsets_of("text")
        token_ids = view.batch.token_ids if view.token_ids is None else view.token_ids
        lengths = offsets.diff()[there]
        pad = self.encoder.config.pad_token_id or 0
        padded = pad_rows(token_ids.to(torch.int64), offsets, fill=pad)[there, : int(lengths.max())]
        inside = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        hidden = self.encoder(input_ids=padded, attention_mask=inside.to(torch.int64)).last_hidden_state
        if not self.of_words:
            return hidden[torch.arange(len(there), device=hidden.device), self._read(view)[there]]
        own = pad_rows(view.batch.word_ids, offsets, fill=-1)[there, : hidden.shape[1]] >= 0
        own[:, 0] |= ~own.any(1)  # as `own_word_rows` has it
        share = own.to(hidden.dtype) / own.sum(1, keepdim=True)
        return (share[:, None] @ hidden)[:, 0]

    def contents(self, view: View, there: Tensor) -> list[bytes]:
        """SHA-256 of a text and of the row that is read, or of where its own words are."""
        offsets, read = view.batch.offsets_of("text").tolist(), self._read(view).tolist()
        token_ids = (view.batch.token_ids if view.token_ids is None else view.token_ids).cpu()
        own = (view.batch.word_ids >= 0).cpu()
        found = []
        for sample in there.tolist():
            rows = slice(offsets[sample], offsets[sample + 1])
            of_words = own[rows].nonzero().flatten() if self.of_words else torch.tensor([read[sample]])
            found.append(_digest(token_ids[rows].to(torch.int64), of_words))
        return found

    def reading(self) -> dict[str, Any]:
        """Whether a row or a mean is read."""
        return {"of_words": self.of_words}

    def _read(self, view: View) -> Tensor:
        """Which row of its text is read of each sample [B] int64."""
        batch = view.batch
        if self.query is None:
            return torch.zeros_like(view.keys)
        return asked_rows(batch, self.mask, self.query) - batch.offsets[:-1].to(torch.int64)


class SoundTower(Tower):
    """Samples of sound. Clips of one length are heard together and others apart, as encoders that norm over time or
    convolve their positions would hear the padding; a clip shorter than what a row sees ends in zeros."""

    modality = "speech"

    def pooled(self, view: View, there: Tensor) -> Tensor:
        rows, offsets = self._rows(view), view.batch.offsets_of("speech")
        begins, lengths = (own.to(torch.int64)[there] for own in (offsets[:-1], offsets.diff()))
        found, order = [], []
        for length, group in _alike(lengths):
            places = begins[group][:, None] + torch.arange(length, device=begins.device)
            sound = self._heard(rows[places].flatten(1))
            self._choose_masks(sound.shape[1])
            found.append(self._one_vector(self.encoder(sound).last_hidden_state))
            order.append(group)
        return torch.cat(found)[torch.cat(order).argsort()]

    def _choose_masks(self, samples: int) -> None:
        """Whether stretches are hidden; of a clip no longer than one of them none can be."""
        config = self.encoder.config
        rows = rows_of_sound(samples, config.conv_kernel, config.conv_stride)
        config.apply_spec_augment = self.entry["spec_augment"] and rows > config.mask_time_length

    def _heard(self, stored: Tensor) -> Tensor:
        """Waveforms [n, samples] fp32 of whole numbers [n, samples]."""
        sound = stored.to(torch.float32) / _SAMPLE
        if self.entry["normalise"]:
            variance, mean = torch.var_mean(sound, 1, correction=0, keepdim=True)
            sound = (sound - mean) / (variance + _VARIANCE).sqrt()
        return F.pad(sound, (0, max(0, self.entry["shortest"] - sound.shape[1])))


class PictureTower(Tower):
    """Pictures evenly over a clip, those in the middle of as many equal parts; of a clip of fewer some are seen
    twice."""

    modality = "visual"

    def pooled(self, view: View, there: Tensor) -> Tensor:
        rows, offsets = self._rows(view), view.batch.offsets_of("visual")
        begins, lengths = (own.to(torch.int64)[there] for own in (offsets[:-1], offsets.diff()))
        frames = self.entry["frames"]
        part = torch.arange(frames, device=begins.device) * 2 + 1
        places = begins[:, None] + part * lengths[:, None] // (2 * frames)
        found = [
            self._one_vector(self.encoder(pixel_values=self._seen(rows[some])).last_hidden_state)
            for some in places.split(len(places) if torch.is_grad_enabled() else _AT_ONCE)
        ]
        return torch.cat(found)

    def _seen(self, stored: Tensor) -> Tensor:
        """Pixels [n, frames, 3, side, side] fp32 of stored pictures [n, frames, numbers]."""
        entry = self.entry
        side = round((entry["stored"] / entry["channels"]) ** 0.5)
        pixels = stored.flatten(0, 1).view(-1, side, side, entry["channels"]).permute(0, 3, 1, 2).to(torch.float32)
        if side != (size := entry["resize"]):
            pixels = F.interpolate(pixels, (size, size), mode=entry["resample"], antialias=True).round().clamp(0, 255)
        edge = (entry["resize"] - entry["crop"]) // 2
        pixels = pixels[..., edge : edge + entry["crop"], edge : edge + entry["crop"]]
        mean, std = (pixels.new_tensor(entry[name])[:, None, None] for name in ("mean", "std"))
        return ((pixels * entry["scale"] - mean) / std).unflatten(0, stored.shape[:2])


def _digest(*tensors: Tensor) -> bytes:
    digest = hashlib.sha256()
    for one in tensors:
        digest.update(f"{one.dtype} {tuple(one.shape)}".encode())
        digest.update(one.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _alike(lengths: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Groups of places [n] int64 of one length each, and without gradients of `_AT_ONCE` at most."""
    for length in lengths.unique().tolist():
        group = (lengths == length).nonzero().flatten()
        for some in group.split(len(group) if torch.is_grad_enabled() else _AT_ONCE):
            yield length, some


TOWERS: dict[str, type[Tower]] = {tower.modality: tower for tower in (TextTower, PictureTower, SoundTower)}
