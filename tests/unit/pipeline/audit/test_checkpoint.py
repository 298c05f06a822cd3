"""Checkpoints against the published C2SP and sumdb vectors, and against everything that is not quite one."""

from __future__ import annotations

import base64
import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audit.checkpoint import (
    ED25519,
    MAX_SIGNATURES,
    ML_DSA_44,
    Checkpoint,
    LogKeys,
    Verifiers,
    cosigned_message,
    key_id,
    open_checkpoint,
    parse_note,
    sign_checkpoint,
    verify_signature,
)
from pipeline.errors import ConfigError, Malformed

KEYS = LogKeys("sluice.test/log", b"e" * 32, b"m" * 32)
VERIFIERS = Verifiers(KEYS.verifier_keys)
ROOT = hashlib.sha256(b"root").digest()
NOTE = sign_checkpoint(KEYS, "g1/decisions/0", 12, ROOT, 1_790_000_000, ("manifest " + "a" * 64,))
FOREIGN = "\u2014 witness.test/w " + base64.b64encode(b"\x01\x02\x03\x04" + b"s" * 72).decode() + "\n"

# The example of c2sp.org/tlog-checkpoint is a checkpoint of sum.golang.org under another origin line.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9"
    "nTo+zyWE+xeMcTOAYQ8=\n"
)
GOLANG = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def public_of(verifier: str) -> bytes:
    return base64.b64decode(verifier.split("+", 2)[2])[1:]


@pytest.mark.parametrize("verifier", [GOLANG, PETER])
def test_key_ids_are_those_of_published_keys(verifier: str) -> None:
    name, identifier, _ = verifier.split("+", 2)
    assert key_id(name, ED25519, public_of(verifier)).hex() == identifier


def test_the_c2sp_example_parses_and_its_signature_holds_over_its_true_origin() -> None:
    example, lines = parse_note(EXAMPLE)
    assert (example.origin, example.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert example.body == EXAMPLE.split("\n\n")[0] + "\n"
    raw = base64.b64decode(lines[0].split(" ")[2])
    assert raw[:4].hex() == GOLANG.split("+")[1]
    true = Checkpoint("go.sum database tree", example.size, example.root)
    assert verify_signature(ED25519, public_of(GOLANG), "sum.golang.org", true, raw[4:]) == 0
    with pytest.raises(Malformed, match="does not hold"):
        verify_signature(ED25519, public_of(GOLANG), "sum.golang.org", example, raw[4:])


def test_the_cosigned_message_has_the_layout_of_tlog_cosignature() -> None:
    stated = Checkpoint("example.com/log", 20_852_163, b"0123456789abcdef0123456789abcdef", ("extra",), 1_679_315_147)
    want = b"subtree/v1\n\x00" + b"\x0emirror.test/m1" + struct.pack(">Q", 1_679_315_147) + b"\x0fexample.com/log"
    want += struct.pack(">QQ", 0, 20_852_163) + stated.root
    assert cosigned_message("mirror.test/m1", stated) == want


def test_equal_seeds_give_equal_keys_and_the_ed25519_line_is_stable() -> None:
    again = LogKeys("sluice.test/log", b"e" * 32, b"m" * 32)
    assert again.verifier_keys == KEYS.verifier_keys
    note = sign_checkpoint(again, "g1/decisions/0", 12, ROOT, 1_790_000_000, ("manifest " + "a" * 64,))
    assert note.split("\u2014 ")[1] == NOTE.split("\u2014 ")[1]
    drawn = iter((b"e" * 32, b"m" * 32))
    assert LogKeys.generate("sluice.test/log", lambda count: next(drawn)[:count]).verifier_keys == KEYS.verifier_keys


def test_a_checkpoint_opens_to_what_was_signed() -> None:
    found = open_checkpoint(NOTE, VERIFIERS)
    assert found == Checkpoint("g1/decisions/0", 12, ROOT, ("manifest " + "a" * 64,), 1_790_000_000)


def test_the_order_of_the_signatures_does_not_matter() -> None:
    body, first, second = NOTE.split("\u2014 ")
    assert open_checkpoint(f"{body}\u2014 {second}\u2014 {first}", VERIFIERS) == open_checkpoint(NOTE, VERIFIERS)


def test_lines_of_unknown_keys_are_ignored() -> None:
    assert open_checkpoint(NOTE + FOREIGN, VERIFIERS) == open_checkpoint(NOTE, VERIFIERS)


def test_a_rotated_key_set_opens_old_and_fresh_checkpoints() -> None:
    fresh = LogKeys("sluice.test/log", b"f" * 32, b"g" * 32)
    both = Verifiers((*KEYS.verifier_keys, *fresh.verifier_keys))
    assert open_checkpoint(NOTE, both).size == 12
    assert open_checkpoint(sign_checkpoint(fresh, "o", 1, ROOT, 5), both).size == 1


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_both_signatures_are_required(kind: int) -> None:
    body, first, second = NOTE.split("\u2014 ")
    with pytest.raises(Malformed, match="expected Ed25519 and ML-DSA-44"):
        open_checkpoint(body + "\u2014 " + (second if kind == ED25519 else first), VERIFIERS)


def test_a_failing_signature_of_a_known_key_rejects_the_note() -> None:
    foreign = sign_checkpoint(KEYS, "g1/decisions/0", 13, ROOT, 1).split("\u2014 ")[1]
    with pytest.raises(Malformed, match="does not hold"):
        open_checkpoint(NOTE + "\u2014 " + foreign, VERIFIERS)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(NOTE) - 1), st.characters(codec="utf-8"))
def test_no_character_can_be_changed(at: int, sign: str) -> None:
    altered = NOTE[:at] + sign + NOTE[at + 1 :]
    if altered == NOTE:
        return
    with pytest.raises(Malformed):
        open_checkpoint(altered, VERIFIERS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        NOTE[:-1],
        NOTE.replace("\n12\n", "\n012\n"),
        NOTE.replace("\n12\n", "\n-1\n"),
        NOTE.replace("\n12\n", "\n\u0661\n"),
        NOTE.replace("\n12\n", "\n99999999999999999999\n"),
        NOTE.replace("manifest", "mani\tfest"),
        NOTE.replace("manifest", "mani\ud800fest"),
        NOTE.replace("manifest", "\nmanifest"),
        "x" * 256 + NOTE[NOTE.index("\n") :],
        NOTE.replace("\n\n", "\n" + "more\n" * 9 + "\n"),
        NOTE + FOREIGN * MAX_SIGNATURES,
        NOTE + "\u2014 name\n",
        NOTE + "- name AAAAAAAA\n",
        NOTE + "\u2014 name AAAA\n",
        NOTE + "\u2014 na+me AAAAAAAA\n",
        NOTE + "x" * 70_000,
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        open_checkpoint(text, VERIFIERS)


@pytest.mark.parametrize(
    "keys",
    [
        (),
        KEYS.verifier_keys[:1],
        KEYS.verifier_keys[1:],
        (*KEYS.verifier_keys, "name+00000000+AAAA"),
        (*KEYS.verifier_keys, PETER.replace("c74f", "c74e")),
        (*KEYS.verifier_keys, "no key at all"),
        (*KEYS.verifier_keys, "name+zzzzzzzz+AAAA"),
        (*KEYS.verifier_keys, PETER + "!"),
    ],
)
def test_verifier_keys_are_checked(keys: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="verifier key"):
        Verifiers(keys)


@pytest.mark.parametrize(("name", "seed"), [("a b", b"s" * 32), ("a+b", b"s" * 32), ("", b"s" * 32), ("a", b"s" * 31)])
def test_log_keys_are_checked(name: str, seed: bytes) -> None:
    with pytest.raises(ConfigError, match="log key"):
        LogKeys(name, seed, seed)
