"""Programs of one system call each, made byte by byte: their exit code is the error number, or 0."""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

#: Where the program is loaded.
_BASE = 0x400000
_HEADERS = 64 + 56


class Call(NamedTuple):
    """A system call: its number by processor and its arguments. `child` says that it forks where it is allowed."""

    name: str
    x86_64: int
    aarch64: int
    arguments: tuple[int, ...] = ()


def program(call: Call) -> bytes:
    """A static ELF program for this machine."""
    machine = platform.machine()
    code = _X86(call.x86_64, call.arguments) if machine == "x86_64" else _arm(call.aarch64, call.arguments)
    return _elf(code, 62 if machine == "x86_64" else 183)


def program_i386(number: int, arguments: tuple[int, ...], words: tuple[int, ...] = ()) -> bytes:
    """A program for x86_64 that makes a call of the 32-bit kernel interface; `words` are in memory at `_WORDS`."""
    registers = (b"\xbb", b"\xb9", b"\xba", b"\xbe", b"\xbf")
    code = b"\xb8" + struct.pack("<I", number)
    for move, value in zip(registers, arguments, strict=False):
        code += move + struct.pack("<I", value)
    code += b"\xcd\x80" + _EXIT
    assert len(code) <= WORDS - _BASE - _HEADERS
    return _elf(code.ljust(WORDS - _BASE - _HEADERS, b"\0") + struct.pack(f"<{len(words)}I", *words), 62)


#: Where the words of a program for i386 are.
WORDS = _BASE + 0x200
#: neg eax; js or positive means that it went well: then exit(0); else exit(-eax).
_EXIT = bytes.fromhex("f7d8 85c0 7f02 31c0 89c7 b83c000000 0f05")


def _X86(number: int, arguments: tuple[int, ...]) -> bytes:  # noqa: N802
    registers = ("48bf", "48be", "48ba", "49ba", "49b8", "49b9")  # rdi, rsi, rdx, r10, r8, r9
    code = b"\x48\xb8" + struct.pack("<Q", number)
    for move, value in zip(registers, arguments, strict=False):
        code += bytes.fromhex(move) + struct.pack("<Q", value & (2**64 - 1))
    return code + b"\x0f\x05" + _EXIT


def _arm(number: int, arguments: tuple[int, ...]) -> bytes:
    def move(register: int, value: int) -> bytes:
        value &= 2**64 - 1
        words = [0xD2800000 | (value & 0xFFFF) << 5 | register]
        for part in (1, 2, 3):
            words.append(0xF2800000 | part << 21 | (value >> 16 * part & 0xFFFF) << 5 | register)
        return struct.pack("<4I", *words)

    code = move(8, number) + b"".join(move(index, value) for index, value in enumerate(arguments))
    # svc #0; neg x0, x0; cmp x0, #0; csel x0, x0, xzr, gt; mov x8, #93; svc #0
    return code + struct.pack("<6I", 0xD4000001, 0xCB0003E0, 0xF100001F, 0x9A9FC000, 0xD2800BA8, 0xD4000001)


def _elf(code: bytes, machine: int) -> bytes:
    size = _HEADERS + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code
