"""Bodies: JSON, YAML and Kubernetes' protobuf to plain JSON objects, and back for those that take no JSON."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from cumulet.common.ascii import fold
from cumulet.kube.codec.encode import encode_event, encode_protobuf
from cumulet.kube.codec.go import untyped
from cumulet.kube.codec.media import PROTOBUF, YAML, YAML_TYPES
from cumulet.kube.codec.protobuf import ProtobufError, decode_protobuf
from cumulet.kube.status import ApiError, bad_request

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
#: Parts of a YAML document: several times those of the largest definitions that there are.
_EVENTS = 250_000
#: Bytes of a body that is not understood.
_SHOWN = 30


def decode_body(content_type: str, raw: bytes, kind: str, *, bare: bool = False) -> dict[str, Any]:
    """The object in a body, where one of `kind` is expected. Raises `ApiError` 400 and 415 in upstream's words.

    A failure is told `bare` of options.
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


def json_value(raw: bytes) -> Any:
    """What JSON says; bytes that are no UTF-8 are replaced, as Go does it. Raises `msgspec.DecodeError`, `RecursionError`."""
    try:
        return msgspec.json.decode(raw)
    except UnicodeDecodeError:
        return msgspec.json.decode(raw.decode(errors="replace"))


def _json(raw: bytes, kind: str, *, bare: bool = False) -> Any:
    try:
        return json_value(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "unexpected end of JSON input" if "truncated" in str(error) else str(error)
        if bare:
            raise bad_request(f"couldn't get version/kind; json parse error: {reason}") from None
        raise _unrecognized(raw, kind, reason) from None


def _unrecognized(raw: bytes, kind: str, reason: str) -> ApiError:
    """400 for a body of which kind and version cannot be told, with its beginning (`summarizeData`)."""
    shown = raw[:_SHOWN]
    text = (shown.decode(errors="replace") if raw[:1] == b"{" else shown.hex()) or "<empty>"
    more = " ..." if len(raw) > _SHOWN else ""
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: "
        f"{reason} ({text}{more})"
    )


def is_yaml(content_type: str, raw: bytes) -> bool:
    """Whether a body is YAML that is no JSON, which takes a hundred times as long to read."""
    return fold(content_type.partition(";")[0].strip()) in YAML_TYPES and not _is_json(raw)


def _is_json(raw: bytes) -> bool:
    """Whether a body is a JSON object. It is read without anything being made of it."""
    if raw.lstrip()[:1] != b"{":
        return False
    try:
        msgspec.json.decode(raw, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _yaml(raw: bytes, kind: str) -> Any:
    if raw.lstrip()[:1] == b"{":  # as clients write what they apply
        try:
            return json_value(raw)
        except (msgspec.DecodeError, RecursionError):
            pass  # then it is YAML's own form of an object, or neither
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        events = depth = 0
        for event in yaml.parse(raw, Loader=loader):
            events += 1
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEPTH:
                raise bad_request("error parsing YAML: exceeded max depth")
            # An alias can repeat a document within itself without end; no client of Kubernetes sends one.
            if isinstance(event, yaml.AliasEvent):
                raise bad_request(
                    f"the object provided is unrecognized (must be of type {kind}): YAML aliases are refused"
                )
            if events > _EVENTS:
                raise bad_request(f"error parsing YAML: the document has more than {_EVENTS} parts")
        document = yaml.load(raw, Loader=_plain(loader))  # noqa: S506  (a safe loader)
        # What JSON does not have, such as numbers as keys, becomes what it would be there, as upstream does it.
        return msgspec.json.decode(msgspec.json.encode(document))
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise bad_request(f"error parsing YAML: {error}") from None


def _plain(loader: Any) -> Any:
    """A loader that leaves times, and whole numbers with the base 60, as the text that they are, as upstream's does.

    It takes time in proportion to the document: whole numbers of a chosen remainder have one hash in Python, so a mapping
    has them as keys in the form of text, which they become in JSON.
    """

    import yaml

    class Plain(loader):  # type: ignore[misc]
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
#: YAML 1.1's whole numbers but those with the base 60, whose reading takes time that grows with the square of their length.
_WHOLE = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$", re.ASCII)
