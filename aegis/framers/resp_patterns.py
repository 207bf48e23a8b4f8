"""Patterns that check a bulk string's length by themselves.

One match for a whole request or reply costs 0.25-0.3 us; to find every line end and read every
length as a number costs three times that (timeit, GET and SET of 16-byte keys, CPython 3.11).
"""

import re
from collections.abc import Mapping

from aegis.framers.resp_limits import SMALL_BYTES


def one_of(tails: Mapping[str, str]) -> str:
    """Write a pattern for any of these words, each followed by its own tail; one branch a byte."""
    branches: dict[str, dict[str, str]] = {}
    ways = []
    for word, tail in tails.items():
        if word:
            branches.setdefault(word[0], {})[word[1:]] = tail
        else:
            ways.append(tail)
    ways += [re.escape(byte) + one_of(rest) for byte, rest in branches.items()]
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"


SMALL_BULK = r"\$" + one_of(
    {str(n): r"\r\n" + (f".{{{n}}}" if n else "") + r"\r\n" for n in range(SMALL_BYTES)}
)
"""A whole bulk string: after $12 exactly 12 bytes; to be compiled with DOTALL."""
