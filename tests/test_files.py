"""Files appear whole, readable by whom the user lets read, and errors name them."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from feature_gs.files import atomic_write


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_others_may_read_what_the_mask_lets_them(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)  # which keeps its files to their owner
    finally:
        assert os.umask(before) == mask
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode


def test_the_first_error_counts_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full") as caught, atomic_write(path) as temporary:
        temporary.mkdir()  # which cannot be removed as a file
        raise OSError(28, "full")
    assert caught.value.filename == str(path) and path.read_text() == "old"
