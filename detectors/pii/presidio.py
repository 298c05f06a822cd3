"""Presidio's pattern recognisers (MIT) with our types: a second opinion, and what a test holds ours against.

Needs the extra `presidio`; nothing else imports this module. It runs without a language model, so names, places and
words nearby are not looked at, and without a network: the list of domain suffixes is the one that tldextract carries.
"""

from __future__ import annotations

import tldextract
from presidio_analyzer import EntityRecognizer
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    MacAddressRecognizer,
    PhoneRecognizer,
    UkNinoRecognizer,
    UsSsnRecognizer,
)

from detectors.pii.item import PiiItem

TYPES = {
    "CREDIT_CARD": "CREDIT_CARD",
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "MAC_ADDRESS": "MAC",
    "PHONE_NUMBER": "PHONE",
    "UK_NINO": "UK_NINO",
    "US_SSN": "US_SSN",
}
"""Presidio's name of each type that both know -> ours."""
LEAST = 0.4
"""Score from which a match counts: what Presidio gives a telephone number that nothing nearby speaks for."""
_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


class _Email(EmailRecognizer):  # type: ignore[misc]
    """The original asks for the current list of suffixes over the network."""

    def validate_result(self, pattern_text: str) -> bool:
        return bool(_suffixes(pattern_text).suffix)


class Presidio:
    """The recognisers of TYPES, made once; `find` is as `detectors.pii.find`."""

    name = "presidio"

    def __init__(self) -> None:
        recognisers = (
            CreditCardRecognizer, _Email, IbanRecognizer, IpRecognizer, MacAddressRecognizer, PhoneRecognizer,
            UkNinoRecognizer, UsSsnRecognizer,
        )  # fmt: skip
        self._recognisers: tuple[EntityRecognizer, ...] = tuple(recogniser() for recogniser in recognisers)

    def find(self, text: str) -> tuple[PiiItem, ...]:
        """Items of `text` in order, none overlapping another: of those that do, the surest, then the longest."""
        found = [
            (-match.score, match.start - match.end, match.start, match.end, TYPES[match.entity_type])
            for recogniser in self._recognisers
            for match in recogniser.analyze(text, recogniser.supported_entities, None) or ()
            if match.score >= LEAST and match.start < match.end
        ]
        kept: list[PiiItem] = []
        for score, _, start, end, kind in sorted(found):
            if all(end <= item.start or item.end <= start for item in kept):
                kept.append(PiiItem(kind, start, end, round(-100 * score)))
        return tuple(sorted(kept, key=lambda item: item.start))
