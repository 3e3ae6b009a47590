"""Rows of sentences by any transformers text encoder, in a store of its own beside those that pre-training reads.

`CORPUS/text_features` holds one record per sentence: a row per word piece of the encoder's own tokenizer, or one row.
Open it with `memofast.store.FeatureStore.open`.
"""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from memofast.devices import open_device
from memofast.errors import MemofastError
from memofast.prepare.choices import Kind, parse_choice
from memofast.prepare.pretrained import load_pretrained, read_config
from memofast.store import FeatureWriter

STORE = "text_features"
KINDS = {"model": Kind("FOLDER", {"rows": "pieces or sentence"})}
_CHUNK = 32  # sentences handed to a worker at once
_COMMIT_EVERY = 500  # sentences


@dataclass(frozen=True)
class TextChoice:
    """path: the encoder's folder. rows: `pieces`, one per word piece without special tokens, or `sentence`, their
    mean."""

    path: Path
    rows: str = "pieces"


def parse_text_features(text: str) -> TextChoice:
    """The choice behind `--text-features`; raises MemofastError for an unknown one."""
    _, path, settings = parse_choice(text, "--text-features", KINDS)
    rows = settings.get("rows", "pieces")
    if rows not in {"pieces", "sentence"}:
        raise MemofastError(f"--text-features: rows is pieces or sentence, not {rows!r}")
    return TextChoice(path, rows)


class TextEncoder:
    """Last hidden states of a text encoder. A sentence runs alone, so that its rows depend on no other."""

    def __init__(self, choice: TextChoice, device: str = "cpu"):
        from transformers import AutoModel, AutoTokenizer

        config = read_config(choice.path, "--text-features")
        pretrained = load_pretrained(AutoModel, choice.path)
        model = pretrained.model.get_encoder() if config.is_encoder_decoder else pretrained.model
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(choice.path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
            raise MemofastError(
                f"{choice.path} holds no tokenizer that opens; give the folder of a whole model"
            ) from error
        if getattr(model, "main_input_name", "") != "input_ids":
            raise MemofastError(
                f"{choice.path} holds a {config.model_type} model, which reads no text; give one that does"
            )
        self._device, self._rows = open_device(device), choice.rows
        self._model = model.to(self._device)
        longest = getattr(config, "max_position_embeddings", None)
        self._longest = min(self._tokenizer.model_max_length, longest or 512, 512)
        self.width = config.hidden_size
        self.name = f"{config.model_type}, {choice.rows}"
        self.fingerprint = pretrained.fingerprint({"rows": choice.rows, "longest": self._longest})

    @torch.inference_mode()
    def __call__(self, sentence: str) -> np.ndarray:
        """[n, width] float32; no row for a sentence without a word piece."""
        given = self._tokenizer(
            sentence, return_tensors="pt", truncation=True, max_length=self._longest, return_special_tokens_mask=True
        )
        kept = ~given.pop("special_tokens_mask")[0].bool()
        if not kept.any():
            return np.empty((0, self.width), np.float32)
        rows = self._model(**given.to(self._device)).last_hidden_state[0].cpu()[kept]
        return (rows.mean(0, keepdim=True) if self._rows == "sentence" else rows).numpy()


def write_text_features(
    out: Path,
    sentences: Iterable[tuple[str, str]],
    choice: TextChoice,
    device: str,
    workers: int,
    about: dict[str, str],
) -> dict:
    """Write rows of `(id, sentence)` to the store `out/text_features` and return its meta; what the store holds is not
    computed again.

    about: source and licence. Raises: MemofastError where the encoder does not open or the store holds other rows.
    """
    encoder = TextEncoder(choice, device)
    with FeatureWriter(
        out / STORE,
        encoder.width,
        extractor=encoder.name,
        fingerprint=encoder.fingerprint,
        normalisation="none",
        **about,
    ) as store:
        left = [(id, sentence) for id, sentence in sentences if not store.done(id)]
        for number, (id, rows) in enumerate(_encode(left, choice, device, workers, encoder), 1):
            store.put(id, rows)
            if number % _COMMIT_EVERY == 0:
                store.commit()
        return store.finish()


def _encode(
    left: list[tuple[str, str]], choice: TextChoice, device: str, workers: int, encoder: TextEncoder
) -> Iterator[tuple[str, np.ndarray]]:
    ids, sentences = [id for id, _ in left], [sentence for _, sentence in left]
    if workers <= 1 or len(left) <= _CHUNK:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker
        try:
            yield from zip(ids, map(encoder, sentences), strict=True)
        finally:
            torch.set_num_threads(threads)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_start, initargs=(choice, device)) as executor:
        try:
            yield from zip(ids, executor.map(_work, sentences, chunksize=_CHUNK), strict=True)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


_encoder: TextEncoder | None = None


def _start(choice: TextChoice, device: str) -> None:
    global _encoder
    torch.set_num_threads(1)
    _encoder = TextEncoder(choice, device)


def _work(sentence: str) -> np.ndarray:
    return _encoder(sentence)
