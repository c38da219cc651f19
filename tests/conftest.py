"""Fixtures that several test folders share. Tiny models are made once per session, with torch only then."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Read by torch, tokenizers and the hub's client when they are imported, so set before any test is.
os.environ.update(
    HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false"
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Refuse every connection that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
            raise RuntimeError(f"a test tried to open a connection to {address!r}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums depend on the number of threads; where torch is in use it has one."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with a byte-level tokenizer, as a Hugging Face folder."""
    import models

    return models.write_language(tmp_path_factory.mktemp("parts") / "language")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tab of Chromium."""
    from browser import chromium

    with chromium(tmp_path_factory.mktemp("profile")) as tab:
        tab.seconds = 120
        yield tab


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with its tokenizer, as a Hugging Face folder."""
    import models_text

    return models_text.write_bert(tmp_path_factory.mktemp("parts") / "tiny-bert")


@pytest.fixture(scope="session")
def tied_language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with input and output embeddings tied."""
    import models

    return models.write_language(tmp_path_factory.mktemp("parts") / "tied", tie=True)
