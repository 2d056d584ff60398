"""Running commands before the user's eyes, and saying what is right and what is not."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

#: A command that says nothing for so long, in seconds, will not say anything any more.
_LIMIT = 120.0


class StepError(Exception):
    """Something was not as it should be; the message says what was expected and what was seen."""


class Terminal:
    """The screen, and the shell behind it. `variables` are what commands refer to as `$NAME`, secrets among them."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, pause: bool = False) -> None:
        self.folder = folder
        self.variables = dict(environment)
        self._pause = pause
        self._console = Console(highlight=False, soft_wrap=True)

    def step(self, number: int, total: int, title: str) -> None:
        """Begin a step."""
        if self._pause and number > 1:
            self._console.input("[dim]Enter for the next step [/dim]")
        line = Table.grid(padding=(0, 1))
        line.add_row(
            ProgressBar(total=total, completed=number, width=20),
            Text(f"{number}/{total}", "bold"),
            Text(title, "bold"),
        )
        self._console.print()
        self._console.print(Rule(style="blue"))
        self._console.print(line)

    def say(self, text: str) -> None:
        """A word of explanation."""
        self._console.print(Text(text, "italic"))

    def run(self, command: str, *, code: int | None = 0, quiet: bool = False) -> str:
        """Run a bash command, show it with its output, and return that.

        `code` is the exit code that it must have (`None`: any). `quiet` shows the command without its output, for
        one that prints a secret. Raises `StepError`.
        """
        self._console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        try:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=self.folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise StepError(f"`{command}` did not end in {_LIMIT:.0f} s. It said: {late.output!r}") from None
        output = done.stdout.rstrip("\n")
        if quiet and done.returncode == code:
            self._console.print(Text("(its output is a secret and is not shown)", "dim"))
        elif output:
            self._console.print(Text(output, "dim"))
        if code is not None and done.returncode != code:
            raise StepError(f"`{command}` ended with {done.returncode} where {code} was expected")
        return output

    @contextmanager
    def following(self, command: str) -> Iterator[Iterator[str]]:
        """Lines of a bash command's output as they come, while others run; it is ended with the block.

        The lines raise `StepError` where none comes.
        """
        self._console.print(Text.assemble(("$ ", "bold green"), (f"{command} &", "bold")))
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        try:
            yield _lines(process.stdout, command)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()

    def show(self, line: str) -> None:
        """A line that a started command printed."""
        self._console.print(Text(line.rstrip("\n"), "dim"))

    def check(self, what: str, right: bool, seen: str = "") -> None:
        """Say that something is as it should be. Raises `StepError` where it is not."""
        if not right:
            raise StepError(f"not so: {what}" + (f". Seen: {seen}" if seen else ""))
        self._console.print(Text.assemble(("✓ ", "bold green"), what))

    def failed(self, reason: str) -> None:
        """The walk ends here."""
        self._console.print(Text.assemble(("✗ ", "bold red"), (reason, "red")))

    def done(self, text: str) -> None:
        """The walk is over."""
        self._console.print()
        self._console.print(Text(text, "bold green"))


def _lines(stream: IO[bytes], command: str) -> Iterator[str]:
    pending = b""
    while True:
        line, newline, rest = pending.partition(b"\n")
        if newline:
            pending = rest
            yield line.decode(errors="replace")
        elif not select.select([stream], [], [], _LIMIT)[0]:
            raise StepError(f"`{command}` printed nothing for {_LIMIT:.0f} s")
        elif data := os.read(stream.fileno(), 65536):
            pending += data
        else:
            raise StepError(f"`{command}` ended, where more was expected of it")
