"""Some things are done in one place: asking the time, retrying, making a client of Kafka or of the store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.unit.docs.sources import ROOT, modules

KAFKA_CLIENTS = {"AIOKafkaConsumer", "AIOKafkaProducer", "AIOKafkaAdminClient", "AIOKafkaClient"}
STORE_CLIENTS = {"get_client", "get_async_client", "create_client", "create_async_client"}
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}


@cache
def sources_of_tests() -> tuple[tuple[Path, ast.Module], ...]:
    paths = sorted((ROOT / "tests").rglob("*.py"))
    return tuple((path.relative_to(ROOT), ast.parse(path.read_text("utf-8"))) for path in paths)


def pipeline() -> Iterator[tuple[Path, ast.Module]]:
    return ((path, tree) for path, tree in modules() if path.parts[0] == "pipeline")


def called(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything that is called, or handed on as something to call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for part in (node.func, *node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(part, ast.Name | ast.Attribute):
                    yield ast.unparse(part)


def homes(names: set[str], *sources: tuple[Path, ast.Module]) -> set[str]:
    """Modules that call one of ``names``, whatever they imported it as part of."""
    wanted = tuple(f".{name}" for name in names)
    return {str(path) for path, tree in sources if any(f".{name}".endswith(wanted) for name in called(tree))}


def test_one_module_makes_every_kafka_client() -> None:
    assert homes(KAFKA_CLIENTS, *pipeline()) == {"pipeline/kafka/clients.py"}
    assert homes(KAFKA_CLIENTS, *sources_of_tests()) == set(), "a test's clients authenticate as the product's do"


def test_one_module_tells_faust_where_the_brokers_are() -> None:
    [app] = [
        node
        for _, tree in pipeline()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "faust.App"
    ]
    assert "broker" not in {keyword.arg for keyword in app.keywords}
    assert "faust_options(kafka)" in {ast.unparse(keyword.value) for keyword in app.keywords if keyword.arg is None}


def test_one_module_makes_every_client_of_the_store() -> None:
    assert homes(STORE_CLIENTS, *pipeline()) == {"pipeline/clickhouse/client.py"}


def test_one_module_asks_the_time() -> None:
    assert homes(CLOCKS, *pipeline()) == {"pipeline/clock.py"}


def hand_written(tree: ast.Module) -> Iterator[int]:
    """Yield the lines at which a loop catches Retryable and sleeps before it goes on."""
    for loop in (node for node in ast.walk(tree) if isinstance(node, ast.While | ast.For)):
        for handler in (node for node in ast.walk(loop) if isinstance(node, ast.ExceptHandler) and node.type):
            kinds = ast.unparse(handler.type) if handler.type else ""
            if "Retryable" in kinds and any("sleep" in name for name in called(handler)):
                yield handler.lineno


def test_no_loop_retries_by_hand() -> None:
    sources = [(path, tree) for path, tree in pipeline() if path != Path("pipeline/retry.py")]
    found = [f"{path}:{line}" for path, tree in sources for line in hand_written(tree)]
    assert found == [], "use retry_forever, retry_until or retry_blocking"


def test_the_detection_of_hand_written_retries_works() -> None:
    source = "while True:\n  try:\n    act()\n  except (Retryable, OSError):\n    await asyncio.sleep(1)\n"
    assert list(hand_written(ast.parse(source))) == [4]
