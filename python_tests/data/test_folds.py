import pytest

from memofast.data import Corpus
from memofast.data.folds import leave_groups_out, read_fold, read_groups, write_folds, write_groups
from memofast.errors import MemofastError


@pytest.fixture
def grouped(make_corpus):
    """A corpus whose samples belong to four speakers in turn; its ids."""
    corpus = make_corpus()
    ids = sorted(corpus.stores["text"].ids)
    write_groups(corpus.path, "speaker", {id: f"s{number % 4}" for number, id in enumerate(ids)})
    return corpus.path, ids


def test_groups_are_kept(grouped):
    path, ids = grouped
    assert read_groups(Corpus.open(path), "speaker")[ids[5]] == "s1"
    with pytest.raises(MemofastError, match="it has speaker"):
        read_groups(Corpus.open(path), "dialogue")
    with pytest.raises(MemofastError, match="no sample 'nobody'"):
        write_groups(path, "speaker", {"nobody": "s1"})


def test_every_group_is_tested_once_and_no_part_shares_one(grouped):
    path, ids = grouped
    group_of = read_groups(Corpus.open(path), "speaker")
    write_folds(path, "speaker", leave_groups_out(group_of), by="speaker")
    corpus, tested = Corpus.open(path), []
    for number in range(1, 5):
        fold = read_fold(corpus, "speaker", number)
        assert sorted(id for part in fold.values() for id in part.ids) == ids
        assert fold["test"].name == f"speaker-{number:02}/test"
        assert len({group_of[id] for id in fold["test"].ids}) == 1
        tested += fold["test"].ids
    assert sorted(tested) == ids
    with pytest.raises(MemofastError, match=r"no fold 5 of 'speaker'; it has speaker \(1 to 4\)"):
        read_fold(corpus, "speaker", 5)


def test_fewer_folds_than_groups_keep_groups_whole():
    group_of = {f"{number}": f"g{number % 7}" for number in range(70)}
    folds = leave_groups_out(group_of, 3)
    for fold in folds:
        groups = [{group_of[id] for id in fold[part]} for part in ("train", "validation", "test")]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert sorted(id for fold in folds for id in fold["test"]) == sorted(group_of)
    for count in (2, 8):
        with pytest.raises(MemofastError, match="3 folds"):
            leave_groups_out(group_of, count)


def test_leaks_are_refused(grouped):
    path, ids = grouped
    with pytest.raises(MemofastError, match=f"leaks: sample '{ids[0]}' is in train and in test"):
        write_folds(path, "bad", [{"train": ids[:4], "test": ids[:1]}])
    with pytest.raises(MemofastError, match="fold 1 of bad leaks: speaker 's0' is in train and in test"):
        write_folds(path, "bad", [{"train": ids[:4], "test": ids[4:5]}], by="speaker")
    with pytest.raises(MemofastError, match="part 'tst'"):
        write_folds(path, "bad", [{"tst": ids[:4]}])
    assert "folds" not in Corpus.open(path).description
