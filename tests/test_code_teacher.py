"""The teacher whose truth is known: its cells by hand, its noise by measure."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from code_teacher import (
    cell_labels,
    clean_map,
    make_codes,
    mean_cosines,
    read_labels,
    retrieval_of,
    write_code_teacher,
)
from PIL import Image
from tiny_scenes import write_colmap_scene
from torch import Tensor

from feature_gs.features.teacher import TeacherStore
from feature_gs.scenes import load_scene

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A scene of four photos of 32 x 24 pixels with labels: 1 left, 2 right of a border that moves."""
    root = write_colmap_scene(tmp_path / "scene")
    (root / "labels").mkdir()
    for i, name in enumerate("abcd"):
        labels = np.ones((24, 32), dtype=np.uint8)
        labels[:, 12 + 4 * i :] = 2
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")
    return root


def maps(root: Path, folder: Path) -> dict[str, Tensor]:
    store, scene = TeacherStore.open(folder), load_scene(root)
    return {view.camera.name: store.load(view).features.float().permute(1, 2, 0) for view in scene.train}


def test_a_cell_is_the_mean_code_of_its_real_pixels() -> None:
    codes, _ = make_codes(5)
    labels = torch.zeros(3, 5, dtype=torch.int64)
    labels[:, 3:] = 7
    features = clean_map(labels, codes, 2)
    assert features.shape == (5, 2, 3)
    torch.testing.assert_close(features[:, 0, 0], codes[0])
    torch.testing.assert_close(features[:, 1, 1], (codes[0] + codes[7]) / 2)
    torch.testing.assert_close(features[:, 1, 2], codes[7])
    assert cell_labels(labels, 2, pure=True).tolist() == [[0, -1, 7]] * 2
    assert cell_labels(labels, 4).tolist() == [[0, 7]]


def test_codes_are_unit_vectors_of_the_wanted_rank() -> None:
    for rank in (None, 3):
        codes, _ = make_codes(24, rank=rank)
        torch.testing.assert_close(codes.norm(dim=1), torch.ones(256))
        assert torch.linalg.matrix_rank(codes, rtol=1e-4) == (rank or 24)


def test_without_noise_the_store_holds_the_clean_codes(root: Path, tmp_path: Path) -> None:
    codes = write_code_teacher(root, tmp_path / "t", channels=16, noise=0)
    found = maps(root, tmp_path / "t")
    expected = clean_map(read_labels(root / "labels" / "b.png"), codes).permute(1, 2, 0)
    torch.testing.assert_close(found["b.png"], expected, atol=1e-3, rtol=0)
    cosines = mean_cosines(found, root, codes)
    assert cosines["pure"] == pytest.approx(1, abs=1e-5) and cosines["all"] == pytest.approx(1, abs=1e-5)
    assert retrieval_of(found, root) == 1


def test_the_grid_lies_on_the_photo_in_cells_of_eight_pixels(root: Path, tmp_path: Path) -> None:
    write_code_teacher(root, tmp_path / "t", channels=4, cell=5)
    found = TeacherStore.open(tmp_path / "t").load(load_scene(root).train[0])
    assert (found.cells_x, found.cells_y) == pytest.approx((6.4, 4.8)) and found.features.shape == (4, 5, 7)


@pytest.mark.parametrize("rank", [None, 32])
def test_noise_leaves_a_cosine_of_about_six_tenths(root: Path, tmp_path: Path, rank: int | None) -> None:
    codes = write_code_teacher(root, tmp_path / "t", channels=384, rank=rank)
    found = maps(root, tmp_path / "t")
    assert mean_cosines(found, root, codes)["pure"] == pytest.approx(0.6, abs=0.03)
    grains = [
        found[name] - clean_map(read_labels(root / "labels" / name), codes).permute(1, 2, 0) for name in found
    ]
    first, second = (part.flatten() for part in grains[:2])
    assert abs(torch.cosine_similarity(first, second, dim=0).item()) < 0.1  # from view to view
    assert abs(torch.cosine_similarity(grains[0][0, 0], grains[0][0, 1], dim=0).item()) < 0.6  # cell to cell
    if rank is not None:
        cells = torch.cat([features.flatten(0, 1) for features in found.values()])
        assert torch.linalg.matrix_rank(cells, rtol=1e-2) == rank


def test_the_mean_of_many_views_comes_near_the_code(root: Path, tmp_path: Path) -> None:
    """What a scene that agrees with all views can gain: cell (0, 0) shows label 1 in all four of them."""
    codes = write_code_teacher(root, tmp_path / "t", channels=384)
    mean = torch.stack([features[0, 0] for features in maps(root, tmp_path / "t").values()]).mean(dim=0)
    one_over = 1 / (1 + (1 / 0.36 - 1) / 4) ** 0.5
    assert torch.cosine_similarity(mean, codes[1], dim=0).item() == pytest.approx(one_over, abs=0.05)


def test_seeds(root: Path, tmp_path: Path) -> None:
    codes = [
        write_code_teacher(root, tmp_path / str(i), channels=8, seed=seed) for i, seed in enumerate((3, 3, 4))
    ]
    first, same, other = (maps(root, tmp_path / str(i))["a.png"] for i in range(3))
    assert torch.equal(codes[0], codes[1]) and torch.equal(first, same)
    assert not torch.equal(codes[0], codes[2]) and not torch.equal(first, other)


def test_the_command(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.code_teacher", str(root), str(tmp_path / "t"), "--channels", "8"]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[1], check=True, capture_output=True)
    assert TeacherStore.open(tmp_path / "t").channels == 8
