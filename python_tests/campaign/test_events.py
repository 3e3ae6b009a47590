"""File events below a folder, and what happens at one of them."""

import os
import shutil
import signal

import children
from events import Events


def work(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a").write_text("a")
    (folder / "out" / "a").read_text()  # none
    os.rename(folder / "out" / "a", folder / "out" / "b")
    (folder.parent / "elsewhere").write_text("none")
    os.chdir(folder / "out")
    open("c", "a").close()
    os.chdir(folder)
    shutil.rmtree("out")  # itself, b and c within an open folder, and the folder


def test_events_are_counted_below_the_folder_by_whatever_name(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    events = Events(folder)
    ended = children.start(lambda: work(folder), folder, events.watch).end()
    assert (ended.code, ended.error, events.count) == (0, "", 8)


def test_a_child_dies_before_the_event_happens(tmp_path):
    events = Events(tmp_path)

    def at(number, event):
        if number == 3:
            assert event == "os.rename"
            os.kill(os.getpid(), signal.SIGKILL)

    ended = children.start(lambda: work(tmp_path), tmp_path, lambda: events.watch(at)).end()
    assert ended.code == -signal.SIGKILL and events.count == 3
    assert os.listdir(tmp_path / "out") == ["a"]
    assert ended.fault() == "ends by SIGKILL: no word" and ended.fault((-signal.SIGKILL,)) is None


def test_what_is_raised_at_an_event_is_raised_by_the_call(tmp_path):
    def at(number, event):
        raise OSError(28, "full")

    ended = children.start(lambda: work(tmp_path), tmp_path, lambda: Events(tmp_path).watch(at)).end()
    assert ended.code == 1 and ended.fault() == "traceback: OSError: [Errno 28] full"
    assert not os.listdir(tmp_path)
