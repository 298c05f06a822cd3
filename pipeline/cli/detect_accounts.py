"""``sluice detect accounts``: accounts that copy a model, found in their requests replayed on one clock."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.config import Settings

BLOCK = 1 << 16


def add(subcommands: Any) -> None:
    accounts = subcommands.add_parser(
        "accounts",
        help="find model extraction, distillation and campaigns in accounts replayed by time",
        description="Find model extraction, distillation and campaigns in accounts. "
        "Reads one account per line, {session_id, tenant, user, start, params, events: [{t, text, "
        "params?}]}, replays the requests of all of them interleaved by time, and writes per line {session_id, "
        "alarmed, alarmed_at (requests of that account seen at the alarm), alarmed_time (seconds on the replay "
        "clock), score, kind, campaign}, in the order of the input once it ends. A line that is no account is "
        'answered with {"session_id", "error"}. Texts are read into hashes and counts and not kept.',
    )
    accounts.set_defaults(act=_accounts)


def _accounts(_: argparse.Namespace, __: Settings) -> int:
    # the trained model, which no other command needs at its start
    from detectors.accounts import replay

    for answer in replay.answers(lines(sys.stdin.buffer, replay.MAX_LINE)):
        sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def lines(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Lines without their end; of one longer than `most` bytes a little more than that, and the rest is skipped."""
    while line := stream.readline(most + 2):
        whole = line.endswith(b"\n")
        yield line.rstrip(b"\r\n")
        while not whole and (rest := stream.readline(BLOCK)):
            whole = rest.endswith(b"\n")
