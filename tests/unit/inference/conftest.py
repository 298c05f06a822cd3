"""Engines for the tests of this folder; the model is read once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import torch

from inference.batching.loop import BatchingEngine
from inference.chat.tokenizer import ChatTokenizer
from inference.engines.echo import EchoEngine
from inference.engines.torch import TorchEngine, TorchOptions, shipped_model
from inference.model.forward_torch import TorchForward
from inference.model.transformer import load_model
from inference.remote.engine import RemoteEngine
from inference.types import InferenceEngine
from tests.model_server import CONTEXT, ModelServer, serving


@pytest.fixture(scope="session")
def torch_forward() -> Iterator[Callable[[], TorchForward]]:
    """Makes forwards over the shipped weights: eight slots, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, chat = load_model(shipped_model()), ChatTokenizer.load(shipped_model() / "tokenizer.json")
    yield lambda: TorchForward(model, chat, 8)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def torch_engine() -> Iterator[TorchEngine]:
    """One engine for all tests that leave it open."""
    engine = TorchEngine(shipped_model(), TorchOptions(max_batch=8, threads=1))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """A server on loopback that speaks vLLM's chat completions."""
    with serving() as server:
        yield server


def remote(request: pytest.FixtureRequest) -> RemoteEngine:
    server: ModelServer = request.getfixturevalue("model_server")
    return RemoteEngine(server.url, "echo", salt_key=b"s" * 32, max_context=CONTEXT)


@pytest.fixture(params=["echo", "torch", "remote"])
def engine(request: pytest.FixtureRequest) -> InferenceEngine:
    """An engine of each kind, to be left open."""
    if request.param == "echo":
        return EchoEngine()
    if request.param == "remote":
        return remote(request)
    engine: TorchEngine = request.getfixturevalue("torch_engine")
    return engine


@pytest.fixture(params=["echo", "torch", "remote"])
def fresh_engine(
    request: pytest.FixtureRequest, torch_forward: Callable[[], TorchForward]
) -> Iterator[Callable[[], InferenceEngine]]:
    """Makes engines of each kind that a test may drain and close."""
    made: list[BatchingEngine] = []

    def make() -> InferenceEngine:
        if request.param == "echo":
            return EchoEngine()
        if request.param == "remote":
            return remote(request)
        made.append(BatchingEngine(torch_forward(), ("glossary",)))
        return made[-1]

    yield make
    for engine in made:
        asyncio.run(engine.close())
