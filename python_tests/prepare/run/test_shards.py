import numpy as np
import pytest

from memofast.prepare.run.corpus_stores import CorpusStores, StorePlan
from memofast.prepare.run.extraction import Extracted, SoundRows
from memofast.prepare.run.report import Problem
from memofast.prepare.run.shards import clips_in, make_tasks
from memofast.prepare.run.stopwatch import Stopwatch
from memofast.prepare.sources.clips import Clip

PLAN = StorePlan(speech={"width": 2, "columns": ("times",)})


def heard(id, value=1.0):
    return Extracted(Clip(id), sound=SoundRows(np.full((3, 2), value, np.float32), np.arange(3, dtype=np.float32)))


def files_of(*sizes):
    return [[Clip(f"{file}-{number}") for number in range(size)] for file, size in enumerate(sizes)]


def ids(task):
    return [clip.id for clip in task.clips]


def test_small_files_share_a_task_and_a_film_is_one_alone(tmp_path):
    tasks = make_tasks(files_of(*[1] * 300, 90, 1), tmp_path, (), workers=1)
    assert [len(task.clips) for task in tasks] == [32] * 9 + [12, 90, 1]
    assert len({task.folder for task in tasks}) == len(tasks)


def test_few_files_are_shared_out_evenly(tmp_path):
    assert [len(task.clips) for task in make_tasks(files_of(*[1] * 30), tmp_path, (), workers=2)] == [3] * 10
    assert len(make_tasks(files_of(1, 1, 1), tmp_path, (), workers=8)) == 3


def test_a_task_keeps_whole_files_and_leaves_done_clips_out(tmp_path):
    done = {"0-0", "1-0", "1-1"}
    (task,) = make_tasks(files_of(3, 2), tmp_path, done, workers=1)
    assert ids(task) == ["0-1", "0-2"] and [len(file) for file in task.files] == [3]
    assert [ids(single) for single in task.alone()] == [ids(task)]
    assert make_tasks(files_of(1), tmp_path, {"0-0"}, workers=1) == []


def test_a_shard_is_taken_whole_and_deleted(tmp_path):
    shard = tmp_path / "shards" / "0"
    with CorpusStores(shard, PLAN, None) as stores:
        stores.add(heard("a"))
        stores.add(Extracted(Clip("b"), problems=[Problem("unreadable", "b.mp4")]))
    assert clips_in(shard) == 2
    with CorpusStores(tmp_path / "corpus", PLAN, None) as stores:
        stores.add(heard("c"))
        stores.take(shard)
        assert stores.done("a") and stores.done("c") and not stores.done("b")
        assert stores.journal.outcomes["b"].problems == [Problem("unreadable", "b.mp4"), *_rest()]
    assert not shard.exists()


def _rest():
    return [Problem("no text"), Problem("nothing usable")]


def test_rows_without_their_text_record_are_not_taken(tmp_path):
    """As a kill between the commits of two stores leaves them."""
    shard = tmp_path / "0"
    with CorpusStores(shard, PLAN, None) as stores:
        stores.add(heard("a"))
        stores.speech.put("torn", np.ones((1, 2)), times=[0.0])
    with CorpusStores(tmp_path / "corpus", PLAN, None) as stores:
        stores.take(shard)
        assert stores.speech.done("a") and not stores.speech.done("torn")


def test_a_shard_taken_twice_changes_nothing(tmp_path):
    """As a kill between taking and deleting it leaves it."""
    corpus = tmp_path / "corpus"
    for value in (1.0, 2.0):
        with CorpusStores(tmp_path / "0", PLAN, None) as stores:
            stores.add(heard("a", value))
        with CorpusStores(corpus, PLAN, None) as stores:
            stores.take(tmp_path / "0")
    with CorpusStores(corpus, PLAN, None) as stores:
        from memofast.store import FeatureStore

        stores.speech.finish()
        assert FeatureStore.open(corpus / "speech").read("a")["rows"].max() == 1.0


def test_parts_inside_parts_are_counted_once():
    watch = Stopwatch()
    with watch("outer"), watch("inner"):
        sum(range(100_000))
    assert watch.seconds["inner"] > watch.seconds["outer"] > 0
    assert list(watch.timed("items", iter([1, 2]))) == [1, 2]
    other = Stopwatch()
    other.add(watch.as_json())
    assert other.seconds == watch.seconds


@pytest.mark.parametrize("folder", ["none", "torn"])
def test_a_shard_that_is_not_there_yet_has_no_clips(tmp_path, folder):
    (tmp_path / "torn").mkdir()
    assert clips_in(tmp_path / folder) == 0
