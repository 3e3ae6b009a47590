"""The command line: `memofast COMMAND` is `python -m memofast.COMMAND`."""

import importlib
import signal
import sys
from collections.abc import Callable
from types import ModuleType

import typer

from memofast.errors import MemofastError

_COMMANDS = (
    "pretrain",
    "finetune",
    "recipe",
    "evaluate",
    "extract",
    "export",
    "predict",
    "prepare",
    "normalise",
    "emotion_text",
    "pseudo_label",
    "inspect",
    "info",
    "download",
    "import_npz",
    "import_features",
    "denseface",
)


def run(command: Callable | typer.Typer, name: str) -> None:
    """Run one command function, or an app of several, as a program.

    A user's mistake (`MemofastError`), or a file with brackets without end, becomes one line on stderr and exit code 2;
    `--debug` anywhere on the command line shows the traceback instead. SIGTERM ends it as an exit does, with code 143,
    so that nothing is left half-written; Ctrl-C with 130.
    """
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    if isinstance(command, typer.Typer):
        app = command
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(epilog="--debug shows the traceback of an error.")(command)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        app(prog_name=name)
    except MemofastError as error:
        if debug:
            raise
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except RecursionError:
        if debug:
            raise
        print(f"{name}: a file is nested too deeply to be read; --debug shows which part reads it", file=sys.stderr)
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def command_module(name: str) -> ModuleType:
    """The module whose `main` is the command: `memofast.NAME`, or `memofast.NAME.command` where NAME is a folder."""
    module = importlib.import_module(f"memofast.{name}")
    return importlib.import_module(f"memofast.{name}.command") if hasattr(module, "__path__") else module


def main() -> None:
    """Entry point of the `memofast` program: hands the rest of the line to one command."""
    names = [command.replace("_", "-") for command in _COMMANDS]
    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help"}:
        print("usage: memofast COMMAND [--help]\n\ncommands: " + ", ".join(names))
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if sys.argv[1] == "--version":
        from memofast.version import __version__

        print(f"memofast {__version__}")
        return
    chosen = sys.argv.pop(1).replace("-", "_")
    if chosen not in _COMMANDS:
        print(f"memofast: no command {chosen!r}; there are {', '.join(names)}", file=sys.stderr)
        sys.exit(2)
    run(command_module(chosen).main, f"memofast {chosen.replace('_', '-')}")
