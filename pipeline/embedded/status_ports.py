"""Ports on which the processes of this machine tell of themselves, and the file by which a Prometheus finds them."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.embedded.supervisor import LOOPBACK, free_port, is_free

TARGETS = "metrics-targets.json"


class StatusPorts:
    """A port for each process by its name; it stays the same between starts for as long as it is free."""

    def __init__(self, home: Path) -> None:
        self.path = home / TARGETS
        """Targets in the form of Prometheus' ``file_sd_configs``, which are read again when they change."""
        self._ports: dict[str, int] = {}

    def take(self, name: str) -> int:
        """Give the port for a process that is about to start, and write the file anew where it changed."""
        before = self._ports or self._written()
        port = before.get(name, 0)
        if not port or not is_free(LOOPBACK, port):
            port = free_port()
        self._ports = {**before, name: port}
        if self._ports != before:
            self._write()
        return port

    def keep(self, names: set[str]) -> None:
        """Forget the processes that are not among ``names``, so that none of a start before is asked for."""
        kept = {name: port for name, port in (self._ports or self._written()).items() if name in names}
        if kept != self._ports:
            self._ports = kept
            self._write()

    def _written(self) -> dict[str, int]:
        try:
            groups = json.loads(self.path.read_text())
            return {str(g["labels"]["process"]): int(g["targets"][0].rpartition(":")[2]) for g in groups}
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            # there is none yet, or one that was edited: ports are chosen anew
            return {}

    def _write(self) -> None:
        groups = [
            {"targets": [f"{LOOPBACK}:{port}"], "labels": {"process": name, "stage": name.partition(".")[0]}}
            for name, port in sorted(self._ports.items())
        ]
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(groups, indent=1) + "\n")
        partial.replace(self.path)
