"""The log's signing keys are replaced while seal goes on; ``pipeline.seal.signer`` says in which order, and why.

Where a rotation stands follows from the files and the deployment document alone, so a command that was killed, or did
not wait for seal, goes on from there when it is run again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from pipeline.audit.checkpoint import LogKeys, key_name
from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.events.control import Deployment
from pipeline.kafka.offsets import Offsets
from pipeline.keys.files import create_log_keys, following_log_keys, load_log_keys, use_following_log_keys
from pipeline.retry import retry_until
from pipeline.seal.tails import read_tails

Write = Callable[[Deployment, str], Awaitable[None]]
"""Writes the deployment document, which bears the roots' signatures, and the act; it is in force afterwards."""


class LogRotation:
    """One rotation of the keys at ``path``."""

    def __init__(self, kafka: KafkaEndpoint, table: ControlTable, path: Path, write: Write) -> None:
        self._kafka = kafka
        self._table = table
        self._path = path
        self._write = write

    async def run(self, wait_s: float, tell: Callable[[str], None]) -> None:
        """Begin a rotation or go on with one, and end it once seal has gone over. Raises ConfigError, Retryable."""
        await self._table.refresh()
        if self._begins(tell):
            create_log_keys(following_log_keys(self._path), "sluice")
        if following_log_keys(self._path).exists():
            await self._go_over(load_log_keys(following_log_keys(self._path)), tell)
        keys = load_log_keys(self._path)
        tell("waiting for seal to sign every origin with the new keys")
        await retry_until(lambda: self._require_signed(keys), wait_s, "seal to go over to the new log keys")
        await self._retire(keys)
        tell("the former keys are retired: a checkpoint of theirs from now on is a fault of the log")

    @property
    def _deployment(self) -> Deployment:
        return self._table.control.require_deployment()

    def _begins(self, tell: Callable[[str], None]) -> bool:
        """Tell whether nothing is under way: every key of the deployment but those in the file is retired."""
        if following_log_keys(self._path).exists():
            return False
        if not self._path.exists():
            tell(f"{self._path} is lost: the log goes on under new keys")
            return True
        deployment, keys = self._deployment, load_log_keys(self._path)
        if not set(keys.verifier_keys) <= set(deployment.log_keys):
            raise ConfigError(
                f"{self._path}: its key is not in the deployment document, so seal does not run with it; restore the "
                "file of this deployment, or take it away where that is lost"
            )
        retired = any(key_name(text) in deployment.log_key_ends for text in keys.verifier_keys)
        return retired or not self._former(keys)

    def _former(self, keys: LogKeys) -> list[str]:
        """Name the keys of the deployment that are to be retired."""
        deployment = self._deployment
        named = [key_name(text) for text in deployment.log_keys if text not in keys.verifier_keys]
        return [name for name in named if name not in deployment.log_key_ends]

    async def _go_over(self, following: LogKeys, tell: Callable[[str], None]) -> None:
        deployment = self._deployment
        if not set(following.verifier_keys) <= set(deployment.log_keys):
            named = (*deployment.log_keys, *following.verifier_keys)
            await self._write(deployment.model_copy(update={"log_keys": named}), "deployment.rotate.log")
            tell("the deployment document names the new keys: every verifier knows them")
        # only now: a checkpoint under a key that no document names would be a fault
        use_following_log_keys(self._path)
        tell(f"{self._path} holds the new keys, and the former ones are destroyed; copy it to where seal runs")

    async def _require_signed(self, keys: LogKeys) -> None:
        """Raises Retryable where the last manifest of an origin is not signed with these keys."""
        deployment, offsets = self._deployment, Offsets(self._kafka)
        try:
            for partition in range(deployment.partitions):
                _, tails = await read_tails(self._kafka, offsets, deployment.generation, partition)
                for origin, manifests in tails.items():
                    if not keys.signed(manifests[-1].checkpoint):
                        raise Retryable(
                            f"the last manifest of {origin} is signed with the former keys; is seal running, with the "
                            "new file? then run: sluice keys rotate log"
                        )
        finally:
            await offsets.close()

    async def _retire(self, keys: LogKeys) -> None:
        await self._table.refresh()
        former = self._former(keys)
        if former:
            ends = {**self._deployment.log_key_ends, **dict.fromkeys(former, now_ms() // 1000)}
            retired = self._deployment.model_copy(update={"log_key_ends": ends})
            await self._write(retired, "deployment.retire.log")
