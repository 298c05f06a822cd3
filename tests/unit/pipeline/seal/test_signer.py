"""Seal goes over to newer log keys where the document names them, and signs with none that was retired."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.audit.checkpoint import LogKeys, key_name
from pipeline.errors import ConfigError, Retryable
from pipeline.events.control import Control, Deployment
from pipeline.keys.files import create_log_keys, following_log_keys, use_following_log_keys
from pipeline.seal.batch import begin, heartbeat
from pipeline.seal.signer import LogSigner


class Site:
    """A file of log keys, the keys that are to follow them, and ``control``."""

    def __init__(self, home: Path) -> None:
        self.path = home / "log-key.json"
        self.first = create_log_keys(self.path, "sluice")
        self.second = create_log_keys(following_log_keys(self.path), "sluice")
        self.control = Control()
        self.name(self.first)

    def name(self, *keys: LogKeys, retired: LogKeys | None = None) -> None:
        ends = {key_name(text): 7 for text in retired.verifier_keys} if retired else {}
        named = tuple(text for each in keys for text in each.verifier_keys)
        document = Deployment(generation="g1", partitions=4, log_keys=named, log_key_ends=ends)
        self.control.apply(self.control.version + 1, document)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def signs(signer: LogSigner, keys: LogKeys) -> bool:
    return signer.keys().verifier_keys == keys.verifier_keys


def test_it_goes_over_when_the_file_changes_and_not_before(site: Site) -> None:
    signer = LogSigner(site.path, site.control)
    site.name(site.first, site.second)
    assert signs(signer, site.first)
    use_following_log_keys(site.path)
    assert signs(signer, site.second)


def test_a_file_that_comes_before_its_document_is_not_used_until_that_is_read(site: Site) -> None:
    signer = LogSigner(site.path, site.control)
    use_following_log_keys(site.path)
    assert signs(signer, site.first)
    site.name(site.first, site.second)
    assert signs(signer, site.second)


def test_a_sealer_that_was_killed_between_document_and_file_starts_with_either(site: Site) -> None:
    site.name(site.first, site.second)
    assert signs(LogSigner(site.path, site.control), site.first)
    use_following_log_keys(site.path)
    assert signs(LogSigner(site.path, site.control), site.second)


def test_retired_and_unknown_keys_do_not_sign(site: Site) -> None:
    signer = LogSigner(site.path, site.control)
    site.name(site.first, site.second, retired=site.first)
    with pytest.raises(ConfigError, match="was retired"):
        signer.keys()
    with pytest.raises(ConfigError, match="was retired"):
        LogSigner(site.path, site.control)
    use_following_log_keys(site.path)
    assert signs(signer, site.second)
    site.name(site.first)
    with pytest.raises(ConfigError, match="not in the deployment document"):
        LogSigner(site.path, site.control)


def test_half_a_file_is_waited_for(site: Site) -> None:
    signer = LogSigner(site.path, site.control)
    site.path.write_text("{")
    assert signs(signer, site.first)


def test_an_older_key_of_another_host_waits_behind_a_newer_one(site: Site) -> None:
    site.name(site.first, site.second)
    signer = LogSigner(site.path, site.control)
    begun = begin("g1", "access", 0)
    signer.require_newest(heartbeat(begun, 1000, site.first).manifest)
    newer = heartbeat(begun, 1000, site.second).manifest
    with pytest.raises(Retryable, match="newer log keys"):
        signer.require_newest(newer)
    use_following_log_keys(site.path)
    signer.require_newest(newer)
    signer.require_newest(heartbeat(begun, 1000, site.first).manifest)
