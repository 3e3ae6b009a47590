"""The command `memofast import-features`: a feature pickle of MMSA or MultiBench becomes a corpus."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from memofast.errors import MemofastError


def main(
    pickle: Annotated[Path, typer.Argument(help="file of MMSA (aligned_50.pkl, unaligned_50.pkl) or MultiBench")],
    out: Annotated[Path, typer.Option(help="folder of the corpus to write; run again to resume")],
    name: Annotated[str | None, typer.Option(help="name of the corpus; default: that of --out")] = None,
    vocab: Annotated[
        Path | None, typer.Option(help="vocab.txt or tokenizer folder; needed where the file has sentences")
    ] = None,
    licence: Annotated[str, typer.Option(help="licence of the source, kept in the stores")] = "",
) -> None:
    """Import sentiment features of MOSI, MOSEI or SIMS as a corpus with splits, groups by video and a value per sample.

    The file is read by an unpickler that knows numpy arrays and plain values only. Padding is removed; infinities and NaN are counted
    and set to 0. Rows of text (BERT, GloVe) are kept in the store text_features, which models do not read.

    Example: memofast import-features MOSI/unaligned_50.pkl --out corpora/mosi --vocab vocab.txt
    """
    from memofast.data.corpus import write_corpus
    from memofast.files import write_json
    from memofast.prepare.sources.clips import Clip
    from memofast.prepare.sources.feature_pickles import read_feature_pickle
    from memofast.prepare.sources.protocol import Protocol, count_groups, refuse_leaks, write_protocol
    from memofast.prepare.text.word_pieces import WordPieces

    name = name or out.resolve().name
    if not re.fullmatch(r"[\w.-]+", name):
        raise MemofastError(f"--name {name!r}: a corpus name has letters, digits, dots, dashes and underscores only")
    samples, cleaning = read_feature_pickle(pickle)
    spoken = any(sample.text for sample in samples)
    if spoken and vocab is None:
        raise MemofastError(f"{pickle} has sentences to tokenise; give --vocab VOCAB.txt or a tokenizer folder")
    protocol = Protocol(groups={"video": {sample.id: sample.video for sample in samples}}, whole="video")
    refuse_leaks([Clip(sample.id, split=sample.split) for sample in samples], protocol)
    about = {"source": pickle.name, "licence": licence}
    stores = {
        "text": _write_text(out, samples, WordPieces(vocab) if spoken else None, about),
        **{store: path for store in samples[0].rows if (path := _write_rows(out, store, samples, about))},
    }
    splits: dict[str, list[str]] = {}
    for sample in samples:
        splits.setdefault(sample.split, []).append(sample.id)
    facts = {"licence": licence, "protocol_notes": cleaning.lines()}
    if stores.pop("text_features", None):
        facts["text_features"] = "text_features"
    write_corpus(out, name, stores, splits, facts)
    write_protocol(out, protocol, protocol.groups["video"])
    write_json(out / "import.json", {"file": pickle.name, "found": cleaning.lines()})
    for line in cleaning.lines():
        print(line)
    if not spoken:
        print("no sentences in the file: the text of every sample is [CLS] alone")
    print(count_groups(protocol))
    counts = ", ".join(f"{split} {len(ids)}" for split, ids in splits.items())
    print(f"corpus {name} at {out}: {counts}; {_rows_told(samples)}")


def _write_text(out: Path, samples: list, pieces, about: dict[str, str]) -> Path:
    from memofast.store import TextWriter

    if pieces:
        about = about | {"cls_id": pieces.cls_id, "sep_id": pieces.sep_id}
        about |= {"extractor": pieces.name, "fingerprint": pieces.fingerprint}
    with TextWriter(out / "text", value=f"sentiment, as {about['source']} labels it", **about) as writer:
        for sample in samples:
            if not writer.done(sample.id):
                tokens = pieces(sample.text) if pieces else None
                ids, words = (tokens.ids, tokens.words) if tokens else ([], [])
                writer.put(sample.id, ids, words, utf8=sample.text or "", value=sample.value)
    return out / "text"


def _write_rows(out: Path, store: str, samples: list, about: dict[str, str]) -> Path | None:
    """The store, or None where no sample has such rows. float32: features of others are in any range."""
    from memofast.store import FeatureWriter

    present = [sample for sample in samples if len(sample.rows[store])]
    if not present:
        return None
    width = present[0].rows[store].shape[1]
    with FeatureWriter(
        out / store, width, dtype="float32", extractor=f"{store} rows of {about['source']}", **about
    ) as writer:
        for sample in present:
            if not writer.done(sample.id):
                writer.put(sample.id, sample.rows[store])
    return out / store


def _rows_told(samples: list) -> str:
    total, width = Counter(), {}
    for sample in samples:
        for store, rows in sample.rows.items():
            total[store] += len(rows)
            width[store] = rows.shape[1]
    return ", ".join(f"{count} rows of {store}, {width[store]} wide" for store, count in total.items())


if __name__ == "__main__":
    from memofast.cli import run

    run(main, "python -m memofast.prepare.import_features")
