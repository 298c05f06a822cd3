"""Keys and tokens: formats that providers publish, and runs of high entropy behind a word that calls them secret.

Each pattern recognises the head of a secret; how it goes on, without bound, its tail says.
"""

from __future__ import annotations

import re

from detectors.pii import checks as check
from detectors.pii.item import LIKELY, SECRET, SURE
from detectors.pii.lexicon import words
from detectors.pii.shape import ItemPattern

TAIL = re.compile(r"[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
_BASE64_TAIL = re.compile(r"[A-Za-z0-9+/_=-]*")
_PEM_TAIL = re.compile(r"[A-Za-z0-9+/=\\\r\n]*")
# fmt: off
_PREFIXED = (
    r"sk-(?!ssh-|ecdsa-)[A-Za-z0-9_-]{16}", r"sk_(?:live|test|prod)_[A-Za-z0-9]{8}", r"sk_[0-9a-f]{32}",  # OpenAI
    r"rk_(?:live|test)_[A-Za-z0-9]{16}", r"whsec_[A-Za-z0-9+/]{24}",  # Stripe
    r"gh[oprsu]_[A-Za-z0-9]{20}", r"github_pat_[A-Za-z0-9_]{20}", r"glpat-[A-Za-z0-9_-]{20}",
    r"xox[abeprs]-[A-Za-z0-9-]{12}", r"xapp-[0-9]-[A-Za-z0-9-]{16}", r"ya29\.[A-Za-z0-9_-]{20}",  # Slack, Google
    r"A[KS]IA[0-9A-Z]{16}", r"AIza[A-Za-z0-9_-]{30}", r"LTAI[A-Za-z0-9]{12}", r"AKID[A-Za-z0-9]{32}",  # clouds
    r"hf_[A-Za-z0-9]{30}", r"npm_[A-Za-z0-9]{30}", r"pypi-[A-Za-z0-9_-]{40}", r"dop_v1_[0-9a-f]{40}",
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", r"SG\.[A-Za-z0-9_-]{16,22}\.[A-Za-z0-9_-]{16}", r"r8_[A-Za-z0-9]{30}",
    r"eyJ(?:hbGciOi|0eXAiOi|raWQiOi|lbmMiOi|jdHkiOi|4NXQ|qa3UiOi|6aXAiOi)[A-Za-z0-9_-]{4}",  # JSON Web Token, RFC 7519
)
# fmt: on
PREFIX = (
    r"sk[-_]|rk_|whsec_|gh[oprsu]_|github_|glpat-|xox|xapp-|ya29\.|A[KS]IA|AIza|LTAI|AKID|hf_|npm_|pypi-|dop_|shp[acps]"
    r"|SG\.|r8_|eyJ"
)
"""How the prefixed ones begin."""
LONG = 20
"""Places of a secret that only a word nearby gives away."""
_NAMED = re.compile(
    r"(?:api[_ -]?key|access[_ -]?key|secret|token|passw(?:or)?d|passwd|pwd|credential|bearer|authorization|accountkey"
    r"|client[_ -]?secret|密钥|秘钥|口令|密码|令牌|凭证)(?:\((?=[\"']))?[^\n()\[;{}]{0,12}$"
)
_NO_SECRET = re.compile(
    r"(?:token|request|trace|session)?[_ -]?(?:id|count|hash|commit|sha)\W{0,4}$"
    r"|(?:next|page|pagination|continuation|request|change|purchase|action|cursor)[_ -]?token\W{0,6}$|[a-z]-[a-z]+-$"
)
"""Before an identifier, a place in a list, or the rest of a name with hyphens."""
_IN_RUN = re.compile(r"[a-z0-9+/]{20}$")
"""Before a word that is a part of encoded bytes."""
_LETTERS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
"""Words that are written together: `inputTokens_XYZ` has three."""
_WORD, _SHORT_WORD, _KNOWN = 4, 3, 0.6
"""Letters in a row, on average, from which a run is made of words, as random ones have two to three; or so large a part
of the letters in known words of three and more."""
_PEM = re.compile(r"private key-----[\\rn\s]{1,6}$")
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[^\W\d_]")
_LEAST_ENTROPY = 3.0
"""Bits per character; twenty random hexadecimal digits have 3.4 in the mean, words written together below 3."""


def _of_words(candidate: str) -> bool:
    """True for an identifier or a file name, which is made of words, and false for a random run."""
    pieces = _LETTERS.findall(candidate)
    letters = sum(map(len, pieces))
    known = sum(len(piece) for piece in pieces if len(piece) >= _SHORT_WORD and piece.lower() in words("words"))
    return letters >= _WORD * len(pieces) or known >= _KNOWN * letters


def _keyed(candidate: str, before: str) -> int:
    """Words joined by hyphens after `sk-` are no key: a key has a digit or a capital early on."""
    head = candidate[3:24]
    return len(candidate) if head != head.lower() or any(char.isdigit() for char in head) else 0


def _named(candidate: str, before: str) -> int:
    # the texts before are searched last: most long words are nothing but letters
    if _DIGIT.search(candidate) is None or _LETTER.search(candidate) is None or _of_words(candidate):
        return 0
    if check.entropy(candidate) < _LEAST_ENTROPY or _NO_SECRET.search(before):
        return 0
    named = _NAMED.search(before)
    if named is None or _IN_RUN.search(before, 0, named.start()):
        return 0
    return len(candidate)


def _in_url(candidate: str, before: str) -> int:
    """The password between a user and a host (RFC 3986, section 3.2.1); words, and what has no digit, hold a place."""
    placeholder = _DIGIT.search(_ESCAPE.sub("", candidate)) is None or _of_words(candidate)
    return 0 if placeholder or not _USER.search(before) else len(candidate)


def _armoured(candidate: str, before: str) -> int:
    return len(candidate) if "private key-----" in before and _PEM.search(before) else 0


_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_USER = re.compile(r"://[^\s:/@]*:$")
URL_PASSWORD = ItemPattern(
    SECRET, re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.%+~!$*-]{4,63}(?=@[A-Za-z0-9\[])"), _in_url, LIKELY
)
SECRETS = (
    ItemPattern(SECRET, re.compile(f"(?:{'|'.join(_PREFIXED)})"), _keyed, SURE, TAIL),
    ItemPattern(SECRET, re.compile(r"[A-Za-z0-9+/]{16}"), _armoured, SURE, _PEM_TAIL),
    ItemPattern(SECRET, re.compile(rf"[A-Za-z0-9+/_-]{{{LONG},64}}"), _named, LIKELY, _BASE64_TAIL),
)
