"""Postal addresses: a core with a number (street and house, building and door, P.O. box), grown to both sides.

Chinese addresses follow the order province, prefecture, county, road, number, building, door (GB/T 23705 names these
levels); Western ones put the house number beside the street and the town behind it. A place without a number is none.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from operator import itemgetter

from detectors.pii.addresses_scripts import addresses_scripts
from detectors.pii.item import GUESS, LIKELY, PiiItem
from detectors.pii.lexicon import simplified, words
from detectors.pii.places import Places

_HAN = "一-鿿"
_ZH_ROAD = (
    "(?:路|街|大道|道|巷|弄|胡同|大街|里|坊|村|镇|乡|组|社区|小区|花园|苑|园|庭|府|城|公寓|大厦|广场|新村|家园|中心)"
    "(?:[东西南北中]?[一二三四五六七八九十]{1,2}[巷弄条段]|[东西南北中]段?)?(?:[0-9]{1,4}[巷弄])?"
)
_ZH_COUNT = "(?:[0-9]{1,5}(?:-[0-9]{1,4})?|[A-Z]|[一二三四五六七八九十百]{1,4})"
_ZH_CORE = re.compile(f"{_ZH_ROAD} ?{_ZH_COUNT} ?(?:号院|号楼|号|弄|栋|幢|座|单元|室|组|楼|层)")
_ZH_DOOR = re.compile(
    rf"[,，、 ]?(?:[{_HAN}]{{2,8}}(?:小区|花园|苑|公寓|大厦|广场|家园))?"
    "(?:[0-9A-Za-z]{1,5}|[一二三四五六七八九十]{1,3}|[东南西北]|附)"
    "(?:号院|号楼|号|弄|栋|幢|座|单元|室|楼|层|户|房)(?:[0-9]{1,5}[室号户房]?(?![0-9]))?"
)
_ZH_NAME = f"(?:(?![的了在是和与及或等有为于到把被])[{_HAN}A-Za-z0-9]){{2,14}}?"
_ZH_PART = re.compile(
    f"[,，、 ]?(?:{_ZH_NAME})?(?:[0-9]{{1,4}}|[A-Z][0-9]?|[一二三四五六七八九十]{{1,3}})"
    "(?:号楼|栋|幢|座|单元|楼|层|室|户|区)"
    "(?:[0-9]{1,5}(?:-[0-9]{1,4})?(?![0-9])|[A-Z](?=室))?室?"
)
"""A building with a name of its own, and what is in it."""
_ZH_LEVELS = re.compile(
    f"(?:省|市|自治区|特别行政区)(?:[{_HAN}]{{1,7}}?(?:市|区|县|旗|州))?[{_HAN}]{{1,7}}?(?:区|县|旗|镇|乡|街道){_ZH_NAME}"
    f"(?:村(?:[0-9一二三四五六七八九十]{{1,3}}[组队]|(?![{_HAN}0-9]))|[0-9]{{1,4}}号|[A-Z0-9]{{1,3}}[栋幢座楼]|[0-9]{{2,5}}室)"
)
"""Two levels of administration and more, down to a village, a house or a building."""
_ZH_LEFT, _ZH_REGION, _ZH_SHORTEST = 48, 10, 2
_ZH_LEVEL = re.compile(
    rf"[{_HAN}]{{2,12}}?(?:自治区|自治州|特别行政区|省|市|州|盟|地区|区|县|旗|行政委员会|开发区|镇|乡|街道)"
)
_ZH_CUT = re.compile(
    rf"[^{_HAN}0-9A-Za-z·-]|地址[是为在]?|住址[是为在]?|住在|家住|现住|改[为到成]|住(?![宅房建])|居住[于在]|位于|坐落[于在]|寄[到往给]|送[到往至]"
    "|放[在到]|发[到往至]|搬[到至]|开户行在|户籍[是为在地]?|籍贯[是为]?|快递到|配送[到至]|前往|来到|抵达|出现在"
    "|[昨今明]晚在|[上下中]午在|^在"
)
_STREET = (
    r"(?:Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|Way"
    r"|Parkway|Pkwy|Crescent|Cres|Close|Highway|Hwy|Trail|Circle|Cir|Alley|Row|Walk|Gardens|Grove|Mews|Plaza|Quay|Loop"
    r"|Parade|Pike|Heights|Hill|Gate|Green|Wharf|Turnpike|Esplanade|Crossing|Path|Gateway|Union|Point|Ridge|Run|View)\b\.?"
)
_INNER = "A-Za-zÀ-ɏ'’.-"
_CAP = f"[A-ZÀ-ÖØ-Þ][{_INNER}]{{0,20}}"
_STREET_CORE = (
    r"[0-9]{1,6}[A-Za-z]?(?:[-/][0-9]{1,5})? (?:[0-9]{1,5} )?(?:[NSEW]\.? )?"
    rf"(?:(?:{_CAP}|[0-9]{{1,3}}(?:st|nd|rd|th)) ){{1,4}}?{_STREET}"
    r"(?: (?:North|South|East|West|[NS]?[EW]|[NS])\b)?"
)
_WAY_SECOND = (
    r"[0-9]{1,4}(?: ?(?:bis|ter|quater))?,? "
    r"(?:rue|avenue|boulevard|bd|place|chemin|allée|impasse|quai|cours|route|square)"
    rf"(?: (?:de|du|des|la|le|les|et|aux?)){{0,3}} (?:[dl]['’])?{_CAP}(?: (?:de |du |des |la ){{0,2}}{_CAP}){{0,3}}"
)
_BLOCK = rf"[0-9]{{1,6}} {_CAP}[^\n,0-9]{{0,30}} [0-9]{{1,5}}[a-z]?(?=,?[ \n>]{{1,8}}(?:Apt|Suite|Unit|Flat)\b)"
"""A house before a street with a number, as mailing lists have it above a line for the flat."""
_FLAT_BEFORE = re.compile(r"(?:Flat|Apartment|Apt\.?|Suite|Ste|Unit|Room|Level|Floor) ?#?[0-9A-Z]{1,5},? $")
_BOX = r"\b(?:P\.? ?O\.? ?Box|PSC|CMR|Unit|Box) [0-9]{1,6}(?:,? Box [0-9]{1,6})?"
_MILITARY = r"\b(?:(?:USNS|USS|USCGC) [A-Z][\w-]{1,20}\s{1,2})?(?:APO|FPO|DPO) (?:AA|AE|AP)(?: [0-9]{5})?"
_WAY_FIRST = (
    r"(?:[0-9]{1,6} )?\b(?:ul\.|Rue|Rua|Via|Viale|Calle|Avenida|Av\.?|Avenue|Boulevard|Piazza|Corso|Strada|Camino"
    r"|Carrera|Chemin|Jalan|Plaza|Place|Paseo|Travessa) (?:(?:de|la|du|des|da|do|del|della|le) ){0,2}"
    rf"{_CAP}(?: {_CAP}){{0,3}},? ?[0-9]{{1,5}}(?:/[0-9]{{1,4}})?"
)
_SUFFIXED = (
    rf"(?:[0-9]{{1,6}} )?[A-ZÀ-ÖØ-Þ][{_INNER}]{{1,20}}?(?:straße|strasse|str\.|gasse|weg|platz|allee|gatan|vägen|gata"
    r"|vej|gade|veien|straat|laan|gracht|kade|plein|katu|tie|braut|gt\.) [0-9]{1,4}[a-zA-Z]?\b"
)
_UTCA = rf"{_CAP}(?: {_CAP})? (?:utca|u\.|út|tér) [0-9]{{1,4}}\.?"
_TAIL = re.compile(
    r"(?:[, ]|,? ?\n[> ]*){1,2}(?:(?:Apt|Suite|Ste|Unit|Floor|Room|Flat|Box|App)\.? ?#?[0-9A-Z]{1,6}\b|# ?[0-9]{1,5}"
    r"|[0-9]{1,3}(?:st|nd|rd|th) Floor\b|[0-9]{2}-[0-9]{3}\b(?!-[0-9])|[0-9]{4} [A-Z]{2}\b"
    r"|[A-Z]{2,3}\b(?:,? [0-9]{4,5}(?:-[0-9]{4})?)?|[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}\b"
    r"|[A-Z][0-9][A-Z] ?[0-9][A-Z][0-9]\b|(?:APO|FPO|DPO) (?:AA|AE|AP) [0-9]{5}|[0-9]{4,6}\b(?!-[0-9]))"
)
_TOWN_WORD = "(?:St. )?[A-ZÀ-ÖØ-Þ][A-Za-zÀ-ɏ'’-]{0,20}"
_TOWN = re.compile(
    rf"(?:, | ?,?\n[> ]*\n?[> ]*){_TOWN_WORD}(?: {_TOWN_WORD}){{0,2}}(?=[, .;\n]|$)"
    rf"|(?<=[0-9][0-9]) {_TOWN_WORD}(?: (?:am|sur|an der|de|la) {_TOWN_WORD}| {_TOWN_WORD}){{0,2}}(?=[,.;\n]| [a-z]|$)"
    rf"|(?<=[0-9][0-9] [A-Z][A-Z]) {_TOWN_WORD}(?=[, .;\n]|$)"
    rf"|,? {_TOWN_WORD} (?=[A-Z]{{1,2}}[0-9][0-9A-Z]? ?[0-9][A-Z]{{2}}\b)"
)
_TO = re.compile(r"\s+(?:the corner of )?")
"""Between the word that announces an address and the address."""
_CHUNK = re.compile(r"[^.?!;\n]{5,80}")
_CITED = re.compile(rf"{_CAP}.{{0,30}}?\b[0-9]{{1,5}}\b|\b[0-9]{{1,6}} (?:[0-9]{{1,5}} )?{_CAP} {_CAP}")
_MAX_TAILS = 7
_STREET_FIRST = re.compile("|".join((_STREET_CORE, _WAY_SECOND, _BLOCK)))
_NAME_FIRST = re.compile("|".join((_BOX, _MILITARY, _WAY_FIRST, _SUFFIXED, _UTCA)))
_DIGIT = re.compile("[0-9]")
_HOUSE = re.compile(r"[0-9](?<![\w.,$€£#-][0-9])[0-9]{0,5}(?![0-9%])")
_ZH_UNIT = re.compile("[号號弄栋棟幢座室组組楼樓层層单單村]")
_REACH = 40
_WORD = 24
_END = itemgetter(1)
_INSIDE = re.compile(r"\w")


@cache
def _provinces() -> re.Pattern[str]:
    return re.compile("|".join(sorted(words("zh_provinces"), key=len, reverse=True)))


def addresses(text: str, places: Places) -> Iterator[PiiItem]:
    """Addresses in `text`, in order of their start within each script, without overlap."""
    chinese = "" if text.isascii() or _ZH_UNIT.search(text) is None else simplified(text)
    if chinese:
        yield from _by_levels(chinese)
    if _DIGIT.search(text) is None:
        return
    if chinese:
        yield from _chinese(chinese)
    if not text.isascii():
        yield from addresses_scripts(text)
    offset = 0
    for number in _HOUSE.finditer(text):
        start, end = number.span()
        if start < offset:
            continue
        core = _STREET_FIRST.match(text, start)
        if core is None and _way_before(places.way, max(offset, start - _REACH), end + 8) and _after_name(text, start):
            core = _NAME_FIRST.search(text, max(offset, start - _REACH), min(len(text), end + 8))
        if core is not None:
            flat = _FLAT_BEFORE.search(text[max(offset, core.start() - _WORD) : core.start()])
            begin = core.start() - (len(flat[0]) if flat else 0)
            offset = _grown(text, core.end())
            yield PiiItem("ADDRESS", begin, offset, LIKELY)
    if places.address:
        yield from _told(text, places.address)


def _way_before(ways: list[tuple[int, int]], low: int, high: int) -> bool:
    """True where one of the words for a way, which are in order of their ends, ends between `low` and `high`."""
    first = bisect_left(ways, low, key=_END)
    return first < len(ways) and ways[first][1] <= high


def _after_name(text: str, offset: int) -> bool:
    """True where the word before `offset` is capitalised or one for a street."""
    word = text[max(0, offset - _WORD) : offset].rstrip(" ,").rpartition(" ")[2]
    return word[:1].isupper() or word in ("u.", "utca", "út", "tér")


def _told(text: str, words: list[tuple[int, int]]) -> Iterator[PiiItem]:
    """Text with a number and a capitalised word, where an address is announced."""
    offset = 0
    for start, end in words:
        if start < offset or not text[start:end].islower() or _INSIDE.match(text[start - 1 : start]):
            continue
        to = _TO.match(text, end)
        chunk = _CHUNK.match(text, offset := to.end()) if to else None
        cited = _CITED.search(text, offset, chunk.end()) if chunk else None
        if cited is not None and cited.start() < offset + 12:
            yield PiiItem("ADDRESS", offset, _grown(text, cited.end()), GUESS)


def _grown(text: str, end: int) -> int:
    """The end of an address that goes on after its street: doors, town, state, postcode, in any order."""
    for _ in range(_MAX_TAILS):
        found = _TAIL.match(text, end) or _TOWN.match(text, end)
        if found is None:
            break
        end = found.end()
    while text[end - 1] == " ":
        end -= 1
    return end


def _chinese(text: str) -> Iterator[PiiItem]:
    offset = 0
    for core in _ZH_CORE.finditer(text):
        if core.start() < offset:
            continue
        start, end = _zh_start(text, max(offset, core.start() - _ZH_LEFT), core.start()), core.end()
        while (door := _ZH_DOOR.match(text, end) or _ZH_PART.match(text, end)) is not None:
            end = door.end()
        digits = re.match(r"[0-9]{1,5}[室户房]?(?![0-9])", text[end : end + 7]) if text[end - 1] == "楼" else None
        offset = end + (digits.end() if digits else 0)
        if core.start() - start >= 2:
            yield PiiItem("ADDRESS", start, offset, LIKELY if _ZH_LEVEL.search(text, start, core.end()) else GUESS)


def _by_levels(text: str) -> Iterator[PiiItem]:
    offset = 0
    for match in _ZH_LEVELS.finditer(text):
        start, end = _zh_start(text, max(offset, match.start() - _ZH_REGION), match.start()), match.end()
        while (door := _ZH_DOOR.match(text, end) or _ZH_PART.match(text, end)) is not None:
            end = door.end()
        offset = end
        if match.start() - start >= _ZH_SHORTEST:
            yield PiiItem("ADDRESS", start, end, LIKELY)


def _zh_start(text: str, low: int, core: int) -> int:
    """The beginning of the address: at its province, else at its first level, else after the last cue or sign."""
    start = low
    for cut in _ZH_CUT.finditer(text, low, core):
        start = cut.end()
    if province := _provinces().search(text, start, core):
        return province.start()
    return start
