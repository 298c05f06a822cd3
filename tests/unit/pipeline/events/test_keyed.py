"""The short HMAC is the standard one."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from pipeline.events.keyed import hmac_sha256


@given(st.binary(max_size=100), st.binary(max_size=300))
def test_it_equals_the_standard_library(key: bytes, message: bytes) -> None:
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")
