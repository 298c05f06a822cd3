"""Accounts replayed on one clock, and the command over them: one answer per line whatever comes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detectors.accounts import replay
from detectors.accounts.campaign import MEMBERS, Campaigns
from detectors.accounts.judge import shipped
from detectors.accounts.replay import MalformedAccount, answers, read
from pipeline import cli
from pipeline.cli.detect_accounts import lines

SECRET = "the launch code is swordfish"
BASE = {"temperature": 0.5, "max_tokens": 9, "logprobs": 0, "top_logprobs": 0, "logit_bias": [], "n": 1, "stream": True}


def account(name: str, texts: Sequence[str], start: float = 0.0, gap: float = 5.0, **changes: Any) -> dict[str, Any]:
    events = [{"t": number * gap, "text": text} for number, text in enumerate(texts)]
    return {"session_id": name, "tenant": "t", "user": "u", "start": start, "params": BASE, "events": events} | changes


def sweep(name: str, start: float = 0.0) -> dict[str, Any]:
    probes = [{"t": n, "text": "The", "params": BASE | {"logit_bias": [[n, 100]], "max_tokens": 1}} for n in range(20)]
    return account(name, [], start, events=probes)


def harvest(name: str, start: float) -> dict[str, Any]:
    things = [
        "boats",
        "glass",
        "rain",
        "clocks",
        "honey",
        "salt",
        "paper",
        "wolves",
        "ink",
        "coal",
        "silk",
        "mint",
        "rope",
        "dust",
    ]
    end = " Show the whole chain of thought, step by step, before the final answer."
    return account(name, [f"Why do {a} and {b} matter to people?{end}" for a in things for b in things[:3]], start)


def replayed(accounts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answers(json.dumps(one).encode() for one in accounts)]


def test_answers_come_in_order_with_the_alarm_on_the_clock() -> None:
    found = replayed([account("quiet", ["What is a dog?", "Where do cats sleep?"], 50.0), sweep("loud", 1000.0)])
    assert found[0] | {"score": 0} == {
        "session_id": "quiet", "alarmed": False, "alarmed_at": None, "alarmed_time": None, "score": 0, "kind": None,
        "campaign": None,
    }  # fmt: skip
    loud = found[1]
    assert (loud["alarmed"], loud["alarmed_at"], loud["alarmed_time"], loud["kind"]) == (True, 5, 1004.0, "bias-sweep")


def test_the_order_of_lines_changes_no_answer() -> None:
    accounts = [harvest(f"h{n}", n * 17.0) for n in range(4)] + [sweep("s", 30.0), account("q", ["Hello there"])]
    there = replayed(accounts)
    assert sorted(map(str, replayed(accounts[::-1]))) == sorted(map(str, there))


def test_accounts_that_share_a_wording_are_one_campaign_across_tenants() -> None:
    accounts = [harvest(f"h{n}", n * 60.0) | {"tenant": f"t{n}"} for n in range(MEMBERS + 1)]
    found = replayed([*accounts, sweep("alone")])
    names = {answer["campaign"] for answer in found[:-1]}
    assert len(names) == 1
    assert names != {None}
    assert found[-1]["campaign"] is None


def test_event_parameters_are_laid_over_those_of_the_account() -> None:
    one = account("a", ["x"], params={"temperature": 0.3})
    one["events"][0]["params"] = {"max_tokens": 7}
    other = account("a", ["x"], params={"temperature": 0.3, "max_tokens": 7})
    assert read(json.dumps(one).encode()) == read(json.dumps(other).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"session_id": 1}',
        json.dumps(account("a", [SECRET]) | {"start": "soon"}).encode(),
        json.dumps(account("a", [], events=[{"t": 1, "text": 5}])).encode(),
        json.dumps(account("a", [SECRET], start=1e300)).encode(),
        json.dumps(account("a", [SECRET], params={"logit_bias": SECRET})).encode(),
    ],
)  # fmt: skip
def test_a_line_that_is_no_account_is_answered_and_its_text_is_not_repeated(line: bytes) -> None:
    found = [json.loads(answer) for answer in answers([line, json.dumps(account("b", ["hi"])).encode(), line])]
    assert ["error" in answer for answer in found] == [True, False, True]
    assert SECRET not in str(found)


def test_what_other_writers_make_of_an_account_is_read() -> None:
    strict = account("a", ["half \ufffd"], params={"logit_bias": [[5, 1.0]]})
    bare = account("a", ["half \ufffd"], params={"logit_bias": {"5": 1.0}})
    assert read(b"\xef\xbb\xbf" + json.dumps(bare).encode()) == read(json.dumps(strict).encode())
    bare["events"][0] |= {"text": "half \ud83d", "params": None}
    assert len(read(json.dumps(bare).encode()).requests) == 1
    assert replayed([account("b", ["x"], params=None)])[0]["session_id"] == "b"


def test_an_account_that_cannot_be_read_is_named_where_it_can_be() -> None:
    wrong = [account("late", ["x"], start=1e300), account("odd", ["x"], params={"n": "two"}), {"session_id": 7}]
    assert [answer["session_id"] for answer in replayed(wrong)] == ["late", "odd", None]


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    one = json.dumps(account("a", ["hi"] * 3)).encode()
    monkeypatch.setattr(replay, "MAX_REQUESTS", 7)
    assert ["error" in json.loads(answer) for answer in answers([one, one, one])] == [False, False, True]
    monkeypatch.setattr(replay, "MAX_LINE", 20)
    with pytest.raises(MalformedAccount, match="at most 20 bytes"):
        read(one)


def test_wild_numbers_are_answered() -> None:
    wild = {"temperature": 1e308, "max_tokens": -(2**63), "top_logprobs": 2**63, "n": -1, "logit_bias": [[-5, 1e308]]}
    assert replayed([account("a", ["hi"] * 12, params=wild)])[0]["session_id"] == "a"


def test_an_empty_replay_and_an_account_without_requests() -> None:
    assert replay.replay([], shipped(), Campaigns()) == []
    assert replayed([account("a", [])])[0]["alarmed"] is False


def test_lines_are_cut_where_they_are_too_long() -> None:
    stream = io.BytesIO(b"ab\n" + b"x" * 500_000 + b"\nlast\r\n\nend")
    assert [len(line) for line in lines(stream, 100)] == [2, 102, 4, 0, 3]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps(sweep("s")).encode() + b"\nnot json\n")

    monkeypatch.setattr("sys.stdin", Stdin)
    assert cli.main(["detect", "accounts"]) == 0
    first, second = (json.loads(line) for line in capfdbinary.readouterr().out.splitlines())
    assert (first["session_id"], first["alarmed"]) == ("s", True)
    assert second == {"session_id": None, "error": "expected one JSON object in UTF-8"}


def test_applications_that_were_taken_for_copiers_are_not() -> None:
    """A helper for SQL, idioms explained, and an agent whose log repeats itself."""
    lines = (Path(__file__).parent / "stored" / "ordinary.jsonl").read_bytes().splitlines()
    verdicts = [json.loads(answer) for answer in answers(lines)]
    assert [(verdict["session_id"].partition("#")[0], verdict["alarmed"]) for verdict in verdicts] == [
        ("sql-assistant-30-distinct", False),
        ("zh-idioms", False),
        ("agent-loop", False),
    ]
