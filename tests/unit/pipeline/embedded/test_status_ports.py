"""Each process of one machine has a port that a Prometheus finds in the home."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from pipeline.embedded.status_ports import StatusPorts


def targets(ports: StatusPorts) -> dict[str, str]:
    return {group["labels"]["process"]: group["targets"][0] for group in json.loads(ports.path.read_text())}


def test_a_port_stays_between_starts_while_it_is_free(tmp_path: Path) -> None:
    ports = StatusPorts(tmp_path)
    first = {name: ports.take(name) for name in ("admit", "generate", "generate.acme")}
    assert len(set(first.values())) == 3
    assert targets(ports) == {name: f"127.0.0.1:{port}" for name, port in first.items()}
    again = StatusPorts(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first["admit"]))
        taken.listen()
        moved = again.take("admit")
    assert moved not in first.values()
    assert again.take("generate") == first["generate"]
    again.keep({"admit", "generate"})
    assert targets(again) == {"admit": f"127.0.0.1:{moved}", "generate": f"127.0.0.1:{first['generate']}"}


def test_the_file_names_stages_and_one_that_was_edited_is_written_anew(tmp_path: Path) -> None:
    ports = StatusPorts(tmp_path)
    ports.path.write_text("[{}]")
    ports.take("generate.acme")
    (group,) = json.loads(ports.path.read_text())
    assert group["labels"] == {"process": "generate.acme", "stage": "generate"}
