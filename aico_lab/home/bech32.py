"""The Bech32 encoding of BIP-173: text with a checksum, which age uses for its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_LETTERS: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM: Final = 6  # letters


def bech32(prefix: str, content: bytes) -> str:
    """Return bytes in Bech32.

    Args:
        prefix: The human-readable part, in lower case.
        content: The bytes, usually at most 32; the last five-bit group is padded with zeros.
    """
    bits = "".join(f"{byte:08b}" for byte in content)
    groups = [int(bits[i : i + 5].ljust(5, "0"), 2) for i in range(0, len(bits), 5)]
    checksum = _polymod([*_expanded(prefix), *groups, *[0] * _CHECKSUM]) ^ 1
    groups += [checksum >> shift & 31 for shift in range(25, -1, -5)]
    return f"{prefix}1" + "".join(_LETTERS[group] for group in groups)


def from_bech32(prefix: str, text: str) -> bytes | None:
    """Return the bytes of a text in Bech32, or None if the text has another form or a typing error.

    Args:
        prefix: The human-readable part, in lower case.
        text: The text, in lower case.
    """
    found, one, letters = text.rpartition("1")
    groups = [_LETTERS.find(letter) for letter in letters]
    if found != prefix or not one or -1 in groups or len(groups) < _CHECKSUM:
        return None
    if _polymod([*_expanded(prefix), *groups]) != 1:
        return None
    bits = "".join(f"{group:05b}" for group in groups[:-_CHECKSUM])
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - len(bits) % 8, 8))


def _expanded(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(groups: Iterable[int]) -> int:
    """Return the BCH checksum of BIP-173."""
    state = 1
    for group in groups:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ group
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                state ^= generator
    return state
