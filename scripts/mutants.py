"""Runs the tests of a part of the code against mutants of it: `make mutants`, `make mutants ARGS="--part scheduler"`.

A mutant is the code with one small change, made by cosmic-ray: a comparison, a number, a `not`, an `and`. A mutant that
no test fails for has survived: a test is missing, or the change has no effect. All mutants would take days, so this takes
a sample: places in the code by chance, with a fixed seed, and one mutant of each. The code is changed in a copy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.commands.init import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, WorkResult

_ROOT = Path(__file__).resolve().parents[1]
#: Seconds of the tests for one mutant. A mutant that takes longer is killed.
_SECONDS = 300.0
#: Mutations without effect: unions of types are not evaluated, and nobody can see a missing cache.
_NO_EFFECT = ("core/ReplaceBinaryOperator_BitOr_", "core/RemoveDecorator")


class Part(NamedTuple):
    """A part of `src/cumulet`, what of it is left out, and the tests that have to kill its mutants."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


_PARTS = {
    "common": Part(
        ("common",),
        ("tests/common", "tests/identity", "tests/arm", "tests/scheduler", "tests/security/test_egress.py"),
        # Generated; used by rooms that these tests do not start.
        ("common/kubernetes/objects.py", "common/upgrade.py"),
    ),
    "scheduler": Part(("scheduler",), ("tests/scheduler",)),
    "balancer": Part(("balancer",), ("tests/balancer", "tests/security/test_balancer.py")),
    "network": Part(("network",), ("tests/network",)),
    "access": Part(
        ("registry/access",),
        ("tests/registry/access", "tests/security/test_registry_tokens.py", "tests/security/test_assertions.py"),
    ),
    "node": Part(("node",), ("tests/node", "tests/cases", "tests/end_to_end")),
    "instances": Part(
        ("instances",),
        (
            "tests/instances",
            "tests/cases",
            *(
                f"tests/security/test_{name}.py"
                for name in ("groups", "images", "isolation", "network", "user_namespaces", "volumes")
            ),
        ),
    ),
}


def main() -> None:
    """Print each survivor, and the score of each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=_PARTS, action="append", help="only this part")
    parser.add_argument("--each", type=int, default=40, help="mutants of each part (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cumulet-mutants-") as name:
        copy = Path(name) / "copy"
        _copy(copy)
        os.chdir(copy)
        scores = {part: _run(part, arguments.each, arguments.seed, Path(name)) for part in arguments.part or _PARTS}
    for part, (killed, total) in scores.items():
        print(f"{part}: {killed} of {total} mutants killed")


def _copy(target: Path) -> None:
    """Copy the files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (_ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, target / name)


def _run(name: str, each: int, seed: int, scratch: Path) -> tuple[int, int]:
    """Return how many mutants of a part were killed, and of how many."""
    part = _PARTS[name]
    test = ["pytest", "-q", "-x", "-p", "no:cacheprovider", f"--basetemp={scratch / 'base'}", *part.tests]
    command = shlex.join(["env", f"PYTHONPATH={Path.cwd() / 'src'}", str(_ROOT / ".venv/bin/python"), "-m", *test])
    began = time.monotonic()
    if subprocess.run(shlex.split(command), check=False).returncode:
        raise SystemExit(f"the tests of {name} fail without a mutant")
    print(f"{name}: the tests take {time.monotonic() - began:.0f} s", flush=True)
    killed = total = 0
    for mutation in _sample([*_mutations(part, scratch / f"{name}.sqlite")], each, random.Random(seed)):
        result = mutate_and_test([mutation], command, _SECONDS)
        _end_processes()
        total += 1
        killed += result.is_killed
        _report(total, mutation, result)
    return killed, total


def _end_processes() -> None:
    """Kill what the tests of a mutant left: its own code runs there, and may never end. Only the copy's processes have its path."""
    own = f"PYTHONPATH={Path.cwd() / 'src'}\0".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        # A process may have ended, or be another user's.
        with contextlib.suppress(OSError):
            if own in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)


def _mutations(part: Part, database: Path) -> Iterator[MutationSpec]:
    """Yield all mutations of a part."""
    left_out = {Path("src/cumulet") / name for name in part.without}
    modules = [
        path
        for path in find_modules([Path("src/cumulet") / source for source in part.sources])
        if path not in left_out
    ]
    work = WorkDB(database, WorkDB.Mode.create)
    try:
        init(modules, work, {})
        for item in work.work_items:
            (mutation,) = item.mutations
            if not mutation.operator_name.startswith(_NO_EFFECT):
                yield mutation
    finally:
        work.close()


def _sample(mutations: Iterable[MutationSpec], count: int, chance: random.Random) -> list[MutationSpec]:
    """Return one mutation of each of `count` places: a comparison alone has ten mutations."""
    places: dict[tuple[Path, tuple[int, int]], list[MutationSpec]] = {}
    for mutation in mutations:
        places.setdefault((mutation.module_path, mutation.start_pos), []).append(mutation)
    chosen = chance.sample(sorted(places), min(count, len(places)))
    return [chance.choice(sorted(places[place], key=lambda item: item.operator_name)) for place in chosen]


def _report(number: int, mutation: MutationSpec, result: WorkResult) -> None:
    place = f"{mutation.module_path}:{mutation.start_pos[0]}"
    print(f"{number:4} {'killed  ' if result.is_killed else 'SURVIVED'} {place} {mutation.operator_name}", flush=True)
    if not result.is_killed:
        changed = [
            line for line in (result.diff or "").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
        ]
        print("\n".join(f"       {line}" for line in changed), flush=True)


if __name__ == "__main__":
    sys.exit(main())
