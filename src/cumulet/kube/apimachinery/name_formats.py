"""The formats of names and values (apimachinery, `util/validation` and `api/validate/content`).

Each function returns error messages, none for a valid value. Lengths are in bytes, as in upstream.
"""

from __future__ import annotations

import re

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
_UNDERSCORED = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_UNDERSCORED = rf"{_UNDERSCORED}(\.{_UNDERSCORED})*"
_DNS_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = f"({_KEY})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_HEADER = "[-A-Za-z0-9]+"
_PERCENT = "[0-9]+%"
_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"

is_label = re.compile(rf"(?:{LABEL})\Z").match
is_subdomain = re.compile(rf"(?:{SUBDOMAIN})\Z").match
_is_underscored = re.compile(rf"(?:{_SUBDOMAIN_UNDERSCORED})\Z").match
_is_1035 = re.compile(rf"(?:{_DNS_1035})\Z").match
_is_key = re.compile(rf"(?:{_KEY})\Z").match
_is_value = re.compile(rf"(?:{_VALUE})\Z").match
_is_config_key = re.compile(rf"(?:{_CONFIG_KEY})\Z").match
_is_header = re.compile(rf"(?:{_HEADER})\Z").match
_is_percent = re.compile(rf"(?:{_PERCENT})\Z").match
_is_path = re.compile(rf"(?:{_PATH})\Z").match
_is_printable = re.compile(r"[ -<>-~]+\Z").match

PORT_RANGE = "must be between 1 and 65535, inclusive"
ID_RANGE = "must be between 0 and 2147483647, inclusive"
NEGATIVE = "must be greater than or equal to 0"
NOT_POSITIVE = "must be greater than zero"
IMMUTABLE = "field is immutable"
_NAME_EXAMPLES = ("MyName", "my.name", "123-abc")
_KEY_WORDS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)


def _pattern(words: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{words} (regex used for validation is '{pattern}')"
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{words} (e.g. {shown}regex used for validation is '{pattern}')"


def _length(value: str, limit: int, unit: str = "characters") -> list[str]:
    return [f"must be no more than {limit} {unit}"] if len(value) > limit and len(value.encode()) > limit else []


def dns_label(value: str) -> list[str]:
    """Check a DNS label (RFC 1123)."""
    errors = _length(value, 63)
    if not is_label(value):
        if is_subdomain(value):
            errors.append("must not contain dots")
        else:
            words = (
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
                "and end with an alphanumeric character"
            )
            errors.append(_pattern(words, LABEL, "my-name", "123-abc"))
    return errors


def dns_subdomain(value: str) -> list[str]:
    """Check a domain name (RFC 1123)."""
    errors = _length(value, 253)
    if not is_subdomain(value):
        words = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character"
        )
        errors.append(_pattern(words, SUBDOMAIN, "example.com"))
    return errors


def dns_underscored(value: str) -> list[str]:
    """Check a domain name that may have underscores."""
    errors = _length(value, 253)
    if not _is_underscored(value):
        words = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and "
            "must start and end with an alphanumeric character"
        )
        errors.append(_pattern(words, _SUBDOMAIN_UNDERSCORED, "example.com"))
    return errors


def dns_1035(value: str) -> list[str]:
    """Check a DNS label (RFC 1035)."""
    errors = _length(value, 63)
    if not _is_1035(value):
        words = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character"
        )
        errors.append(_pattern(words, _DNS_1035, "my-name", "abc-123"))
    return errors


def qualified_name(value: str) -> list[str]:
    """Check the key of a label: a name, optionally with a domain and a slash in front."""
    if len(value) <= 63 and _is_key(value):
        return []
    prefix, slash, name = value.partition("/")
    if "/" in name:
        words = f"a valid label key {_pattern(_KEY_WORDS, _KEY, *_NAME_EXAMPLES)}"
        return [f"{words} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    errors: list[str] = []
    if not slash:
        name = prefix
    elif not prefix:
        errors.append("prefix part must be non-empty")
    else:
        errors += [f"prefix part {message}" for message in _bytes(dns_subdomain(prefix))]
    if not name:
        errors.append("name part must be non-empty")
    else:
        errors += [f"name part {message}" for message in _length(name, 63, "bytes")]
    if not _is_key(name):
        errors.append(f"name part {_pattern(_KEY_WORDS, _KEY, *_NAME_EXAMPLES)}")
    return errors


def label_value(value: str) -> list[str]:
    """Check the value of a label."""
    errors = _length(value, 63, "bytes")
    if not _is_value(value):
        words = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character"
        )
        errors.append(_pattern(words, _VALUE, "MyValue", "my_value", "12345"))
    return errors


def _bytes(messages: list[str]) -> list[str]:
    """Return the messages with the words of upstream's newer package, which counts bytes instead of characters."""
    return [
        message.replace(" characters", " bytes") if message.endswith(" characters") else message
        for message in messages
    ]


def path_segment(value: str) -> list[str]:
    """Check a segment of a path."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def port_number(value: int) -> list[str]:
    """Check a port number."""
    return [] if 1 <= value <= 65535 else [PORT_RANGE]


def port_name(value: str) -> list[str]:
    """Check a port name."""
    errors = _length(value, 15)
    if not re.fullmatch(r"[-a-z0-9]+", value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def user_id(value: int) -> list[str]:
    """Check a user or group id."""
    return [] if 0 <= value <= 2**31 - 1 else [ID_RANGE]


def percent(value: str) -> list[str]:
    """Check a percentage."""
    if _is_percent(value):
        return []
    words = "a valid percent string must be a numeric string followed by an ending '%'"
    return [_pattern(words, _PERCENT, "1%", "93%")]


def header_name(value: str) -> list[str]:
    """Check the name of an HTTP header."""
    if _is_header(value):
        return []
    return [_pattern("a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name")]


def variable_name(value: str) -> list[str]:
    """Check the name of an environment variable."""
    if not value:
        return ["environment variable name must be non-empty"]
    if _is_printable(value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


def config_key(value: str) -> list[str]:
    """Check a key of a config map or secret."""
    errors = _length(value, 253)
    if not _is_config_key(value):
        words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        errors.append(_pattern(words, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    if value in (".", ".."):
        errors.append(f"must not be '{value}'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def path_characters(value: str) -> list[str]:
    """Check the path of a URL."""
    return [] if _is_path(value) else [_pattern("Invalid path", _PATH)]


def base_of(prefix: str) -> str:
    """Return a `generateName` in the form in which it is checked: a trailing dash is not the end of the name."""
    return f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix
