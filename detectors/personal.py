"""Types of personal data by name: words that plans, findings and redacted texts share. Nothing else is imported."""

from __future__ import annotations

STRUCTURED = frozenset((
    "EMAIL", "CN_MOBILE", "CN_LANDLINE", "CN_ID", "US_SSN", "IP", "MAC", "PHONE", "IBAN", "CN_BANK_CARD",
    "CREDIT_CARD", "CN_PLATE", "CN_USCC", "SECRET", "UK_NINO", "HK_ID", "TW_ID", "CN_HKMO_PERMIT",
))  # fmt: skip
"""Types with a check digit or a format of their own."""
CONTEXTUAL = frozenset(("PERSON", "ADDRESS", "DATE_OF_BIRTH", "WECHAT", "QQ", "CN_PASSPORT", "US_PASSPORT", "PASSPORT"))
"""Types that the words around them tell."""
TYPES = STRUCTURED | CONTEXTUAL
TECHNICAL = ("IP", "MAC")
"""Types that answers about machines are full of; the plan's default leaves them as they stand."""
