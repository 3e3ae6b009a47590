"""What killed processes left in a run folder goes, what a living one writes stays."""

import pytest

from memofast.errors import MemofastError
from memofast.train.folder import recipe_of
from memofast.train.recipe import Recipe, read
from memofast.train.recipe_text import to_yaml


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda whole: whole[: whole.index(b"train:")], "config.yaml: lacks train, validate"),
        (lambda whole: b"", "config.yaml: lacks corpora, model"),
        (lambda whole: b"\xff\xfe" + whole, "config.yaml: not a text file in UTF-8"),
        (lambda whole: whole.replace(b"lr:", b"lr"), "config.yaml, line "),
    ],
)
def test_a_damaged_recipe_of_a_run_is_one_line(tmp_path, contents, message):
    whole = to_yaml(read("demo").plain()).encode()
    (tmp_path / "config.yaml").write_bytes(whole)
    assert recipe_of(tmp_path, Recipe, read, ["train.clip=3"]).train.clip == 3
    (tmp_path / "config.yaml").write_bytes(contents(whole))
    with pytest.raises(MemofastError) as error:
        recipe_of(tmp_path, Recipe, read)
    assert message in str(error.value) and "\n" not in str(error.value)
