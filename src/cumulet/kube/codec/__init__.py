"""The encodings of bodies: JSON, YAML and Kubernetes' protobuf.

Decoding converts the bytes of a request to a plain JSON object. Encoding converts an object to YAML or protobuf, for
clients that do not accept JSON. An invalid body is rejected in upstream's words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.codec.encode import encode_event, encode_protobuf
from cumulet.kube.codec.go_messages import untyped
from cumulet.kube.codec.media import PROTOBUF, YAML, YAML_TYPES
from cumulet.kube.codec.protobuf import ProtobufError, decode_protobuf

if TYPE_CHECKING:
    import yaml

__all__ = [
    "PROTOBUF",
    "YAML",
    "ProtobufError",
    "decode_body",
    "encode_event",
    "encode_protobuf",
    "is_yaml",
    "json_value",
]

_DEPTH = 100
#: The parts of a YAML document; the largest known definitions have far fewer.
_EVENTS = 250_000
#: Bytes of an invalid body that an error shows.
_SHOWN = 30


def decode_body(content_type: str, raw: bytes, kind: str, *, bare: bool = False) -> Object:
    """Return the object in a body, where one of `kind` is expected. Raises `ApiError` 400 and 415 in upstream's words.

    With `bare`, as for delete options, an invalid JSON text is reported as the parse error alone.
    """
    media = fold(content_type.partition(";")[0].strip())
    if media in ("", "application/json"):
        document = _json(raw, kind, bare=bare)
    elif media == PROTOBUF:
        try:
            document = decode_protobuf(raw)
        except ProtobufError as error:
            raise bad_request(f"the object provided is unrecognized (must be of type {kind}): {error}") from None
    elif media in YAML_TYPES:
        document = _yaml(raw, kind)
    else:
        raise ApiError(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, "
            "application/yaml, application/vnd.kubernetes.protobuf",
        )
    if not isinstance(document, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind}): it is not an object")
    if reason := untyped(document):
        raise _unrecognized(raw if raw[:1] == b"{" else msgspec.json.encode(document), kind, reason)
    return document


def json_value(raw: bytes) -> Json:
    """Decode JSON, replacing invalid UTF-8 as Go does. Raises `msgspec.DecodeError`, `RecursionError`."""
    found: Json
    try:
        found = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        found = msgspec.json.decode(raw.decode(errors="replace"))
    return found


def _json(raw: bytes, kind: str, *, bare: bool = False) -> Json:
    try:
        return json_value(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "unexpected end of JSON input" if "truncated" in str(error) else str(error)
        if bare:
            raise bad_request(f"couldn't get version/kind; json parse error: {reason}") from None
        raise _unrecognized(raw, kind, reason) from None


def _unrecognized(raw: bytes, kind: str, reason: str) -> ApiError:
    """Return the 400 for a body without a recognizable kind and version, with its beginning (`summarizeData`)."""
    shown = raw[:_SHOWN]
    text = (shown.decode(errors="replace") if raw[:1] == b"{" else shown.hex()) or "<empty>"
    more = " ..." if len(raw) > _SHOWN else ""
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: "
        f"{reason} ({text}{more})"
    )


def is_yaml(content_type: str, raw: bytes) -> bool:
    """Return whether a body is YAML and not JSON, which takes a hundred times as long to parse."""
    return fold(content_type.partition(";")[0].strip()) in YAML_TYPES and not _is_json(raw)


def _is_json(raw: bytes) -> bool:
    """Return whether a body is a JSON object. Its syntax is checked, and no object is made."""
    if raw.lstrip()[:1] != b"{":
        return False
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _yaml(raw: bytes, kind: str) -> Json:
    if raw.lstrip()[:1] == b"{":  # clients send applies in this form
        try:
            return json_value(raw)
        except (msgspec.DecodeError, RecursionError):
            pass  # either a YAML flow mapping, or invalid
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = depth = 0
        for event in yaml.parse(raw, Loader=loader):
            events += 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise bad_request("error parsing YAML: exceeded max depth")
            # Nested aliases can expand without limit. No Kubernetes client sends any.
            if isinstance(event, yaml.AliasEvent):
                raise bad_request(
                    f"the object provided is unrecognized (must be of type {kind}): YAML aliases are not supported"
                )
            if events > _EVENTS:
                raise bad_request(f"error parsing YAML: the document has more than {_EVENTS} parts")
        document = yaml.load(raw, Loader=_plain(loader))  # noqa: S506  (a safe loader)
        # Convert values that JSON lacks, such as numbers as keys, as upstream does.
        found: Json = msgspec.json.decode(msgspec.json.encode(document))
        return found
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise bad_request(f"error parsing YAML: {error}") from None


def _plain(loader: type[yaml.SafeLoader]) -> type[yaml.SafeLoader]:
    """Configure a loader that keeps time stamps, and whole numbers of base 60, as text, as upstream's does.

    It takes linear time. Python gives whole numbers of one remainder the same hash, so a mapping has them as
    text, which JSON makes of them anyway.
    """
    import yaml

    class Plain(loader):  # type: ignore[misc, valid-type]
        yaml_implicit_resolvers = {  # noqa: RUF012
            key: [(tag, _WHOLE if tag == _INT else expression) for tag, expression in resolvers if tag != _TIME]
            for key, resolvers in loader.yaml_implicit_resolvers.items()
        }

        def construct_scalar(self, node: Any) -> Any:
            text = super().construct_scalar(node)
            if node.tag == _INT and not _WHOLE.match(text):
                raise ValueError(f"{text[:_SHOWN]!r} is not a whole number")
            return text

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            if not isinstance(node, yaml.MappingNode):
                raise ValueError(f"a {node.id} is no mapping")
            self.flatten_mapping(node)
            found = {}
            for key_node, value_node in node.value:
                key = self.construct_object(key_node, deep=True)
                if type(key) is int:
                    key = str(key)
                found[key] = self.construct_object(value_node, deep=deep)
            return found

    return Plain


_INT, _TIME = "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"
#: YAML 1.1's whole numbers without those of base 60, which take quadratic time to parse.
_WHOLE = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$", re.ASCII)
