"""Feature pickles of MMSA and MultiBench written as a corpus: stores, splits, groups by video and a value per
sample."""

from collections import Counter
from pathlib import Path

from memofast.data.corpus import write_corpus
from memofast.errors import MemofastError
from memofast.files import write_json
from memofast.prepare.sources.clips import Clip
from memofast.prepare.sources.feature_pickles import Cleaning, read_feature_pickle
from memofast.prepare.sources.protocol import Protocol, count_groups, refuse_leaks, write_protocol
from memofast.prepare.text.word_pieces import LONGEST, Tokens, WordPieces, copy_vocabulary
from memofast.store import FeatureWriter, TextWriter


def import_feature_pickle(pickle: Path, out: Path, name: str, vocab: Path | None, licence: str) -> list[str]:
    """Write the corpus `name` to `out`, and what was mended in the file to its `import.json`. Returns: lines that tell
    what came of it.

    Raises: `MemofastError` for a file of another layout, sentences without a vocabulary, and a video in two splits.
    """
    samples, cleaning = read_feature_pickle(pickle)
    spoken = any(sample.text for sample in samples)
    if spoken and vocab is None:
        raise MemofastError(f"{pickle} has sentences to tokenise; give --vocab VOCAB.txt or a tokenizer folder")
    protocol = Protocol(groups={"video": {sample.id: sample.video for sample in samples}}, whole="video")
    refuse_leaks([Clip(sample.id, split=sample.split) for sample in samples], protocol)
    about = {"source": pickle.name, "licence": licence}
    stores = {
        "text": _write_text(out, samples, WordPieces(vocab) if spoken else None, cleaning, about),
        **{store: path for store in samples[0].rows if (path := _write_rows(out, store, samples, about))},
    }
    splits: dict[str, list[str]] = {}
    for sample in samples:
        splits.setdefault(sample.split, []).append(sample.id)
    facts = {"licence": licence, "protocol_notes": cleaning.lines()}
    streams = {"text_features": (path, "text")} if (path := stores.pop("text_features", None)) else {}
    if spoken:
        copy_vocabulary(vocab, out)
    write_corpus(out, name, stores, splits, facts, streams)
    write_protocol(out, protocol, protocol.groups["video"])
    write_json(out / "import.json", {"file": pickle.name, "found": cleaning.lines()})
    counts = ", ".join(f"{split} {len(ids)}" for split, ids in splits.items())
    return [
        *cleaning.lines(),
        *([] if spoken else ["no sentences in the file: the text of every sample is [CLS] alone"]),
        count_groups(protocol),
        f"corpus {name} at {out}: {counts}; {_rows_told(samples)}",
    ]


def _write_text(out: Path, samples: list, pieces: WordPieces | None, cleaning: Cleaning, about: dict[str, str]) -> Path:
    if pieces:
        about = about | {"cls_id": pieces.cls_id, "sep_id": pieces.sep_id}
        about |= {"extractor": pieces.name, "fingerprint": pieces.fingerprint}
    with TextWriter(
        out / "text",
        value=f"sentiment, as {about['source']} labels it",
        modality_values=list(samples[0].modality_values),
        **about,
    ) as writer:
        for sample in samples:
            tokens = pieces(sample.text) if pieces else Tokens()
            if tokens.cut:
                cleaning.other[f"sentences of more than {LONGEST} words, kept without their end"] += 1
            if not writer.done(sample.id):
                labels = {"value": sample.value, "modality_values": sample.modality_values}
                writer.put(sample.id, tokens.ids, tokens.words, utf8=sample.text or "", **labels)
    return out / "text"


def _write_rows(out: Path, store: str, samples: list, about: dict[str, str]) -> Path | None:
    """The store, or None where no sample has such rows. float32: features of others are in any range."""
    present = [sample for sample in samples if len(sample.rows[store])]
    if not present:
        return None
    width = present[0].rows[store].width
    with FeatureWriter(
        out / store, width, dtype="float32", extractor=f"{store} rows of {about['source']}", **about
    ) as writer:
        for sample in present:
            if not writer.done(sample.id):
                writer.put(sample.id, sample.rows[store].read())
    return out / store


def _rows_told(samples: list) -> str:
    total, width = Counter(), {}
    for sample in samples:
        for store, rows in sample.rows.items():
            total[store] += len(rows)
            width[store] = rows.width
    return ", ".join(f"{count} rows of {store}, {width[store]} wide" for store, count in total.items())
