"""Escapes within a text, taken back where they stand: percent, entities, `\\x`, `\\u`, `U+`, octal, quoted-printable.

What programs and pages write for a character reads as that character; what stands around it stays. One pass, linear.
"""

from __future__ import annotations

import html
import re
from array import array

from detectors.text.normalize import TextView

LEAST = 2
"""Escapes that a text must hold, the shortest of which have three characters; a lone one hides nothing."""
_SHORTEST = 3
_H = "[0-9A-Fa-f]"
_BYTES = (
    rf"(?<=%){_H}{{2}}(?:%{_H}{{2}})*|(?<=\\)x{_H}{{2}}(?:\\x{_H}{{2}})*"
    r"|(?<==)[0-9A-F]{2}(?:=[0-9A-F]{2}){2,}"
)
_OCTAL = r"(?<=\\)[0-3][0-7]{2}(?:\\[0-3][0-7]{2}){3,}"
_CODE_OF = rf"(?:u|(?<=%)U){_H}{{4}}|(?<=\\)(?:u\{{{_H}{{1,6}}\}}|U{_H}{{8}})|(?<=U)\+{_H}{{4,6}}"
_CODES = rf"(?:{_CODE_OF})(?:(?:,? (?=U\+))?[%\\U](?:{_CODE_OF}))*"
_ENTITY_OF = rf"&#(?:[xX]0{{0,16}}{_H}{{1,6}}|0{{0,16}}[0-9]{{1,7}})(?:;|(?: (?=&#))?)"
_ENTITIES = rf"(?<=&){_ENTITY_OF[1:]}(?:{_ENTITY_OF})*"
_NAMED = r"(?<=&)(?:amp|lt|gt|quot|apos|nbsp|colon|comma|period|NewLine|Tab);"
_ESCAPED = re.compile(
    rf"[%\\=U&](?:(?P<bytes>{_BYTES})|(?P<octal>{_OCTAL})|(?P<codes>{_CODES})"
    rf"|(?P<entities>{_ENTITIES})|(?P<named>{_NAMED}))"
)
"""The class comes first, the looks behind second: so a pattern is searched for many times faster."""
_PAIR = re.compile(rf"[%\\x=]({_H}{{2}})")
_THREE = re.compile(r"\\([0-3][0-7]{2})")
_CODE = re.compile(rf"(?:\\[uU]|%[uU]|U\+)\{{?({_H}{{1,8}})")
_ENTITY = re.compile(rf"&#(?:[xX]({_H}+)|([0-9]+));? ?")
_MAX_CODE = 0x10FFFF


def unescaped(text: str) -> TextView | None:
    """The text with its escapes read, each character of one mapped to the whole run of them; None where there are few.

    Of bytes that are no UTF-8 what can be read is read.
    """
    pieces: list[str] = []
    starts, ends = array("I"), array("I")
    done = count = 0
    for match in _ESCAPED.finditer(text):
        read = _read(match)
        if not read:
            continue
        start, end = match.span()
        count += (end - start) // _SHORTEST
        starts.extend(range(done, start))
        ends.extend(range(done + 1, start + 1))
        starts.extend([start] * len(read))
        ends.extend([end] * len(read))
        pieces += (text[done:start], read)
        done = end
    if count < LEAST:
        return None
    starts.extend(range(done, len(text)))
    ends.extend(range(done + 1, len(text) + 1))
    return TextView("decoded", "".join([*pieces, text[done:]]), starts, ends)


def _read(match: re.Match[str]) -> str:
    kind, run = match.lastgroup, match[0]
    if kind == "bytes":
        return bytes.fromhex("".join(_PAIR.findall(run))).decode("utf-8", "ignore")
    if kind == "octal":
        return bytes([int(each, 8) for each in _THREE.findall(run)]).decode("utf-8", "ignore")
    if kind == "named":
        return html.unescape(run)
    if kind == "codes":
        codes = [int(each, 16) for each in _CODE.findall(run)]
    else:
        codes = [int(wide, 16) if wide else int(small) for wide, small in _ENTITY.findall(run)]
    return _characters(codes)


def _characters(codes: list[int]) -> str:
    """The characters of these code points; halves of surrogate pairs are joined, what is none is left out."""
    characters = "".join([chr(code) for code in codes if 0 < code <= _MAX_CODE])
    return characters.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def composed(outer: TextView, inner: TextView) -> TextView:
    """`inner`, which was read from the text of `outer`, with its places in what `outer` was read from."""
    if outer.starts is None or outer.ends is None:
        return inner
    if inner.starts is None or inner.ends is None:
        return TextView(inner.name, inner.text, outer.starts, outer.ends)
    begun, over = outer.starts, outer.ends
    starts = array("I", [begun[index] for index in inner.starts])
    return TextView(inner.name, inner.text, starts, array("I", [over[end - 1] for end in inner.ends]))
