"""What the command line names: a corpus, and extractors as `KIND` or `KIND=PATH`, each with settings:
`KIND=PATH,NAME=VALUE`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memofast.errors import MemofastError

# in the help of `--audio-stream` and `--video-stream`
TRACK = "by its number among them from 1 or its language (eng)"
HEARD = "one that sounds, is no commentary, and is marked as default"
SEEN = "one that is no thumbnail, and is marked as default"
# in the help of `--column`
COLUMN = (
    "FIELD=COLUMN for a table; fields: id, file, start, end, text, label, group (what belongs together), dialogue, "
    "position (in it; default: the order of the rows), speaker, emotions (labels between | or ;, or a list), value (a "
    "number); a template works too: id=dia{Dialogue_ID}_utt{Utterance_ID}"
)


def corpus_name(given: str | None, out: Path) -> str:
    """The name of the corpus written to `out`, by default that of the folder. Raises: `MemofastError` for a name of
    other characters than words have."""
    name = given or out.resolve().name
    if not re.fullmatch(r"[\w.-]+", name):
        raise MemofastError(f"--name {name!r}: a corpus name has letters, digits, dots, dashes and underscores only")
    return name


@dataclass(frozen=True)
class Kind:
    """needs: what its path names (`FILE`, `FOLDER`), empty where it has none. settings: setting -> what it may be, in
    words."""

    needs: str = ""
    settings: Mapping[str, str] | None = None

    def usage(self, name: str) -> str:
        return name + (f"={self.needs}" if self.needs else "")


def parse_choice(text: str, option: str, kinds: Mapping[str, Kind]) -> tuple[str, Path | None, dict[str, str]]:
    """Kind, path and settings of `text`; raises MemofastError saying what `option` takes."""
    head, *given = re.split(r",(?=\w+=)", text)  # a comma within a path is followed by no NAME=
    name, _, path = head.partition("=")
    kind = kinds.get(name)
    if kind is None or bool(kind.needs) != bool(path):
        usages = [kind.usage(name) for name, kind in kinds.items()]
        raise MemofastError(
            f"{option} is {' or '.join(filter(None, [', '.join(usages[:-1]), usages[-1]]))}, not {text!r}"
        )
    settings = dict(setting.split("=", 1) for setting in given)
    known = kind.settings or {}
    if unknown := next((setting for setting in settings if setting not in known), None):
        takes = ", ".join(f"{setting}={values}" for setting, values in known.items()) or "no settings"
        raise MemofastError(f"{option} {name} has no setting {unknown!r}; it takes {takes}")
    return name, Path(path) if path else None, settings
