"""The path of a request, parsed segment by segment: the resource that it addresses and the action that it needs."""

from __future__ import annotations

from urllib.parse import quote, unquote

from cumulet.common.arm import ArmError
from cumulet.common.ascii import fold

_VERBS = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}
#: Characters that stay as they are in an encoded segment (RFC 3986, section 3.3).
_UNENCODED = "-._~!$&'()*+,;=:@"
_LONGEST = 4096
#: The index of the segment with the name of a resource group.
_GROUP_NAME = 3

#: Where providers report the state of an operation. The names of operations cannot be guessed, so they need no role.
_OPERATIONS = frozenset({"operations", "operationresults", "operationstatuses"})

#: Types whose list is filtered for a caller with rights on some of the items. Other lists need the right on the scope.
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


class RequestPath:
    """A path of the front door, compared without case and forwarded in the case that it was written in.

    `segments` are its decoded segments and `words` the same in lower case. `before` are the segments up to the last
    `/providers/`, all of them if there is none. `namespace`, `types` and `names` come from the segments after it.
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
    def normalized(self) -> str:
        """The normalized path: single slashes, with no character encoded that need not be."""
        return "/" + "/".join(quote(segment, safe=_UNENCODED) for segment in self.segments)

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
        """Whether it addresses roles, which are on a scope and not in one."""
        return fold(self.namespace or "") == "microsoft.authorization"

    @property
    def is_list(self) -> bool:
        """Whether it is a list of resources, each with an id that a right can be checked on."""
        return (
            self._method == "GET"
            and fold("/".join([self.namespace or "", *self.types])) in _LISTS
            and (len(self.types) == len(self.names) + 1)
        )

    @property
    def is_operation(self) -> bool:
        """Whether it reads the state of a provider's operation."""
        types = [fold(word) for word in self.types]
        return self._method == "GET" and types[:1] == ["locations"] and len(types) == 2 and types[1] in _OPERATIONS

    @property
    def action(self) -> str:
        """The action that a role must grant: `Provider/type/…/verb`."""
        return "/".join([self.namespace or "", *self.types, _VERBS.get(self._method, "write")])

    @property
    def scope(self) -> str:
        """The scope that a role must be on: the resource, or the parent of a list or of a role."""
        depth = min(len(self.types), len(self.names))
        before = "/" + "/".join(self.before)
        if self.is_access or not depth:
            return before
        pairs = zip(self.types[:depth], self.names[:depth], strict=True)
        return "/".join(
            [before.rstrip("/"), "providers", self.namespace or "", *(word for pair in pairs for word in pair)]
        )

    @property
    def resource(self) -> str | None:
        """The id of the top-level resource of a resource group that it addresses, `None` for a child of one."""
        whole = not self.is_access and len(self.types) == len(self.names) == 1
        return self.scope if whole and self.resource_group and len(self.before) == 4 else None


def verb(method: str) -> str:
    """Return the last word of the action that a method needs."""
    return _VERBS.get(method, "write")


def _segments(raw_path: str) -> list[str]:
    """Split a path. Doubled slashes count as one, as clients send them; an ambiguous segment is refused."""
    if len(raw_path) > _LONGEST:
        raise ArmError(414, "RequestUriTooLong", f"The request URI is longer than {_LONGEST} characters.")
    try:
        segments = [unquote(segment, errors="strict") for segment in raw_path.split("/") if segment]
    except UnicodeDecodeError:
        raise ArmError(400, "InvalidRequestUri", "The request URI is not UTF-8.") from None
    for segment in segments:
        if segment in (".", "..") or not segment.isprintable() or set(segment) & set("/\\%?#<>"):
            raise ArmError(
                400, "InvalidRequestUri", "The request URI has a segment with characters that are not allowed."
            )
    _demand_ascii(segments)
    return segments


def _demand_ascii(segments: list[str]) -> None:
    """Raises `ArmError` 400 for a segment that is not ASCII, except the name of a resource group (Azure's naming rules)."""
    in_group = [fold(segment) for segment in segments[0:3:2]] == ["subscriptions", "resourcegroups"]
    for at, segment in enumerate(segments):
        if not segment.isascii() and not (in_group and at == _GROUP_NAME):
            raise ArmError(
                400,
                "InvalidRequestUri",
                f"Segment {at + 1} of the request URI has a character that is not ASCII, which only the name of a "
                "resource group may have.",
            )


def _last_provider(words: list[str]) -> int | None:
    """Return the index of the last `providers` that is not a name, such as that of a resource group, or `None`."""
    at, last = 0, None
    if words[:1] == ["subscriptions"]:
        at = 4 if words[2:3] == ["resourcegroups"] else 2
    while words[at : at + 1] == ["providers"]:
        last = at
        at += 2
        while at < len(words) and words[at] != "providers":
            at += 2
    return last
