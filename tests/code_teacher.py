"""A teacher whose truth is known: every label is a code, every cell says it with noise.

    python -m tests.code_teacher SCENE OUT --channels 384 --noise auto

The codes are random unit vectors. A cell of 8 pixels holds the mean code of its pixels plus noise that is
independent from cell to cell and from view to view, so a scene that agrees with all views must come nearer to
the codes than any single view does.

In 384 dimensions such noise hardly ever turns a cell towards another label: retrieval on the noisy maps of a
dozen objects is almost perfect. Where it has to be hard, as with the noise of networks, keep codes and noise
in 20 dimensions (--rank 20): the cosine with the code is the same, retrieval falls to about 0.6.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from feature_gs.evaluation.retrieval import retrieval_map
from feature_gs.features.teacher import write_map, write_meta

LABELS = 256
COSINE = 0.6  # of a noisy cell with its code, on average


def make_codes(channels: int, *, rank: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Codes of the 256 labels, and the basis that they lie in.

    Args:
        channels: Number of channels C.
        rank: Dimensions of the random subspace that the codes lie in; None: all.
        seed: Seed of basis and codes.

    Returns:
        Unit codes [256, C], and orthonormal columns [C, rank] or None for all dimensions. float32
    """
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return F.normalize(torch.randn(LABELS, channels, generator=generator), dim=1), None
    basis = torch.linalg.qr(torch.randn(channels, rank, generator=generator))[0]
    return F.normalize(torch.randn(LABELS, rank, generator=generator), dim=1) @ basis.T, basis


def auto_noise(dimensions: int) -> float:
    """Standard deviation of the noise per dimension at which the cosine with a unit code is about 0.6."""
    return math.sqrt((1 / COSINE**2 - 1) / dimensions)


def label_shares(labels: Tensor, cell: int) -> Tensor:  # [H, W] -> [h, w, 256]
    """The share of each label in every cell of `cell` pixels; the last cells count only real pixels."""
    height, width = labels.shape
    rows, columns = -(-height // cell), -(-width // cell)
    cells = (torch.arange(height) // cell)[:, None] * columns + torch.arange(width) // cell
    counts = torch.bincount((cells * LABELS + labels.long()).flatten(), minlength=rows * columns * LABELS)
    counts = counts.reshape(rows, columns, LABELS).float()
    return counts / counts.sum(dim=2, keepdim=True)


def clean_map(labels: Tensor, codes: Tensor, cell: int = 8) -> Tensor:  # [H, W], [L, C] -> [C, h, w]
    """The mean code of every cell's pixels, without noise."""
    shares = label_shares(labels, cell)[..., : len(codes)]
    return (shares @ codes).permute(2, 0, 1).contiguous()


def cell_labels(labels: Tensor, cell: int = 8, *, pure: bool = False) -> Tensor:  # [H, W] -> [h, w]
    """The label of most of a cell's pixels; with `pure`, -1 where they do not all have it."""
    share, label = label_shares(labels, cell).max(dim=2)
    return torch.where(share == 1, label, -1) if pure else label


def read_labels(path: Path) -> Tensor:
    """An 8-bit label image. [H, W] int64"""
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image).astype(np.int64))


def write_code_teacher(
    scene_dir: Path,
    folder: Path,
    *,
    channels: int = 384,
    noise: float | None = None,
    cell: int = 8,
    seed: int = 0,
    rank: int | None = None,
) -> Tensor:
    """Writes the noisy code teacher of a scene with labels.

    Args:
        scene_dir: A scene with label images labels/NAME.png, as large as the photos.
        folder: The teacher's folder.
        channels: Channels C of its maps.
        noise: Standard deviation of the noise per dimension; None: such that the cosine with the clean code
            is about 0.6 in cells of one label.
        cell: Side of a cell in pixels.
        seed: Seed of codes and noise.
        rank: Codes and noise lie in a random subspace of so many dimensions; None: all.

    Returns:
        The codes by label id. [256, C]
    """
    codes, basis = make_codes(channels, rank=rank, seed=seed)
    if noise is None:
        noise = auto_noise(rank or channels)
    paths = sorted((scene_dir / "labels").rglob("*.png"))
    assert paths, f"no label images in {scene_dir / 'labels'}"
    for index, path in enumerate(paths):
        features = clean_map(read_labels(path), codes, cell)
        generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + index)
        grains = torch.randn(*features.shape[1:], rank or channels, generator=generator)
        features += noise * (grains if basis is None else grains @ basis.T).permute(2, 0, 1)
        name = path.relative_to(scene_dir / "labels").with_suffix(".safetensors")
        write_map(folder / name, features, 1 / cell, 1 / cell)
    write_meta(folder, "codes", channels, noise=noise, cell=cell, seed=seed, rank=rank, normalised=False)
    return codes


def mean_cosines(
    maps: Mapping[str, Tensor],
    scene_dir: Path,
    codes: Tensor,  # [L, C]
    cell: int = 8,
) -> dict[str, float]:
    """How near some maps are to the clean codes.

    Args:
        maps: Maps by image name ("000.png"), all channels. [h, w, C] each
        scene_dir: The scene with its label images.
        codes: What `write_code_teacher` returned. [L, C]
        cell: Side of a cell in pixels.

    Returns:
        Mean cosine with the clean map over cells of one label ("pure") and over all ("all").
    """
    sums, counts = {"pure": 0.0, "all": 0.0}, {"pure": 0, "all": 0}
    for name, features in maps.items():
        labels = read_labels((scene_dir / "labels" / name).with_suffix(".png"))
        clean = clean_map(labels, codes, cell).permute(1, 2, 0)
        assert features.shape == clean.shape, (name, clean.shape)
        cosine = F.cosine_similarity(features.detach().cpu().float(), clean, dim=2)
        pure = cell_labels(labels, cell, pure=True) >= 0
        for kind, chosen in (("pure", cosine[pure]), ("all", cosine)):
            sums[kind] += chosen.sum().item()
            counts[kind] += chosen.numel()
    return {kind: sums[kind] / max(1, counts[kind]) for kind in sums}


def retrieval_of(maps: Mapping[str, Tensor], scene_dir: Path, cell: int = 8) -> float:
    """How well maps find every label again: mean average precision over all pairs of views.

    Args:
        maps: Maps by image name, rendered or a teacher's, of the views to measure. [h, w, C] each
        scene_dir: The scene with its label images; a cell counts for the label of most of its pixels.
        cell: Side of a cell in pixels.
    """
    paths = [(scene_dir / "labels" / name).with_suffix(".png") for name in maps]
    return retrieval_map([*maps.values()], [cell_labels(read_labels(path), cell) for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the noisy code teacher of a scene with labels.")
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--channels", type=int, default=384)
    parser.add_argument("--noise", default="auto", help="standard deviation, or auto: cosine about 0.6")
    parser.add_argument("--cell", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rank", type=int, default=None)
    given = parser.parse_args()
    noise = None if given.noise == "auto" else float(given.noise)
    settings = {"channels": given.channels, "cell": given.cell, "seed": given.seed, "rank": given.rank}
    write_code_teacher(given.scene, given.out, noise=noise, **settings)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
