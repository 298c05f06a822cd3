"""A model, a plan, and bodies that ask for it: what the tests of the HTTP shapes share."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pipeline.events.control import Control, Model, Plan
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.translate import read_chat

PLAN = Plan(id="p", models=("glossary",), max_tokens=64)
CONTROL = Control()
CONTROL.apply(0, Model(id="glossary", context=100))
TURN = {"role": "user", "content": "hello"}
CANARY = "canary-7f3a"


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "glossary", "messages": [TURN], **fields}).encode()


def refusal(raw: bytes, read: Any = read_chat) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(raw, CONTROL, PLAN)
    shape = msgspec.json.decode(caught.value.body())
    assert set(shape["error"]) == {"message", "type", "param", "code"}
    return caught.value
