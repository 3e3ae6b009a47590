"""The vocabulary that corpora were prepared with, so that every model trained on them carries it."""

from collections.abc import Sequence
from pathlib import Path

from memofast.data.corpus import Corpus
from memofast.errors import MemofastError
from memofast.model.folder import model_folder
from memofast.prepare.text.word_pieces import WordPieces, has_vocabulary


def vocabulary_of(corpora: Sequence[Corpus], init: str | Path | None = None) -> Path | None:
    """The folder that holds the vocabulary of these corpora: one of them, or the model that a training starts from;
    None where none does.

    Raises: `MemofastError` where corpora were prepared with different vocabularies, or hold a damaged one.
    """
    prepared = {corpus.stores["text"].meta.get("fingerprint") or "": corpus for corpus in corpora}
    prepared.pop("", None)
    if len(prepared) > 1:
        one, other, *_ = prepared.values()
        raise MemofastError(
            f"corpora {one.path} and {other.path} were prepared with different vocabularies; prepare them with the same"
        )
    for corpus in corpora:
        if has_vocabulary(corpus.path) and (not prepared or WordPieces(corpus.path).fingerprint in prepared):
            return corpus.path
    if init is None or not has_vocabulary(folder := model_folder(Path(init))):
        return None
    try:
        return folder if WordPieces(folder).fingerprint in prepared else None
    except MemofastError:  # a tokenizer of another kind, which no corpus was prepared with
        return None


def check_tokenizer(corpus: Corpus, folder: Path, where: str) -> list[str]:
    """Lines where nobody can say whether the words of a corpus are in a model's word pieces. where: what names the
    model's folder, for messages.

    Raises: `MemofastError` where the folder's tokenizer is not the one that the corpus was prepared with.
    """
    prepared = corpus.stores["text"].meta.get("fingerprint")
    if not has_vocabulary(folder):
        lacking = f"{folder} has neither tokenizer.json nor vocab.txt, nor vocab.json with merges.txt"
    elif not prepared:
        lacking = f"corpus {corpus.path} does not say its own"
    elif WordPieces(folder).fingerprint == prepared:
        return []
    else:
        raise MemofastError(
            f"{where}: {folder} has other word pieces than corpus {corpus.path} was prepared with; prepare it with "
            f"--vocab {folder}"
        )
    return [f"whether the words of the corpus are in the word pieces of {where} is not known: {lacking}"]
