"""What a request is about: its path read segment by segment, and the right that it takes."""

from __future__ import annotations

from urllib.parse import quote, unquote

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold

_VERBS = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}
_KEPT = "-._~!$&'()*+,;=:@"
_LONGEST = 4096
#: Where the name of a resource group is among the segments.
_GROUP_NAME = 3

#: Where providers tell how far an operation is. Their names cannot be guessed, and whoever started one may ask.
_OPERATIONS = frozenset({"operations", "operationresults", "operationstatuses"})

#: Of what a list may be read with a right on a part of it. All else takes the right to the whole.
_LISTS = frozenset(
    fold(kind)
    for kind in (
        "Microsoft.ContainerInstance/containerGroups",
        "Microsoft.ContainerRegistry/registries",
        "Microsoft.ContainerRegistry/registries/cacheRules",
        "Microsoft.ContainerRegistry/registries/credentialSets",
        "Microsoft.ContainerRegistry/registries/scopeMaps",
        "Microsoft.ContainerRegistry/registries/tokens",
        "Microsoft.ContainerRegistry/registries/webhooks",
        "Microsoft.ManagedIdentity/userAssignedIdentities",
    )
)


class Target:
    """A path of the front door, without case but as it was written.

    `before` are the segments up to the last `/providers/`, `namespace`, `types` and `names` what comes after it;
    a path without a provider has its words in `before`.
    """

    def __init__(self, method: str, raw_path: str) -> None:
        self.segments = _segments(raw_path)
        self.words = [fold(segment) for segment in self.segments]
        at = _last_provider(self.words)
        self.before = self.segments if at is None else self.segments[:at]
        rest = [] if at is None else self.segments[at + 1 :]
        self.namespace = rest[0] if rest else None
        self.types, self.names = rest[1::2], rest[2::2]
        self._method = method

    @property
    def path(self) -> str:
        """The path in its one plain spelling: single slashes, only what must be encoded encoded."""
        return "/" + "/".join(quote(segment, safe=_KEPT) for segment in self.segments)

    @property
    def subscription(self) -> str | None:
        """The subscription's id."""
        return self.words[1] if self.words[:1] == ["subscriptions"] and len(self.words) > 1 else None

    @property
    def resource_group(self) -> str | None:
        """The resource group's name."""
        in_group = self.words[:1] == ["subscriptions"] and self.words[2:3] == ["resourcegroups"]
        return self.segments[3] if in_group and len(self.segments) > 3 else None

    @property
    def is_access(self) -> bool:
        """Whether it is about roles, which are on a scope and not in one."""
        return fold(self.namespace or "") == "microsoft.authorization"

    @property
    def is_list(self) -> bool:
        """Whether it asks for a list of which each item is a resource, with an id to decide by."""
        return (
            self._method == "GET"
            and fold("/".join([self.namespace or "", *self.types])) in _LISTS
            and (len(self.types) == len(self.names) + 1)
        )

    @property
    def is_operation(self) -> bool:
        """Whether it asks a provider how far an operation is."""
        types = [fold(word) for word in self.types]
        return self._method == "GET" and types[:1] == ["locations"] and len(types) == 2 and types[1] in _OPERATIONS

    @property
    def action(self) -> str:
        """The right: `Provider/type/…/verb`."""
        return "/".join([self.namespace or "", *self.types, _VERBS.get(self._method, "write")])

    @property
    def scope(self) -> str:
        """What the right is needed on: the resource, or what a list or a role is of."""
        held = min(len(self.types), len(self.names))
        before = "/" + "/".join(self.before)
        if self.is_access or not held:
            return before
        pairs = zip(self.types[:held], self.names[:held], strict=True)
        return "/".join(
            [before.rstrip("/"), "providers", self.namespace or "", *(word for pair in pairs for word in pair)]
        )

    @property
    def resource(self) -> str | None:
        """The id of the resource of a resource group that it names as a whole; nothing where it names a part."""
        whole = not self.is_access and len(self.types) == len(self.names) == 1
        return self.scope if whole and self.resource_group and len(self.before) == 4 else None


def verb(method: str) -> str:
    """The last word of the right that a method takes."""
    return _VERBS.get(method, "write")


def _segments(raw_path: str) -> list[str]:
    """Clients join addresses carelessly: a doubled slash is one. What could be read in two ways is refused."""
    if len(raw_path) > _LONGEST:
        raise ArmError(414, "RequestUriTooLong", f"The request URI is longer than {_LONGEST} characters.")
    try:
        segments = [unquote(segment, errors="strict") for segment in raw_path.split("/") if segment]
    except UnicodeDecodeError:
        raise ArmError(400, "InvalidRequestUri", "The request URI is not UTF-8.") from None
    for segment in segments:
        if segment in (".", "..") or not segment.isprintable() or set(segment) & set("/\\%?#<>"):
            raise ArmError(
                400, "InvalidRequestUri", "The request URI has a segment with characters that no name has."
            )
    _demand_ascii(segments)
    return segments


def _demand_ascii(segments: list[str]) -> None:
    """Words that mean something, and all names but a resource group's, are ASCII (Azure's naming rules)."""
    in_group = [fold(segment) for segment in segments[0:3:2]] == ["subscriptions", "resourcegroups"]
    for at, segment in enumerate(segments):
        if not segment.isascii() and not (in_group and at == _GROUP_NAME):
            raise ArmError(
                400,
                "InvalidRequestUri",
                f"Segment {at + 1} of the request URI has a character that is not ASCII: only the name of a resource "
                "group may.",
            )


def _last_provider(words: list[str]) -> int | None:
    """Where the last `providers` is that is not somebody's name, as of a resource group called so."""
    at, found = 0, None
    if words[:1] == ["subscriptions"]:
        at = 4 if words[2:3] == ["resourcegroups"] else 2
    while words[at : at + 1] == ["providers"]:
        found = at
        at += 2
        while at < len(words) and words[at] != "providers":
            at += 2
    return found
