"""Texts of strangers are read in a process of their own, which can be killed: ``detectors.worker``.

A batch that kills the worker is cut in halves until the guilty text is alone; that text bears the finding ``KILLED``,
its neighbours are screened as ever. Nothing waits for a worker for longer than ``WALL_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from types import TracebackType

import msgspec

from detectors.base import HIGH, Finding, Screened, Transcript
from pipeline.errors import Retryable
from pipeline.interpreter import module_command, module_environment

_log = logging.getLogger(__name__)
KILLED = Screened((Finding("detector.timeout", HIGH, 100, 0, 0, "raw", 0),))
"""What is said of a text that its own reader did not survive."""
WALL_S = 60.0
"""Real time for one batch. The worker's own budget is CPU time and ends it long before; this is for one that is
stopped."""
MAX_CHARS = 1 << 20
"""Code points that go to the worker at once, a longer transcript alone."""
MAX_ANSWER_BYTES = 64 << 20
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[Screened])


class _Lost(Exception):
    """The worker ended, or does not answer."""


class _Replaced(Exception):
    """The worker's fork did not survive the batch, and the next one is ready."""


class Screener:
    """One worker, started on first use and again after each that was lost; ``module`` is its program."""

    def __init__(self, module: str = "detectors.worker") -> None:
        self._module = module
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Screener:
        async with self._lock:
            await self._started()
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._end()

    @property
    def pid(self) -> int | None:
        """Process id of the worker that serves now."""
        return self._process.pid if self._process else None

    async def screen(self, transcripts: Sequence[Transcript]) -> list[Screened]:
        """One answer per transcript, in order. Raises Retryable where no worker can be started."""
        answers: list[Screened] = []
        for batch in _cut(transcripts):
            async with self._lock:
                answers += await self._screen(batch)
        return answers

    async def _screen(self, batch: Sequence[Transcript]) -> list[Screened]:
        for _ in range(2 if len(batch) == 1 else 1):
            # a text alone is tried again: another may have killed the worker
            try:
                return await asyncio.wait_for(self._ask(batch), WALL_S)
            except _Replaced:
                continue
            except (_Lost, TimeoutError):
                await self._end()
        if len(batch) == 1:
            _log.error("screening: a text of %d characters killed its reader", sum(len(p.text) for p in batch[0]))
            return [KILLED]
        half = len(batch) // 2
        return await self._screen(batch[:half]) + await self._screen(batch[half:])

    async def _ask(self, batch: Sequence[Transcript]) -> list[Screened]:
        process = await self._started()
        assert process.stdin is not None
        question = _encode(batch)
        try:
            process.stdin.write(len(question).to_bytes(4, "big") + question)
            await process.stdin.drain()
            answer = await _read(process)
            if not answer:
                raise _Replaced
            answers = _decoder.decode(answer)
        except (OSError, EOFError, msgspec.DecodeError) as error:
            raise _Lost from error
        if len(answers) != len(batch):
            raise _Lost
        return answers

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *module_command(self._module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
                # nothing of ours: secrets come in the environment
                env={**module_environment(), "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
            )
            try:
                await asyncio.wait_for(_read(self._process), WALL_S)
            except (EOFError, TimeoutError) as error:
                status = self._process.returncode
                await self._end()
                raise Retryable(f"the screening worker does not start (exit {status})") from error
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    size = int.from_bytes(await process.stdout.readexactly(4), "big")
    if size > MAX_ANSWER_BYTES:
        raise EOFError
    return await process.stdout.readexactly(size)


def _cut(transcripts: Sequence[Transcript]) -> list[Sequence[Transcript]]:
    """In order, each piece within MAX_CHARS or a single transcript."""
    pieces: list[Sequence[Transcript]] = []
    start = chars = 0
    for index, transcript in enumerate(transcripts):
        size = sum(len(part.text) for part in transcript)
        if index > start and chars + size > MAX_CHARS:
            pieces.append(transcripts[start:index])
            start, chars = index, 0
        chars += size
    return [*pieces, transcripts[start:]] if len(transcripts) > start else pieces
