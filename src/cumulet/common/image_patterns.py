"""Patterns that tell which images a credential is for, as a kubelet matches the keys of a pull secret.

A pattern is a registry, where `*` stands for a part of one label, with an optional port and an optional prefix of the
repository: `*.azurecr.io`, `registry.example:5000/team`. The source is Kubernetes' `pkg/credentialprovider/keyring.go`
(`URLsMatch`); the keys have Go's syntax of `path.Match`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cumulet.common.ascii import fold

#: Characters of a pattern.
LONGEST = 4096
_SCHEME = re.compile(r"[hH][tT][tT][pP][sS]?://")


class Pattern(NamedTuple):
    """A parsed pattern: the labels of the host, the port, if any, and the prefix of the repository with its first slash."""

    labels: tuple[str, ...]
    port: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Pattern | None:
        """Return the pattern in a key of a pull secret, or `None` if no image can match it.

        A scheme is ignored, and so is the version of the registry's API at the start of the path.
        """
        text = text.strip(" ")
        if len(text) > LONGEST:
            return None
        host, slash, path = _SCHEME.sub("", text, count=1).partition("/")
        path = slash + path
        if path in ("/v1", "/v2") or path.startswith(("/v1/", "/v2/")):
            path = path[3:]
        host, port = _split(fold(host))
        if not host:
            return None
        return cls(tuple(host.split(".")), port, "" if path == "/" else path)

    @property
    def key(self) -> str:
        """The text by which a kubelet orders patterns, the greatest first, so that longer paths come before shorter ones."""
        host = ".".join(self.labels)
        return f"{f'[{host}]' if ':' in host else host}{f':{self.port}' if self.port else ''}{self.path}"

    def matches(self, name: str) -> bool:
        """Return whether an image of that `registry/repository` matches."""
        registry, slash, path = name.partition("/")
        host, port = _split(registry)
        labels = host.split(".")
        return (
            port == self.port
            and len(labels) == len(self.labels)
            and (slash + path).startswith(self.path)
            and all(_matches(glob, label) for glob, label in zip(self.labels, labels, strict=True))
        )


def _split(host: str) -> tuple[str, str]:
    """Split the port off a host, and the brackets of an IPv6 address, as Go's `net.SplitHostPort` does."""
    name, colon, port = host.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):
        name, port = host, ""
    return name.removeprefix("[").removesuffix("]") if ":" in name else name, port


def _matches(glob: str, text: str) -> bool:
    """Match one label (Go's `path.Match`). The time is at most the product of the lengths. A malformed glob never matches."""
    tokens = _tokens(glob)
    if tokens is None:
        return False
    position = token = 0
    star, resume = -1, 0
    while position < len(text):
        if token < len(tokens) and tokens[token] == "*":
            star, resume = token, position
            token += 1
        elif token < len(tokens) and _matches_one(tokens[token], text[position]):
            token, position = token + 1, position + 1
        elif star >= 0:
            resume += 1
            token, position = star + 1, resume
        else:
            return False
    return all(item == "*" for item in tokens[token:])


def _tokens(glob: str) -> list[str] | None:
    r"""Return the parts of a glob: `*`, `?`, a class such as `[a-z]`, or `\` and a character; `None` if it is malformed."""
    tokens, index = [], 0
    while index < len(glob):
        character = glob[index]
        end = index + 1
        if character == "[":
            end = glob.find("]", index + 2) + 1
            if end == 0:
                return None
        elif character == "\\":
            end = index + 2
            if end > len(glob):
                return None
        tokens.append(glob[index:end] if character in "*?[\\" else f"\\{character}")
        index = end
    return tokens


def _matches_one(part: str, character: str) -> bool:
    if part == "?":
        return True
    if part.startswith("\\"):
        return part[1] == character
    inside = part[1:-1]
    negated = inside.startswith("^")
    ranges = re.findall(r"(.)-(.)|(.)", inside[negated:], re.DOTALL)
    found = any(low <= character <= high if low else single == character for low, high, single in ranges)
    return found is not negated
