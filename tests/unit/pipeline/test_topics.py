"""The table of topics says how each is stored, of which a compacted one stays small."""

from __future__ import annotations

import pytest

from pipeline.topics import TOPICS, Topic


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_compacted_topic_has_small_segments_and_any_other_a_retention(topic: Topic) -> None:
    config = topic.config(3)
    compacted = config["cleanup.policy"] == "compact"
    assert ("retention.ms" in config) is not compacted
    assert ("segment.bytes" in config, "min.cleanable.dirty.ratio" in config) == (compacted, compacted)
    if compacted:
        # the largest batch fits, and what is never cleaned is little to read
        assert int(config["max.message.bytes"]) < int(config["segment.bytes"]) <= 16 << 20


def test_what_topics_of_an_older_build_are_given_is_part_of_the_settings() -> None:
    assert all(topic.adjusted.items() <= topic.config(1).items() for topic in TOPICS)
    assert [topic.name for topic in TOPICS if len(topic.adjusted) > 1] == ["snapshots"]
