"""Certificates of 127.0.0.1 for servers of tests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def write_pair(certificate: Path, key: Path) -> bytes:
    """Write a certificate of 127.0.0.1 that is its own authority, and its key; gives its digest."""
    made, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of one test")])
    signed = (
        x509.CertificateBuilder(name, name, made.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(made, SHA256())
    )
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    return hashlib.sha256(signed.public_bytes(Encoding.DER)).digest()


def broker_pem(folder: Path) -> Path:
    """Write a key and its certificate in one file, as a broker takes them, beside ``ca.pem`` for its clients."""
    authority, path = folder / "ca.pem", folder / "broker.pem"
    write_pair(authority, path)
    path.write_bytes(path.read_bytes() + authority.read_bytes())
    return path
