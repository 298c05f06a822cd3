"""Postal addresses in Japanese, Korean and Cyrillic script: from the largest level to the number of the house."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detectors.pii.item import LIKELY, PiiItem

_JAPANESE = re.compile(
    r"(?:〒 ?[0-9]{3}-[0-9]{4}[ 　]?)?(?:東京都|北海道|京都府|大阪府|[一-龥]{2,3}県)[一-龥ぁ-んァ-ヶー々]{1,18}?"
    r"[0-9]{1,4}(?:[-−丁目番地の号0-9]{1,14})(?:[ 　]?[一-龥ぁ-んァ-ヶーA-Za-z]{0,14}[ 　]?[0-9]{1,4}(?:号室|階|F))?"
)
_KOREAN = re.compile(
    r"[가-힣]{1,4}(?:특별시|광역시|특별자치시|특별자치도|도|시) ?(?:[가-힣]{1,5}(?:시|군|구) ?){0,2}"
    r"(?:[가-힣]{1,6}(?:읍|면|동) ?)?"
    r"(?:[가-힣]{1,8}[0-9]{0,3}(?:로|길)(?:[0-9]{1,3}번?길)? ?|(?<=동 ))[0-9]{1,4}(?:-[0-9]{1,4})?"
    r"(?:,? ?[0-9]{1,4}동)?(?:,? ?[0-9]{1,4}(?:호|층))?"
)
_CYRILLIC = re.compile(
    r"(?:(?:[0-9]{6}, ?)?(?:г\. ?)?[А-ЯЁ][а-яё-]{2,20}, ?)?(?<![а-яёА-ЯЁ])"
    r"(?:ул(?:ица|ице|\.)|пр(?:оспект|осп\.|-т|\.)|пер(?:еулок|\.)"
    r"|пл(?:ощадь|\.)|наб(?:ережная|\.)|ш(?:оссе|\.)|бул(?:ьвар|\.)|б-р) ?[А-ЯЁ0-9][А-Яа-яё0-9. -]{1,30}?,? ?"
    r"(?:д(?:ом|\.) ?)?[0-9]{1,4}[а-я]?(?:/[0-9]{1,3})?(?:,? ?(?:корп(?:ус|\.)|к\.|стр\.) ?[0-9]{1,3})?"
    r"(?:,? ?(?:кв(?:артира|\.)|оф(?:ис|\.)) ?[0-9]{1,4})?"
)
_SCRIPTS = (
    (re.compile("[県都道府](?:(?<=県)|(?<=東京都)|(?<=北海道)|(?<=[京大][都阪]府))"), _JAPANESE),
    (re.compile("[로길동] ?[0-9]"), _KOREAN),
    (re.compile("[а-яё]"), _CYRILLIC),
)


def addresses_scripts(text: str) -> Iterator[PiiItem]:
    """Such addresses in `text`, in order of their start within each script."""
    for hint, pattern in _SCRIPTS:
        if hint.search(text) is not None:
            yield from (PiiItem("ADDRESS", *match.span(), LIKELY) for match in pattern.finditer(text))
