"""The command line: `memofast COMMAND` is `python -m memofast.COMMAND`."""

from __future__ import annotations

import importlib
import os
import select
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from memofast.errors import MemofastError, MemofastWarning, nearest
from memofast.signals import Ending, Stopped

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "prepare": "Turn media, subtitles and tables into a corpus.",
    "import-features": "Make a corpus of a feature pickle of MMSA or MultiBench.",
    "import-legacy": "Make a corpus of the original system's databases.",
    "import-npz": "Make a corpus of the original system's features.",
    "convert": "Turn the original's checkpoints into models, and back.",
    "parts-of-speech": "Add parts of speech and polarities of words.",
    "inspect": "Count a corpus and show samples of it.",
    "normalise": "Z-norm feature rows within each speaker or group.",
    "pretrain": "Pre-train a model on one or more corpora.",
    "finetune": "Fine-tune an emotion model and print one table.",
    "sweep": "Fine-tune over a grid and name the best by validation.",
    "recipe": "List the shipped recipes, or say what one may hold.",
    "evaluate": "Say how good a fine-tuned model is, on which data.",
    "baseline": "Say how far simple models come on a corpus.",
    "predict": "Say what a film expresses, utterance by utterance.",
    "extract": "Write a model's hidden states of every sample.",
    "export": "Write an emotion model for other runtimes.",
    "emotion-text": "Train text emotion models on labelled texts.",
    "pseudo-label": "Label every sentence of a corpus with emotions.",
    "denseface": "Train and show the network behind the face rows.",
    "download": "Fetch a model file and verify its checksum.",
    "cache": "Keep what fixed encoders make of samples.",
    "runs": "List runs; clean, verify and export them.",
    "info": "Say what was built, what is here, and what is missing.",
}
_PIPE_GONE = 141  # as a shell reports who wrote into a pipe that nobody reads: 128 + SIGPIPE


def run(command: Callable | typer.Typer, name: str) -> None:
    """Run one command function, or an app of several, as a program, which ends with `SystemExit`.

    Whatever goes wrong is one line on stderr, and `--debug` anywhere on the command line shows the traceback instead.
    Exit codes: 2 for a mistake of the user, a broken input or a full disk; 1 for a fault of memofast; 130, 143 and 129
    after Ctrl-C, SIGTERM and SIGHUP, which unwind, so that nothing is left half-written.
    """
    _run(lambda: command, name)


@contextmanager
def _notes() -> Iterator[None]:
    """Print warnings of our own as notes of one line, each once; the others as Python does."""
    others, said = warnings.showwarning, set()

    def show(message: Warning | str, category: type[Warning], *where: object, **more: object) -> None:
        if not issubclass(category, MemofastWarning):
            others(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", MemofastWarning)
        warnings.showwarning = show
        yield


def _run(find: Callable[[], Callable | typer.Typer], name: str) -> None:
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    _write_any_letter()
    try:
        with _notes(), Ending(name):
            code = _invoke(find(), name)
            sys.stdout.flush()
    except SystemExit as ended:
        if isinstance(ended, Stopped):
            print(f"{name}: {ended.told}", file=sys.stderr)
        raise
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        code = _PIPE_GONE
    except BaseException as error:
        if debug:
            raise
        line, code = told(error)
        place = getattr(getattr(error, "ctx", None), "command_path", name)  # of a command of several: its own name
        print(f"{place}: {line}", file=sys.stderr)
    sys.exit(code)


def told(error: BaseException) -> tuple[str, int]:
    """What to say in one line of what ended a command, and its exit code."""
    line, code = _kind(error)
    return line if isinstance(error, MemofastError) else " ".join(line.split()), code


def _kind(error: BaseException) -> tuple[str, int]:
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, MemofastError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if hasattr(error, "format_message"):  # of the command line; no class of it is public
        return f"{error.format_message().rstrip('.')}; --help says what there is", 2
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read; --debug shows which part reads it", 2
    if isinstance(error, MemoryError) or "can't allocate memory" in first or "out of memory" in first.lower():
        return "memory is full; end other programs, or ask for less at once (--help, or train.samples of a recipe)", 2
    if "No space left on device" in str(error):
        return f"{first}; free space and run again", 2
    if isinstance(error, UnicodeEncodeError):
        letters = ascii(error.object[error.start : error.end])
        return f"{letters} cannot be written in {error.encoding}; set PYTHONUTF8=1 and run again", 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}; check the path, its permissions and the disk's room", 2
    if isinstance(error, ImportError):
        return f"{first}; `memofast info` says what is missing and how to get it", 2
    return (
        f"a fault of memofast, {type(error).__name__}: {first}; run it again with --debug and report what that prints, "
        "with the output of `memofast info`"
    ), 1


def _invoke(command: Callable | typer.Typer, name: str) -> int:
    """Run it with the arguments of the command line. Returns: its exit code."""
    import typer

    parsed = typer.main.get_command(_app_of(command))
    try:
        with parsed.make_context(name, sys.argv[1:]) as context:
            parsed.invoke(context)
    except typer.Exit as ended:  # as --help does
        return ended.exit_code
    return 0


def _app_of(command: Callable | typer.Typer) -> typer.Typer:
    """A command as an app, whose help is plain text: square brackets in it are no markup."""
    import typer

    if isinstance(command, typer.Typer):
        return command
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(epilog="--debug shows the traceback of an error.")(command)
    return app


def _write_any_letter() -> None:
    """A letter that the terminal's encoding lacks is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _nobody_reads() -> bool:
    """Whether stdout or stderr is a pipe whose reader has gone; then nothing more is written there."""
    gone = select.poll()
    for number in (1, 2):
        gone.register(number, 0)
    broken = [number for number, event in gone.poll(0) if event & select.POLLERR]
    for number in broken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(broken)


def command_module(name: str) -> ModuleType:
    """The module whose `main` is the command: `memofast.NAME`, or `memofast.NAME.command` where NAME is a folder."""
    module = importlib.import_module(f"memofast.{name.replace('-', '_')}")
    return importlib.import_module(f"{module.__name__}.command") if hasattr(module, "__path__") else module


def main() -> None:
    """Entry point of the `memofast` program: hands the rest of the line to one command."""
    if "_MEMOFAST_COMPLETE" in os.environ:  # a shell asks, as --install-completion taught it
        import typer

        typer.main.get_command(_program())(prog_name="memofast")
    name = sys.argv[1].replace("_", "-") if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        del sys.argv[1]
        _run(lambda: command_module(name).main, f"memofast {name}")
    elif name:
        run(_program(), "memofast")
    sys.argv.append("--help")
    try:
        run(_program(), "memofast")
    finally:
        sys.exit(2)


def _program() -> typer.Typer:
    """What `memofast` says without a command: help, version, completion of commands and of their options."""
    import typer

    class Program(typer.core.TyperGroup):
        def list_commands(self, ctx):
            return list(COMMANDS)

        def get_command(self, ctx, name):
            if name not in COMMANDS:
                raise MemofastError(f"no command {name!r}{nearest(name, COMMANDS)}; memofast --help describes them")
            return typer.main.get_command(_app_of(command_module(name).main))

        def format_commands(self, ctx, formatter):
            with formatter.section("Commands"):
                formatter.write_dl(list(COMMANDS.items()))  # imports none of them

    def version(asked: bool) -> None:
        if asked:
            from memofast.version import __version__

            print(f"memofast {__version__}")
            raise typer.Exit

    app = typer.Typer(cls=Program, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})

    @app.callback(epilog="memofast COMMAND --help explains a command and shows an example.")
    def _describe(
        _version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Say which this is."),
    ) -> None:
        """From talking-face video to pre-trained and fine-tuned emotion models over text, face and speech."""

    return app
