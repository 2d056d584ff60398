"""Links in pages that come through a proxy (apimachinery, `util/proxy/transport.go`).

A page's link to `/style.css` means the root of its own server, which is below the proxy's path here.
"""

from __future__ import annotations

import posixpath
from html import escape
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

#: The attributes that hold a URL, by element (HTML 4 and 5, as in upstream's table).
_URLS: dict[str, tuple[str, ...]] = {
    "a": ("href",),
    "applet": ("codebase",),
    "area": ("href",),
    "audio": ("src",),
    "base": ("href",),
    "blockquote": ("cite",),
    "body": ("background",),
    "button": ("formaction",),
    "command": ("icon",),
    "del": ("cite",),
    "embed": ("src",),
    "form": ("action",),
    "frame": ("longdesc", "src"),
    "head": ("profile",),
    "html": ("manifest",),
    "iframe": ("longdesc", "src"),
    "img": ("longdesc", "src", "usemap"),
    "input": ("src", "usemap", "formaction"),
    "ins": ("cite",),
    "link": ("href",),
    "object": ("classid", "codebase", "data", "usemap"),
    "q": ("cite",),
    "script": ("src",),
    "source": ("src",),
    "video": ("poster", "src"),
}


class Place(NamedTuple):
    """The address of a page: the proxy's path and host, and the host of the server behind it."""

    path: str
    host: str
    behind: str


def moved(url: str, place: Place) -> str:
    """Return a URL of the server behind the proxy as a URL of the proxy; relative URLs and other servers' stay."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    if parts.netloc not in ("", place.behind, place.host) or not parts.path.startswith("/"):
        return url
    scheme, host = (parts.scheme, parts.netloc) if parts.netloc == place.host else ("", "")
    path = parts.path
    if not path.startswith(place.path):
        # Two slashes at the start would name a host.
        path = posixpath.join(place.path, posixpath.normpath(path).lstrip("/"))
        if parts.path.endswith("/") and not path.endswith("/"):
            path += "/"
    return urlunsplit((scheme, host, path, parts.query, parts.fragment))


def rewritten(page: str, place: Place) -> str:
    """Return a page whose links lead through the proxy; everything else is unchanged."""
    parser = _Links(page, place)
    parser.feed(page)
    parser.close()
    pieces, at = [], 0
    for start, end, text in parser.changes:
        pieces += [page[at:start], text]
        at = end
    return "".join([*pieces, page[at:]])


class _Links(HTMLParser):
    """Collects the tags that change, each as its start and end in the page and its new text."""

    def __init__(self, page: str, place: Place) -> None:
        super().__init__(convert_charrefs=False)
        self.changes: list[tuple[int, int, str]] = []
        self._place = place
        self._lines = [0]
        for line in page.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a tag with a link."""
        urls = _URLS.get(tag, ())
        changed = [
            (name, moved(value, self._place) if name in urls and value is not None else value)
            for name, value in attrs
        ]
        text = self.get_starttag_text()
        if changed == attrs or text is None:
            return
        line, column = self.getpos()
        start = self._lines[line - 1] + column
        words = [tag, *(name if value is None else f'{name}="{escape(value)}"' for name, value in changed)]
        self.changes.append((start, start + len(text), f"<{' '.join(words)}{'/' if text.endswith('/>') else ''}>"))
