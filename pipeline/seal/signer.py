"""The log's signing keys as they are now: seal goes over to newer ones at a manifest boundary.

The order of a rotation, and what a crash between two steps leaves (``pipeline.control.log_rotation`` takes the steps):

1. the new keys in a file of their own. Nothing uses them.
2. the deployment document that names them. Every verifier knows them; seal signs with the former ones as before.
3. the file of the new keys takes the place of the former, which are gone. Seal sees it at its next manifest, and where
   it was down at its start. A file that came before its document is not used until the document is read.
4. the deployment document with the end of the former keys, once every origin bears a manifest of the new ones.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.audit.checkpoint import LogKeys, Verifiers, key_name, open_checkpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.events.control import Control
from pipeline.events.messages import Manifest
from pipeline.keys.files import FileState, file_state, load_log_keys

_log = logging.getLogger(__name__)


class LogSigner:
    """Gives the keys in the file as long as the deployment names them and none of them was retired."""

    def __init__(self, path: Path, control: Control) -> None:
        """Raises ConfigError where the keys in the file may not sign."""
        self._path = path
        self._control = control
        self._state: FileState = file_state(path)
        self._keys = load_log_keys(path)
        self._told: FileState | None = None
        if fault := self._fault(self._keys):
            raise ConfigError(fault)

    def keys(self) -> LogKeys:
        """Give the keys that sign the next manifest. Raises ConfigError once they were retired."""
        state = file_state(self._path)
        if state != self._state:
            self._take(state)
        if fault := self._fault(self._keys):
            raise ConfigError(fault)
        return self._keys

    def require_newest(self, last: Manifest) -> None:
        """See that no newer keys have signed. Raises Retryable: another host has them, and an older key ends there."""
        trusted = self._control.require_deployment().log_keys
        if not trusted or self.keys().signed(last.checkpoint):
            return
        verifiers = Verifiers(trusted)
        ours = [ordinal for ordinal, text in enumerate(trusted[::2]) if text in self.keys().verifier_keys]
        if ours and open_checkpoint(last.checkpoint, verifiers).key > ours[0]:
            raise Retryable(
                f"{last.origin}: manifest {last.index} is signed by newer log keys than those in {self._path}; copy "
                "that file from where they were rotated"
            )

    def _take(self, state: FileState) -> None:
        try:
            keys = load_log_keys(self._path)
            fault = self._fault(keys)
        except ConfigError as error:
            fault = str(error)
        if fault:
            if state != self._told:
                self._told = state
                _log.warning("seal: goes on with the log keys it has: %s", fault)
            return
        self._state, self._keys = state, keys
        _log.info("seal: goes over to the log keys %s", ", ".join(map(key_name, keys.verifier_keys)))

    def _fault(self, keys: LogKeys) -> str:
        deployment = self._control.require_deployment()
        for text in keys.verifier_keys if deployment.log_keys else ():
            if text not in deployment.log_keys:
                return (
                    f"{self._path}: log key {key_name(text)} is not in the deployment document; run: sluice keys "
                    "rotate log, or restore the file"
                )
            if key_name(text) in deployment.log_key_ends:
                return f"{self._path}: log key {key_name(text)} was retired; copy the newer file from where it was made"
        return ""
