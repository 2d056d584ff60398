"""The users and groups of an image, from its `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

The files are not trusted: they are opened within the image's root and read line by line up to a limit. Invalid lines are
skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cumulet.instances.sandbox import beneath

#: The most bytes of a file and of a line that are read.
_FILE, _LINE = 4 * 1024 * 1024, 64 * 1024
#: Supplementary groups of a process; Linux allows 65536.
_GROUPS = 1024
#: The largest id that the runtime accepts.
_LARGEST = 2**31 - 1
_NUMBER = re.compile(r"[0-9]{1,10}")


class AccountError(Exception):
    """The user or group does not exist, or the image's files cannot be read."""


class Account(NamedTuple):
    """The ids of a process. `groups` are further groups that the image gives its user."""

    uid: int
    gid: int
    groups: list[int]


class Files:
    """The account files of an image whose root is at a path."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, text: str) -> Account:
        """Return the account of `user[:group]`, each a name or a number. Raises `AccountError`, `OSError`."""
        name, _, group = text.partition(":")
        account, uid, gid = self._user(name or "0")
        if group:
            gid = self._group(group)
        more = self._groups_of(account) if account else set()
        return Account(uid, gid, sorted(more))

    def _user(self, name: str) -> tuple[str, int, int]:
        number = _number(name)
        for row in self._rows("passwd", 4):
            uid, gid = _number(row[2]), _number(row[3])
            if uid is not None and gid is not None and (row[0] == name if number is None else uid == number):
                return row[0], uid, gid
        if number is None:
            raise AccountError(f"unable to find user {name[:100]}: no matching entries in passwd file")
        return "", number, 0

    def _group(self, name: str) -> int:
        number = _number(name)
        if number is not None:
            return number
        for row in self._rows("group", 3):
            gid = _number(row[2])
            if row[0] == name and gid is not None:
                return gid
        raise AccountError(f"unable to find group {name[:100]}: no matching entries in group file")

    def _groups_of(self, account: str) -> set[int]:
        groups: set[int] = set()
        for row in self._rows("group", 4):
            gid = _number(row[2])
            if gid is not None and account in re.split(r"[,\s]+", row[3], flags=re.ASCII):
                groups.add(gid)
            if len(groups) > _GROUPS:
                raise AccountError(f"the user {account[:100]} is in more than {_GROUPS} groups")
        return groups

    def _rows(self, name: str, fields: int) -> Iterator[list[str]]:
        """Yield the rows with at least `fields` fields; none if the file is missing."""
        root = beneath.open_folder(self._root)
        try:
            descriptor = beneath.open_in_root(root, f"etc/{name}")
        finally:
            os.close(root)
        if descriptor is None:
            return
        with os.fdopen(descriptor, "rb") as file:
            left = _FILE
            while line := file.readline(_LINE):
                left -= len(line)
                if left < 0 or (len(line) == _LINE and not line.endswith(b"\n")):
                    raise AccountError(
                        f"/etc/{name} of the image is larger than {_FILE} bytes, or one of its lines than {_LINE}"
                    )
                row = line.decode(errors="replace").rstrip("\n").split(":")
                if len(row) >= fields:
                    yield row


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number <= _LARGEST else None
