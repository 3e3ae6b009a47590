"""The command `memofast import-legacy`: databases of the original system become a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


def main(
    texts: Annotated[list[str], typer.Argument(metavar="TXT_DB...", help="text databases, each DB or SPLIT=DB")],
    out: Annotated[Path, typer.Option(help="folder of the corpus to write; run again to resume")],
    vocab: Annotated[Path, typer.Option(help="vocab.txt of bert-base-uncased, or what the databases were built with")],
    face: Annotated[
        list[Path] | None, typer.Option(help="face database, feat_*, with its nbb_*.json beside it; may be repeated")
    ] = None,
    speech: Annotated[list[Path] | None, typer.Option(help="speech database, likewise")] = None,
    raw_faces: Annotated[
        list[Path] | None, typer.Option(help="database of pictures of faces, which become the stream raw_faces")
    ] = None,
    name: Annotated[str | None, typer.Option(help="name of the corpus; default: that of --out")] = None,
    folds: Annotated[
        Path | None,
        typer.Option(help="folder of folds 1, 2, ...: trn_int2name.npy, val_, tst_, or lists in .json and .txt"),
    ] = None,
    validation: Annotated[int, typer.Option(min=0, help="samples to hold out, where no database is validation")] = 0,
    classes: Annotated[str, typer.Option(help="names of targets 0, 1, ...: anger,happy,neutral,sad")] = "",
    emotions: Annotated[str, typer.Option(help="names of the classes of soft_labels")] = "",
    lexicon_classes: Annotated[str, typer.Option(help="names of the classes of emotion words")] = "",
    zero_face_row: Annotated[
        bool, typer.Option("--zero-face-row", help="a clip without a face has one row of zeros, as in the original")
    ] = False,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="samples without a sound record in every database are in no split")
    ] = False,
    visual_rate: Annotated[float, typer.Option(min=1e-3, help="face frames a second, for times of frame_idxs")] = 10.0,
    speech_rate: Annotated[float, typer.Option(min=1e-3, help="speech rows a second")] = 50 / 3,
) -> None:
    """Import text, face and speech databases (LMDB) of the original system as a corpus, bit for bit.

    Databases are splits by their names (trn, val, tst, val3k; trn3k is part of trn), and folds where they lie in
    folders 1, 2 and so on. Nothing is written to them. Needs the extra legacy.

    Example: memofast import-legacy txt_db/movies_v1_th0.5_wwm_all_trn.db txt_db/movies_v1_th0.5_wwm_all_val3k.db
    --face fc_db/feat_th0.5_max36_min10 --speech wav2vec_db_3mean/feat_th1.0_max64_min10 --vocab vocab.txt
    --out corpora/movies
    """
    from rich.console import Console

    from memofast.legacy.importing import Request, import_databases
    from memofast.legacy.survey import ClassNames
    from memofast.locks import lock_folder
    from memofast.prepare.choices import corpus_name

    def listed(names: str) -> tuple[str, ...]:
        return tuple(one.strip() for one in names.split(",") if one.strip())

    request = Request(
        texts, vocab, face or (), speech or (), raw_faces or (), visual_rate, speech_rate, folds, validation,
        zero_face_row, drop_missing, ClassNames(listed(classes), listed(emotions), listed(lexicon_classes)),
    )  # fmt: skip
    with lock_folder(out):
        imported = import_databases(request, out, corpus_name(name, out), Console(stderr=True))
    for store, outcome in imported.outcomes.items():
        print(f"{store}: {outcome}")
    for note in imported.notes:
        print(f"note: {note}")
    corpus = imported.corpus
    counts = ", ".join(f"{split} {len(corpus.split(split))}" for split in corpus.splits)
    print(f"corpus {corpus.name} at {out}: {counts}")


if __name__ == "__main__":
    run(main, "memofast import-legacy")
