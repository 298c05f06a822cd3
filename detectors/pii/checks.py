"""Check digits and shapes of numbers that name a person: what separates an identity number from any other number.

Every check takes the digits or the text of a candidate without its separators and answers whether it can be genuine.
"""

from __future__ import annotations

import re
from collections import Counter
from math import log2

_CN_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CN_CHECK = "10X98765432"
_CN_PROVINCES = frozenset(
    str(region + number)
    for region, numbers in ((11, 5), (21, 3), (31, 7), (41, 6), (50, 5), (61, 5), (71, 1), (81, 3))
    for number in range(numbers)
)
"""First two digits (GB/T 2260): provinces, and 71, 81 to 83 for Taiwan, Hong Kong, Macau and residents of them."""
_DOUBLED = {str(digit): digit * 2 - 9 * (digit > 4) for digit in range(10)}
_USCC = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_TW_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ISSUERS = (
    (4000, 4999, (13, 16, 19)),  # Visa
    (5100, 5599, (16,)),  # Mastercard
    (2221, 2720, (16,)),
    (3400, 3499, (15,)),  # American Express
    (3700, 3799, (15,)),
    (3000, 3099, (14,)),  # Diners Club
    (3600, 3699, (14, 16, 19)),
    (3800, 3999, (14, 16, 19)),
    (3528, 3589, (16, 17, 18, 19)),  # JCB
    (1800, 1800, (15,)),
    (2131, 2131, (15,)),
    (6011, 6011, (16, 19)),  # Discover
    (6440, 6599, (16, 19)),
    (5000, 5099, (12, 13, 14, 15, 16, 17, 18, 19)),  # Maestro
    (5600, 6099, (12, 13, 14, 15, 16, 17, 18, 19)),
    (6100, 6199, (16, 19)),
    (6300, 6439, (12, 13, 14, 15, 16, 17, 18, 19)),
    (6600, 6999, (12, 13, 14, 15, 16, 17, 18, 19)),
    (6200, 6299, (16, 17, 18, 19)),  # UnionPay
    (9558, 9558, (19,)),
)
"""First four digits from, to; places."""
_BBANS = """
AD n8c12 AE n19 AL n8c16 AT n16 AZ a4c20 BA n16 BE n12 BG a4n6c8 BH a4c14 BI n23 BR n23a1c1 BY c4n4c16 CH n5c12 CR n18
CY n8c16 CZ n20 DE n18 DJ n23 DK n14 DO c4n20 EE n16 EG n25 ES n20 FI n14 FK a2n12 FO n14 FR n10c11n2 GB a4n14 GE a2n16
GI a4c15 GL n14 GR n7c16 GT c4c20 HN a4n20 HR n17 HU n24 IE a4n14 IL n19 IQ a4n15 IS n22 IT a1n10c12 JO a4n4c18
KW a4c22 KZ n3c13 LB n4c20 LC a4c24 LI n5c12 LT n16 LU n3c13 LV a4c13 LY n21 MC n10c11n2 MD c2c18 ME n18 MK n3c10n2
MN n16 MR n23 MT a4n5c18 MU a4n19a3 NI a4n20 NL a4n10 NO n11 OM n3c16 PK a4c16 PL n24 PS a4c21 PT n21 QA a4c21
RO a4c16 RS n18 RU n14c15 SA n2c18 SC a4n20a3 SD n14 SE n20 SI n15 SK n20 SM a1n10c12 SO n19 ST n21 SV a4n20 TL n19
TN n20 TR n6c16 UA n6c19 VA n18 VG a4n16 XK n16 YE a4n4c18
"""
"""Country and form of its account number, as ISO 13616's registry has them: n digits, a capitals, c either."""
_CLASSES = {"n": "[0-9]", "a": "[A-Z]", "c": "[0-9A-Z]"}
_IBANS = {
    country: re.compile("[0-9]{2}" + re.sub("([nac])([0-9]+)", lambda m: f"{_CLASSES[m[1]]}{{{m[2]}}}", form))
    for country, form in re.findall(r"([A-Z]{2}) (\S+)", _BBANS)
}


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: the check digit of bank cards."""
    doubled = sum(map(_DOUBLED.__getitem__, digits[-2::-2]))
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def cn_resident(number: str) -> bool:
    """GB 11643-1999 (18 places with ISO 7064 MOD 11-2) or GB 11643-1989 (15 digits, no check digit)."""
    if number[:2] not in _CN_PROVINCES or not 0 < int(number[2:4]) <= 90:
        return False
    if len(number) == 15:
        return number.isdigit() and _date(number[8:10], number[10:12])
    if not number[:17].isdigit() or number[6:8] not in ("18", "19", "20") or not _date(number[10:12], number[12:14]):
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _CN_WEIGHTS, strict=False))
    return _CN_CHECK[total % 11] == number[17].upper()


def uscc(code: str) -> bool:
    """GB 32100-2015, the unified social credit code: a department, a province, and MOD 31 over 17 places."""
    if code[0] not in "123456789ANY" or code[2:4] not in _CN_PROVINCES:
        return False
    total = sum(_USCC.index(char) * pow(3, place, 31) for place, char in enumerate(code[:17]))
    return _USCC[-total % 31] == code[17]


def iban_length(code: str) -> int:
    """Places of the IBAN (ISO 13616) that `code` begins with, 0 where it begins with none."""
    form = _IBANS.get(code[:2])
    account = form.match(code, 2) if form else None
    if account is None:
        return 0
    length = account.end()
    turned = code[4:length] + code[:4]
    return length if int("".join(str(int(char, 36)) for char in turned)) % 97 == 1 else 0


def hk_identity(code: str) -> bool:
    """Hong Kong identity card: one or two letters, six digits, check character in 0..9 or A."""
    letters, digits = code[:-7], code[-7:-1]
    values = [36] * (2 - len(letters)) + [int(letter, 36) for letter in letters] + [int(digit) for digit in digits]
    total = sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True))
    return (total + int(code[-1], 16)) % 11 == 0


def tw_identity(code: str) -> bool:
    """Identification number of Taiwan: a letter, a 1 or 2 (8 or 9 for residents), eight digits, weighted sum MOD 10."""
    first = _TW_LETTERS.index(code[0]) + 10
    values = (first // 10, first % 10, *map(int, code[1:]))
    return sum(v * w for v, w in zip(values, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def payment_card(digits: str) -> bool:
    """Ranges of issuers (ISO/IEC 7812) with the lengths that each of them uses; says nothing of the check digit."""
    length, first = len(digits), int(digits[:4].ljust(4, "0"))
    return any(low <= first <= high and length in lengths for low, high, lengths in _ISSUERS)


def entropy(text: str) -> float:
    """Bits per character of the text's own letter frequencies (Shannon 1948)."""
    counts = Counter(text).values()
    return -sum(count / len(text) * log2(count / len(text)) for count in counts)


def _date(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= _MONTH_DAYS[int(month) - 1]
