"""The command `memofast import-npz`: features and captions of the original system become a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


def main(
    captions: Annotated[Path, typer.Option(help="JSON: {id: [sentence]} or {id: {txt: [sentence], label: ...}}.")],
    out: Annotated[Path, typer.Option(help="Folder of the corpus to write; run again to resume.")],
    vocab: Annotated[Path, typer.Option(help="vocab.txt of bert-base-uncased.")],
    name: Annotated[str, typer.Option(help="Name of the corpus; part of every sample's random numbers.")] = "imported",
    visual: Annotated[Path | None, typer.Option(help="Folder of face features, <id>.npz.")] = None,
    speech: Annotated[Path | None, typer.Option(help="Folder of speech features, <id>.npz.")] = None,
    visual_confidence: Annotated[float, typer.Option(help="Keep faces with a confidence strictly above this.")] = 0.5,
    visual_rows: Annotated[int, typer.Option(help="Keep the first so many faces.")] = 36,
    visual_rate: Annotated[float, typer.Option(help="Face frames per second, to turn frame_idxs into times.")] = 10.0,
    speech_rows: Annotated[int, typer.Option(help="Keep the first so many speech rows.")] = 64,
    speech_rate: Annotated[float, typer.Option(help="Speech rows per second.")] = 50 / 3,
    splits: Annotated[Path | None, typer.Option(help="JSON: {split: [ids]}. Default: train and val.")] = None,
    validation: Annotated[int, typer.Option(help="Without --splits: samples that form split validation.")] = 0,
    lexicon: Annotated[
        Path | None, typer.Option(help="Emotion lexicon: NRC file, or word<TAB>class lines; classes of words are kept.")
    ] = None,
    drop_missing: Annotated[
        bool,
        typer.Option("--drop-missing", help="Samples whose feature files are missing or damaged are in no split."),
    ] = False,
    sentences: Annotated[
        str, typer.Option(help="Several sentences of a clip: each is a sample, or the first is, or all joined.")
    ] = "each",
    drop_faceless: Annotated[
        bool, typer.Option("--drop-faceless", help="Samples whose file of faces is missing or damaged are in no split.")
    ] = False,
) -> None:
    """Import .npz features and captions of the original system as a corpus.

    The builders of the original's databases differ: they leave out texts whose face file is missing or damaged
    (--drop-faceless), keep classes of emotion words always (--lexicon), and number texts, where here a sample has the
    name of its clip, or CLIP#1, CLIP#2 and so on (--sentences).

    Example: memofast import-npz --captions ref_captions.json --visual faces --speech wav2vec --vocab vocab.txt
    --out movies
    """
    from memofast.locks import lock_folder
    from memofast.prepare.sources.npz import FeatureFolder, import_export

    folders = {}
    if visual is not None:
        folders["visual"] = FeatureFolder(visual, visual_confidence, visual_rows, visual_rate)
    if speech is not None:
        folders["speech"] = FeatureFolder(speech, 1.0, speech_rows, speech_rate)
    with lock_folder(out):
        corpus, outcomes, notes = import_export(
            captions, folders, vocab, out, name, splits, validation, lexicon, drop_missing, sentences, drop_faceless
        )
    for modality, outcome in outcomes.items():
        print(f"{modality}: {outcome}")
    for note in notes:
        print(f"note: {note}")
    counts = ", ".join(f"{split} {len(corpus.split(split))}" for split in corpus.splits)
    print(f"corpus {corpus.name} at {out}: {counts}")


if __name__ == "__main__":
    run(main, "memofast import-npz")
