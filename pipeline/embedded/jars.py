"""Fetches Apache Kafka by Maven coordinates into a cache folder, once.

The fetch leaves a listing (one path relative to the cache folder a line). While every listed file
is there nothing touches the network, so a second start works offline.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError

KAFKA_VERSION = "4.4.0"
# Kafka 4.x logs through slf4j 1.7 and log4j 2; without this binding the broker logs nothing.
# The "!" keeps the versions that log4j's own build manages from replacing Kafka's.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5!"
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+{LOG_BINDING}"
_NEEDED = {f"kafka_2.13-{KAFKA_VERSION}.jar", f"kafka-clients-{KAFKA_VERSION}.jar"}
LISTING = f"kafka-{KAFKA_VERSION}.classpath"


def cached_jars(cache: Path) -> list[Path]:
    """Jars of an earlier fetch as absolute paths, or [] when any is missing."""
    try:
        lines = (cache / LISTING).read_text("utf-8").split("\n")
    except FileNotFoundError:
        return []
    jars = [cache.absolute() / line for line in lines if line]
    return jars if all(jar.is_file() for jar in jars) else []


def fetch_jars(cache: Path, progress: Callable[[str], None] | None = None) -> list[Path]:
    """Jars of Kafka and all it needs, fetched unless cached; ConfigError when that fails."""
    say = progress or (lambda text: None)
    jars = cached_jars(cache)
    if jars:
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second fetcher waits here and then finds the listing
        jars = cached_jars(cache)
        if jars:
            return jars
        say(f"fetching Apache Kafka {KAFKA_VERSION} (about 50 MB, once) into {cache}")
        jars = _resolve(cache)
        _write_listing(cache, jars)
    say(f"Apache Kafka {KAFKA_VERSION}: {len(jars)} jars ready")
    return jars


def _resolve(cache: Path) -> list[Path]:
    from jgo.env import EnvironmentBuilder, LinkStrategy
    from jgo.maven import MavenContext

    try:
        builder = EnvironmentBuilder(
            context=MavenContext(repo_cache=cache / "m2"),
            cache_dir=cache / "jgo",
            link_strategy=LinkStrategy.AUTO,
        )
        # all_jars spans both folders, `jars` and `modules`; Kafka needs the two on one class path.
        jars = builder.from_endpoint(ENDPOINT).all_jars
    except Exception as error:  # the resolver lets errors of its HTTP client through
        raise ConfigError(
            f"could not fetch {ENDPOINT}: {type(error).__name__}: {error}; a first start needs "
            f"the Maven registry, later ones only the cache folder {cache}"
        ) from error
    missing = _NEEDED - {jar.name for jar in jars}
    if missing:
        raise ConfigError(f"the fetch of {ENDPOINT} lacks {sorted(missing)}; remove {cache} and try again")
    return sorted(jar.absolute() for jar in jars)


def _write_listing(cache: Path, jars: list[Path]) -> None:
    # Written last and renamed into place: a listing exists only for a complete fetch.
    text = "".join(f"{jar.relative_to(cache.absolute())}\n" for jar in jars)
    partial = cache / f"{LISTING}.partial"
    partial.write_text(text, "utf-8")
    partial.replace(cache / LISTING)
