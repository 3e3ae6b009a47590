"""The command `memofast import-features`: a feature pickle of MMSA or MultiBench becomes a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


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

    The file is read by an unpickler that knows numpy arrays and plain values only. Padding is removed; infinities and
    NaN are counted and set to 0. Rows of text (BERT, GloVe) are the stream text_features, which model.family sequence
    and lstm_fusion read.

    Example: memofast import-features MOSI/unaligned_50.pkl --out corpora/mosi --vocab vocab.txt
    """
    from memofast.locks import lock_folder
    from memofast.prepare.choices import corpus_name
    from memofast.prepare.sources.feature_corpus import import_feature_pickle

    with lock_folder(out):
        lines = import_feature_pickle(pickle, out, corpus_name(name, out), vocab, licence)
    for line in lines:
        print(line)


if __name__ == "__main__":
    run(main, "memofast import-features")
