"""Fixtures shared by all tests."""

from collections.abc import Iterator
from pathlib import Path

import feature_gs  # noqa: F401  # isort: skip  before torch, which reads the environment when it loads
import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public test scenes beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"test scenes are not at {folder}")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps torch on one thread, where many small operations are fastest, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
