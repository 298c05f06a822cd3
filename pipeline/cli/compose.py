"""Services of isolated tenants for ``docker compose``: what ``sluice deploy tenants`` writes. Pure text.

Laid over ``docker-compose.yml``. Each tenant has a worker with its own process, network namespace, user id and volumes,
and a job that fills the volume of its keys with those of this tenant alone and makes its workers a user at the broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.topics import pool_user

IMAGE, WORKER_IMAGE = "sluice:0.1.0", "sluice-worker:0.1.0"
FIRST_UID, LAST_UID = 20_001, 59_999
"""User ids of tenants; below what rootless engines map, above what an image uses."""
GROUP = 10_001
"""The image's own group, whose members may read a volume of keys."""


class Isolated(NamedTuple):
    """A tenant with a worker of its own; ``ordinal`` counts tenants in the order in which control first named them."""

    tenant: str
    tier: str
    ordinal: int


_HEAD = """\
# Workers of isolated tenants, as policies ask for them; written by: sluice deploy tenants
#   docker compose -f docker-compose.yml -f THIS_FILE --profile cpu up --build
# Write it anew when a tenant joins or a plan changes. Volumes stay with their tenants.
services:
"""
_SERVICES = """\
  grant-{tenant}:
    image: {image}
    build:
      context: .
      target: stage
    init: true
    restart: on-failure
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    networks: [inner]
    command: [deploy, grant, "{tenant}", --kafka, --out, /granted]
    volumes: ["keys:/keys:ro", "kafka-operator:/secrets/operator:ro", "keys-{tenant}:/granted"]
    depends_on:
      users:
        condition: service_completed_successfully
    environment:
      SLUICE_KAFKA__BOOTSTRAP: kafka:9092
      SLUICE_KAFKA__SECURITY_PROTOCOL: SASL_PLAINTEXT
      SLUICE_KAFKA__SASL_MECHANISM: PLAIN
      SLUICE_KAFKA__USER: operator
      SLUICE_KAFKA__PASSWORD_FILE: /secrets/operator/password
      SLUICE_KEYS__HOME: /keys

  generate-{tenant}:
    image: {worker_image}
    build:
      context: .
      target: worker
    init: true
    restart: unless-stopped
    read_only: true
    tmpfs: [/tmp]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    stop_grace_period: 40s
    networks: [inner]
    user: "{uid}:{group}"
    command: [run, generate, --pool, "{tenant}"]
    healthcheck:
      test:
        - CMD
        - python
        - -c
        - import urllib.request; urllib.request.urlopen("http://127.0.0.1:9464/readyz", timeout=3)
      interval: 5s
      timeout: 5s
      retries: 12
      start_period: 60s
    volumes: ["keys-{tenant}:/keys:ro", "models-{tenant}:/models"]
    depends_on:
      users:
        condition: service_completed_successfully
      tables:
        condition: service_completed_successfully
      grant-{tenant}:
        condition: service_completed_successfully
    environment:
      SLUICE_KAFKA__BOOTSTRAP: kafka:9092
      SLUICE_KAFKA__SECURITY_PROTOCOL: SASL_PLAINTEXT
      SLUICE_KAFKA__SASL_MECHANISM: SCRAM-SHA-512
      SLUICE_KAFKA__USER: "{user}"
      SLUICE_KAFKA__PASSWORD_FILE: /keys/kafka-password
      SLUICE_KEYS__HOME: /keys
      SLUICE_MODELS__HOME: /models
      SLUICE_STATUS__PORT: "9464"
      SLUICE_GENERATE__MODEL: glossary
"""
_PROCESS = """\
      SLUICE_GENERATE__THREADS: "2"
"""
_DEVICE = """\
      SLUICE_GENERATE__DEVICE: cuda
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              device_ids: ["{device}"]
              capabilities: [gpu]
"""


def tenants_file(isolated: Sequence[Isolated], devices: Sequence[str] = ()) -> str:
    """The file's text: the same for the same tenants and devices. ``devices`` are taken in order, one for each tenant
    whose tier is device. Raises ConfigError where there are too few, or one twice."""
    ordered = sorted(isolated)
    wanting = [each.tenant for each in ordered if each.tier == "device"]
    if len(set(devices)) != len(devices) or len(devices) < len(wanting):
        raise ConfigError(
            f"--devices: expected {len(wanting)} different devices, one for each of: {', '.join(wanting) or 'none'}; "
            f"got {', '.join(devices) or 'none'}; list them with: nvidia-smi -L"
        )
    given = dict(zip(wanting, devices, strict=False))
    if not ordered:
        return _HEAD.removesuffix("services:\n") + "services: {}\n"
    services = "\n".join(_service(each, given.get(each.tenant, "")) for each in ordered)
    volumes = "".join(f"  keys-{each.tenant}: {{}}\n  models-{each.tenant}: {{}}\n" for each in ordered)
    return f"{_HEAD}{services}\nvolumes:\n{volumes}"


def _service(each: Isolated, device: str) -> str:
    uid = FIRST_UID + each.ordinal
    if uid > LAST_UID:
        raise ConfigError(
            f"tenant {each.tenant}: expected at most {LAST_UID - FIRST_UID + 1} isolated tenants of a "
            f"deployment, got number {each.ordinal + 1}; start another deployment"
        )
    text = _SERVICES.format(
        tenant=each.tenant, user=pool_user(each.tenant), image=IMAGE, worker_image=WORKER_IMAGE, uid=uid, group=GROUP
    )
    return text + (_DEVICE.format(device=device) if device else _PROCESS)
