"""Decodes the header blocks of an HTTP/2 answer (RFC 7541), as far as a gRPC status needs it.

The client announces a dynamic table of size 0, so that only the static table is used. Names of the static table that no
gRPC status has are decoded as an empty name.
"""

from __future__ import annotations

#: Entries of the static table (RFC 7541, appendix A) that a gRPC answer has.
_STATIC = {
    **{
        8 + number: (":status", code) for number, code in enumerate(("200", "204", "206", "304", "400", "404", "500"))
    },
    31: ("content-type", ""),
}
_STATIC_SIZE = 61
#: The length of the code of each byte and of the end of the string, from 5 bits (A) to 30 bits (Z) (appendix B).
_LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCC"
    "CCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRT"
    "QRSSQQRQSRSSPRRRSRRSVVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWVZ"
)


class HpackError(Exception):
    """The block is not valid."""


def _codes() -> dict[tuple[int, int], int]:
    """Return the symbol of each code, by its length and value. The codes are canonical: ordered by length and symbol."""
    lengths = [ord(letter) - ord("A") + 5 for letter in _LENGTHS]
    codes: dict[tuple[int, int], int] = {}
    code, before = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code = (code + 1) << (length - before) if codes else 0
        before = length
        codes[length, code] = symbol
    return codes


_CODES = _codes()
_END, _LONGEST = 256, 30


def decode(block: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a header block. Raises `HpackError`."""
    reader = _Reader(block)
    found = []
    while reader.left:
        first = reader.peek()
        if first & 0x80:
            found.append(_entry(reader.number(7)))
        elif first & 0xE0 == 0x20:
            if reader.number(5):
                raise HpackError("the dynamic table was not announced")
        else:
            index = reader.number(6 if first & 0x40 else 4)
            name = _entry(index)[0] if index else reader.text()
            found.append((name, reader.text()))
    return found


def _entry(index: int) -> tuple[str, str]:
    if not 0 < index <= _STATIC_SIZE:
        raise HpackError("the entry is not in the static table")
    return _STATIC.get(index, ("", ""))


class _Reader:
    def __init__(self, block: bytes) -> None:
        self._block = block
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._block) - self._at

    def peek(self) -> int:
        return self._block[self._at]

    def _byte(self) -> int:
        if not self.left:
            raise HpackError("the block ends early")
        self._at += 1
        return self._block[self._at - 1]

    def number(self, bits: int) -> int:
        """Read an integer with a prefix of that many bits (section 5.1)."""
        most = (1 << bits) - 1
        value = self._byte() & most
        if value < most:
            return value
        for shift in range(0, 28, 7):
            byte = self._byte()
            value += (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
        raise HpackError("the integer is too large")

    def text(self) -> str:
        """Read a string (section 5.2)."""
        if not self.left:
            raise HpackError("the block ends early")
        packed = bool(self.peek() & 0x80)
        length = self.number(7)
        if length > self.left:
            raise HpackError("the string ends early")
        raw = self._block[self._at : self._at + length]
        self._at += length
        return (_unpacked(raw) if packed else raw).decode(errors="replace")


def _unpacked(raw: bytes) -> bytes:
    output = bytearray()
    code = length = 0
    for byte in raw:
        for bit in range(7, -1, -1):
            code, length = code << 1 | (byte >> bit) & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                if symbol == _END:
                    raise HpackError("the end of the string is encoded")
                output.append(symbol)
                code = length = 0
            elif length >= _LONGEST:
                raise HpackError("no symbol has this code")
    return bytes(output)
