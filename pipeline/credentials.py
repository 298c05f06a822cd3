"""Tells the age of the certificates, passwords and keys that the settings name, and when certificates end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.clock import now_ms
from pipeline.config import Settings
from pipeline.metrics import MetricSample

AGE, LEFT = "sluice_credential_age_seconds", "sluice_certificate_left_seconds"
_CERTIFICATES = ("ca_file", "certificate_file")


def credential_files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Give each setting that names a file, and the file: all of them are secrets or certificates."""
    for section in type(settings).model_fields:
        values = getattr(settings, section)
        for name in type(values).model_fields:
            if name.endswith("_file") and str(getattr(values, name)):
                yield f"{section}.{name}", Path(getattr(values, name))


def credential_readings(settings: Settings) -> list[MetricSample]:
    """Read ages and ends; of what cannot be read there are none."""
    readings, now = [], now_ms() / 1000
    for setting, path in credential_files(settings):
        try:
            if setting.endswith(_CERTIFICATES):
                begins, ends = _validity(path)
                readings += [MetricSample(LEFT, ends - now, (setting,)), MetricSample(AGE, now - begins, (setting,))]
            else:
                readings.append(MetricSample(AGE, now - path.stat().st_mtime, (setting,)))
        except (OSError, ValueError):
            continue
    return readings


def credential_faults(settings: Settings) -> list[str]:
    """Name the certificates that have ended, and the files that are not there."""
    ended = [
        f"{labels[0]}: the certificate has ended; put another in its place"
        for name, value, labels in credential_readings(settings)
        if name == LEFT and value <= 0
    ]
    absent = [f"{setting}: {path} is not there" for setting, path in credential_files(settings) if not path.exists()]
    return ended + absent


def _validity(path: Path) -> tuple[float, float]:
    """Give the last begin and the first end of a file's certificates, Unix s. Raises OSError, ValueError."""
    from cryptography.x509 import load_pem_x509_certificates

    found = load_pem_x509_certificates(path.read_bytes())
    begins = max(certificate.not_valid_before_utc.timestamp() for certificate in found)
    return begins, min(certificate.not_valid_after_utc.timestamp() for certificate in found)
