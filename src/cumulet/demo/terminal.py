"""Runs commands visibly on a terminal and reports checks."""

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

#: Seconds after which a command without output has failed.
_LIMIT = 120.0


class StepError(Exception):
    """A check failed. The message names the expectation and the result."""


class Terminal:
    """A terminal and a shell. `variables` are the environment of commands, including secrets."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, pause: bool = False) -> None:
        self.folder = folder
        self.variables = dict(environment)
        self._pause = pause
        self._console = Console(highlight=False, soft_wrap=True)

    def step(self, number: int, total: int, title: str) -> None:
        """Print the heading of a step."""
        if self._pause and number > 1:
            self._console.input("[dim]Press Enter for the next step [/dim]")
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
        """Print an explanation."""
        self._console.print(Text(text, "italic"))

    def run(self, command: str, *, code: int | None = 0, quiet: bool = False) -> str:
        """Run a bash command, print it and its output, and return the output.

        `code` is the expected exit code (`None`: any). `quiet` hides the output of a command that prints a secret.
        Raises `StepError`.
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
            raise StepError(f"`{command}` did not end in {_LIMIT:.0f} s. Its output: {late.output!r}") from None
        output = done.stdout.rstrip("\n")
        if quiet and done.returncode == code:
            self._console.print(Text("(output hidden: it contains a secret)", "dim"))
        elif output:
            self._console.print(Text(output, "dim"))
        if code is not None and done.returncode != code:
            raise StepError(f"`{command}` ended with exit code {done.returncode}, expected {code}")
        return output

    @contextmanager
    def following(self, command: str) -> Iterator[Iterator[str]]:
        """Run a bash command in the background and yield its output lines. It is terminated at the end of the block.

        The iterator raises `StepError` if no line comes.
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
        """Print a line of a background command."""
        self._console.print(Text(line.rstrip("\n"), "dim"))

    def check(self, expectation: str, holds: bool, output: str = "") -> None:
        """Print that an expectation holds. Raises `StepError` if it does not."""
        if not holds:
            raise StepError(f"check failed: {expectation}" + (f". Output: {output}" if output else ""))
        self._console.print(Text.assemble(("✓ ", "bold green"), expectation))

    def failed(self, reason: str) -> None:
        """Print why the demonstration failed."""
        self._console.print(Text.assemble(("✗ ", "bold red"), (reason, "red")))

    def done(self, text: str) -> None:
        """Print that the demonstration has succeeded."""
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
            raise StepError(f"`{command}` ended before its output was complete")
