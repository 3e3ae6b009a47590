"""The command `memofast parts-of-speech`: parts of speech and polarities of a corpus's words."""

from pathlib import Path
from typing import Annotated

import typer

from memofast.cli import run


def main(
    corpus: Annotated[Path, typer.Argument(help="corpus folder")],
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines of id, part_of_speech and polarity or words; or streams of CORPUS")
    ] = None,
    senses: Annotated[Path | None, typer.Option(help="SentiWordNet file: polarities of words by first sense")] = None,
) -> None:
    """Give every word a part of speech and a polarity, which the objective lare reads.

    Example: memofast parts-of-speech corpora/films tagged.jsonl --senses SentiWordNet_3.0.0.txt

    A line is {"id": "film_7", "part_of_speech": ["PRP", "VBP", "RB", "JJ"], "words": ["i", "am", "so", "glad"]}.
    Parts of speech are verb, adjective, adverb, noun or other, or tags of a tagger; polarities, which may stand
    in place of words, are negative, positive or neutral. The corpus keeps its old text store until all is there.
    """
    from memofast.errors import MemofastError
    from memofast.locks import lock_folder
    from memofast.prepare.text.parts_of_speech import add_parts_of_speech

    if senses and not file:
        raise MemofastError("--senses needs FILE, whose words it looks up")
    with lock_folder(corpus):
        added = add_parts_of_speech(corpus, file, senses)
    print(f"{added.told:,} samples have parts of speech, {added.untold:,} without are of other, neutral words")


if __name__ == "__main__":
    run(main, "memofast parts-of-speech")
