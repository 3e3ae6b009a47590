import pytest

from memofast.data import Corpus
from memofast.data.folds import hold_out, leave_groups_out, read_fold, read_groups, write_folds, write_groups
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


@pytest.mark.parametrize("lines", ["a0\ts1\na0\ts2\n", "a0 s1\n", "a0\ts1\n\n"])
def test_groups_that_are_no_table_are_refused(grouped, lines):
    (grouped[0] / "groups" / "speaker.tsv").write_text(lines)
    with pytest.raises(MemofastError, match=r"line \d of .*speaker\.tsv is"):
        read_groups(Corpus.open(grouped[0]), "speaker")


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
    for number in (0, 5):
        with pytest.raises(MemofastError, match=rf"no fold {number} of 'speaker'; it has speaker \(1 to 4\)"):
            read_fold(corpus, "speaker", number)


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


@pytest.mark.parametrize(("count", "groups_tested"), [(None, [1] * 7), (3, [3, 2, 2]), (5, [2, 2, 1, 1, 1])])
def test_validation_is_the_next_fold_s_test_part(count, groups_tested):
    """Group g0 has one sample, g1 two and so on, so that no two parts are alike."""
    group_of = {f"{group}-{number}": f"g{group}" for group in range(7) for number in range(group + 1)}
    folds = leave_groups_out(group_of, count)
    assert [len({group_of[id] for id in fold["test"]}) for fold in folds] == groups_tested
    for fold, following in zip(folds, [*folds[1:], folds[0]], strict=True):
        assert fold["validation"] == following["test"]
        assert sorted(id for part in fold.values() for id in part) == sorted(group_of)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.2, 2), (0.25, 2), (0.26, 3), (0.875, 7), (0.999, 7)])
def test_a_share_is_held_out_and_never_all(share, count):
    ids = [f"s{number}" for number in (5, 3, 1, 7, 0, 2, 6, 4)]
    kept, held = hold_out(ids, share)
    assert len(held) == count and [id for id in ids if id in held] == held and [id for id in ids if id in kept] == kept
    assert sorted(kept + held) == sorted(ids)
    assert set(hold_out(sorted(ids), share)[1]) == set(held)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("sizes", [(12,), (1, 40), (40, 1), (3, 1, 20)])
def test_whole_groups_are_held_out_and_never_all(sizes, share):
    group_of = {f"{group}-{number}": f"g{group}" for group, size in enumerate(sizes) for number in range(size)}
    kept, held = hold_out(list(group_of), share, group_of)
    assert kept and sorted(kept + held) == sorted(group_of)
    assert bool(held) == (len(sizes) > 1)
    assert not {group_of[id] for id in kept} & {group_of[id] for id in held}


def test_groups_are_held_out_until_the_share_of_samples_is_reached():
    """Seven groups of three samples: two groups are less than a share of 7 in 21, three are more."""
    group_of = {f"{group}-{number}": f"g{group}" for group in range(7) for number in range(3)}
    for share, groups in ((6 / 21, 2), (7 / 21, 3), (9 / 21, 3), (10 / 21, 4)):
        assert len(hold_out(list(group_of), share, group_of)[1]) == 3 * groups


def test_leaks_are_refused(grouped):
    path, ids = grouped
    with pytest.raises(MemofastError, match=f"leaks: sample '{ids[0]}' is in train and in test"):
        write_folds(path, "bad", [{"train": ids[:4], "test": ids[:1]}])
    with pytest.raises(MemofastError, match="fold 1 of bad leaks: speaker 's0' is in train and in test"):
        write_folds(path, "bad", [{"train": ids[:4], "test": ids[4:5]}], by="speaker")
    with pytest.raises(MemofastError, match="part 'tst'"):
        write_folds(path, "bad", [{"tst": ids[:4]}])
    assert "folds" not in Corpus.open(path).description
