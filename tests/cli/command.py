"""Runs the installed console script, and lists its verbs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import traceback
import types
import warnings
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from cumulet.cli.app import app

#: msgspec imports it on first use, when the user of a test may not be able to read the interpreter's files.
_PRELOADED = zoneinfo
SCRIPT = Path(sys.executable).with_name("cumulet")
#: Verbs that create an installation if there is none, or run in the foreground.
LONG = {("up",), ("demo",), ("serve",), ("scheduler",), ("controllers",), ("node",), ("balancer",), ("network",)}

Words = tuple[str, ...]


class Result(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    output: str
    error: str

    def is_one_line(self, code: int = 1) -> str:
        """Check that the command failed with a single line on standard error, and return it."""
        assert self.code == code, self
        assert self.error.startswith("ERROR: "), self
        assert self.error.count("\n") == 1, self
        return self.error

    def is_usage_error(self) -> str:
        """Check that the command refused its arguments, and return the message."""
        assert self.code == 2, self
        assert "Traceback" not in self.error
        assert self.error.startswith("Usage: "), self
        return self.error


class Verb(NamedTuple):
    """A verb: its words, the first line of its help, its parameters, and required arguments with some value."""

    words: Words
    summary: str
    parameters: tuple[TyperOption | TyperArgument, ...]
    arguments: Words


def run_script(*arguments: str, data_dir: Path, environment: Mapping[str, str] | None = None) -> Result:
    """Run the script as a new process, with a data directory."""
    done = subprocess.run(
        [SCRIPT, *arguments],
        env=_environment(data_dir, environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def run(
    *arguments: str, data_dir: Path, environment: Mapping[str, str] | None = None, user: int | None = None
) -> Result:
    """Run the script like `run_script`, in a fork of this process: its modules are imported already.

    `user` is the id of the user and group that run it.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as error:
        process = os.fork()
        if process == 0:
            words = [str(SCRIPT), *arguments]
            _become(words, _environment(data_dir, environment), output.fileno(), error.fileno(), user)
        _, status = os.waitpid(process, 0)
        output.seek(0)
        error.seek(0)
        return Result(os.waitstatus_to_exitcode(status), output.read(), error.read())


def _environment(data_dir: Path, more: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "CUMULET_DATA_DIR": str(data_dir), "COLUMNS": "200", **(more or {})}


def _become(words: list[str], environment: Mapping[str, str], output: int, error: int, user: int | None) -> NoReturn:
    code = 1
    try:
        signal.alarm(60)
        for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (error, 2)):
            os.dup2(descriptor, target)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))
        warnings.resetwarnings()
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = words
        script = compile(Path(words[0]).read_text(), words[0], "exec")
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(script, module.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def verbs() -> list[Verb]:
    """Return every verb of the command."""
    return list(_below(typer.main.get_command(app), ()))


def _below(command: object, words: Words) -> Iterator[Verb]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from _below(child, (*words, name))
        return
    assert isinstance(command, TyperCommand)
    parameters = tuple(item for item in command.params if isinstance(item, TyperOption | TyperArgument))
    arguments = [
        word
        for item in parameters
        if item.required
        for word in ((item.opts[0], "value") if isinstance(item, TyperOption) else ("value",))
    ]
    if words == ("registry", "token"):
        arguments += ["--scope-map", "value"]  # one of two options is required
    yield Verb(words, (command.help or "").partition("\n")[0], parameters, tuple(arguments))
