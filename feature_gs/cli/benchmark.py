"""`feature-gs benchmark`: the rasterizer's speed beside this machine's own sgemm and plain PyTorch.

feature-gs benchmark                               a table over Gaussians, resolution, channels and cell
feature-gs benchmark -m output/fox                 on a trained scene, seen from its first camera
feature-gs benchmark --json benchmark.json
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor
from tyro.conf import arg

from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.rasterizer.cells import CellWeights
from feature_gs.rasterizer.ops import POOLED_CELL, TILE, build_info, ops
from feature_gs.training.memory import keep_freed_memory


@dataclass
class BenchmarkConfig:
    """What to time."""

    model_path: Annotated[Path | None, arg(aliases=["-m"])] = None
    """A trained model folder; without it, random scenes."""
    gaussians: list[int] = field(default_factory=lambda: [10_000, 100_000])
    """Sizes of the random scenes."""
    width: int = 800
    """Image width of the random scenes, pixels."""
    height: int = 600
    """Image height of the random scenes, pixels."""
    channels: list[int] = field(default_factory=lambda: [0, 64, 256, 384])
    """Feature channels; 0 is colour alone."""
    cells: list[int] = field(default_factory=lambda: [1, 8, 16])
    """Feature cells, pixels."""
    dense: bool = False
    """Random scenes of 300 faint Gaussians that cover the whole image: the dense limit of the matrix
    product."""
    twin: bool = True
    """Also time the plain-PyTorch twin, on a small scene."""
    repeats: int = 7
    """Runs of each figure; the fastest counts."""
    json: Path | None = None
    """Also write the figures here."""


@dataclass
class Splats:
    """A projected scene: the inputs of the op `rasterize`."""

    name: str
    means2d: Tensor  # [1, N, 2]
    conics: Tensor  # [1, N, 3]
    opacities: Tensor  # [1, N]
    colors: Tensor  # [1, N, 3]
    depths: Tensor  # [1, N]
    pairs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    width: int
    height: int

    @property
    def count(self) -> int:
        """Number of Gaussians."""
        return self.depths.shape[1]


@dataclass
class Row:
    """One measured line."""

    scene: str
    threads: int
    channels: int
    cell: int
    forward_ms: float
    backward_ms: float
    forward_fragments_per_s: float
    backward_fragments_per_s: float
    forward_of_sgemm: float | None
    backward_of_sgemm: float | None


def fastest_ms(run: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of `repeats` runs, after one that does not count."""
    run()
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best


def sgemm_rate(repeats: int) -> float:
    """This machine's float32 matrix-product rate in FLOP/s with torch's current number of threads."""
    size = 1024
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / fastest_ms(lambda: a @ b, repeats) * 1e3


def count_fragments(splats: Splats) -> int:
    """Number of (Gaussian, pixel) contributions that are blended into the image."""
    offsets, gaussians = splats.pairs[0].tolist(), splats.pairs[1].long()
    tiles_x = -(-splats.width // TILE)
    total = 0
    side = torch.arange(TILE) + 0.5
    for tile in range(len(offsets) - 1):
        ids = gaussians[offsets[tile] : offsets[tile + 1]]
        x = (tile % tiles_x * TILE + side).repeat(TILE)
        y = (tile // tiles_x * TILE + side).repeat_interleave(TILE)
        inside = (x < splats.width) & (y < splats.height)
        dx = x[inside] - splats.means2d[0, ids, 0, None]
        dy = y[inside] - splats.means2d[0, ids, 1, None]
        a, b, c = splats.conics[0, ids].unsqueeze(-1).unbind(1)
        alpha = splats.opacities[0, ids, None] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        alpha = torch.where(alpha < 1 / 255, 0.0, alpha.clamp(max=0.99))
        transmittance = torch.cumprod(1 - alpha, 0)
        total += int(((alpha > 0) & (transmittance > 1e-4)).sum())
    return total


def random_splats(count: int, width: int, height: int, dense: bool) -> Splats:
    """A random cloud in front of the camera; `dense`: wide and faint Gaussians that cover every pixel."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(count, 3, generator=generator) * torch.tensor([1.2, 0.9, 0.8]) + torch.tensor(
        [0.0, 0, 4]
    )
    size = 1.5 if dense else -3.9
    scales = (torch.randn(count, 3, generator=generator) * (0.05 if dense else 0.5) + size).exp()
    opacities = torch.rand(count, generator=generator) * (0.02 if dense else 0.9) + (0.01 if dense else 0.0)
    intrinsics = torch.tensor([[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1]])
    return _splats(
        f"{'dense' if dense else 'random'} {count:,}",
        means,
        torch.randn(count, 4, generator=generator),
        scales,
        opacities,
        torch.rand(count, 3, generator=generator),
        torch.eye(4),
        intrinsics,
        width,
        height,
    )


def model_splats(model_path: Path) -> Splats:
    """A trained scene as its first camera sees it."""
    from feature_gs.scenes import read_cameras_json
    from feature_gs.training.trained import load_trained

    trained = load_trained(model_path)
    camera = read_cameras_json(model_path / "cameras.json")["train"][0]
    model = trained.model
    with torch.no_grad():
        return _splats(
            f"{model_path.name} {len(model):,}",
            model.means,
            model.quats,
            model.scales,
            model.opacities,
            0.5 + 0.28209479177387814 * model.sh_dc,
            camera.cam_from_world,
            camera.K,
            camera.width,
            camera.height,
        )


def _splats(
    name: str,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    pose: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
) -> Splats:
    means2d, conics, blended, _, depths, radii = ops.project(
        means,
        quats,
        scales,
        opacities,
        None,
        None,
        pose[None],
        intrinsics[None],
        width,
        height,
        0.01,
        math.inf,
        False,
    )
    pairs = ops.intersect(means2d, conics, blended, depths, radii, width, height)
    return Splats(name, means2d, conics, blended, colors[None].contiguous(), depths, pairs, width, height)


def measure(splats: Splats, channels: int, cell: int, fragments: int, sgemm: float, repeats: int) -> Row:
    """Times the op `rasterize` and its gradient, colour included; for large cells with what blends."""
    features = torch.randn(splats.count, channels) if channels else None
    pooled = channels > 0 and cell >= POOLED_CELL
    in_op = channels > 0 and not pooled
    inputs = (splats.means2d, splats.conics, splats.opacities, splats.colors, splats.depths)
    payload = (features if in_op else None, None)
    *pairs, _, gaussian_offsets = splats.pairs
    lists = (*pairs, gaussian_offsets)
    size = (splats.width, splats.height)
    grid = (1, -(-splats.height // cell), -(-splats.width // cell))

    def forward() -> tuple[tuple[Tensor, ...], CellWeights | None, Tensor]:
        outputs = ops.rasterize(*inputs, *payload, None, *lists, *size, cell, False, True)
        if features is None or not pooled:
            return outputs, None, outputs[4]
        cells = CellWeights(outputs[7], splats.pairs, grid, splats.count)
        return outputs, cells, cells.blend(features)

    (color, alpha, depth, _, _, transmittance, last, _), cells, blended = forward()
    g_color = torch.randn_like(color)
    g_features = torch.randn_like(blended)

    def backward() -> None:
        grads = (g_color, None, None, g_features if in_op else None, None)
        kept = (alpha, depth, transmittance, last)
        flags = (*size, cell, False, True, False, in_op)
        ops.rasterize_backward(*grads, *inputs, *payload, *lists, *kept, *flags)
        if cells is not None:
            cells.gather(g_features)

    forward_ms, backward_ms = fastest_ms(forward, repeats), fastest_ms(backward, repeats)
    flops = 2.0 * fragments * channels
    of_sgemm = channels >= 64 and cell == 1
    return Row(
        splats.name,
        torch.get_num_threads(),
        channels,
        cell,
        forward_ms,
        backward_ms,
        1e3 * fragments / forward_ms,
        1e3 * fragments / backward_ms,
        1e3 * flops / forward_ms / sgemm if of_sgemm else None,
        1e3 * flops / backward_ms / sgemm if of_sgemm else None,
    )


def _twin_ms(repeats: int) -> tuple[float, float]:
    """Milliseconds of one small scene: compiled op, plain-PyTorch twin (forward and backward together)."""
    from feature_gs.rasterizer import rasterize
    from feature_gs.rasterizer.reference import rasterize_twin

    generator = torch.Generator().manual_seed(0)
    means = torch.randn(500, 3, generator=generator) + torch.tensor([0.0, 0, 4])
    quats = torch.randn(500, 4, generator=generator)
    means.requires_grad_()
    intrinsics = torch.tensor([[[100.0, 0, 64], [0, 100, 48], [0, 0, 1]]])

    def once(call: Callable[..., Any]) -> None:
        out = call(
            means,
            quats,
            torch.full((500, 3), 0.05),
            torch.full((500,), 0.5),
            torch.eye(4)[None],
            intrinsics,
            128,
            96,
            colors=torch.ones(500, 3),
        )
        out.color.sum().backward()

    return fastest_ms(lambda: once(rasterize), repeats), fastest_ms(
        lambda: once(rasterize_twin), min(repeats, 3)
    )


_HEADER = (
    f"{'C':>5} {'cell':>4} {'fwd ms':>9} {'bwd ms':>9} {'M fragments/s (per core)':>26} {'of sgemm':>10}"
)


def _line(row: Row) -> str:
    rates = [row.forward_fragments_per_s / 1e6, row.backward_fragments_per_s / 1e6]
    rate = f"{rates[0]:.0f} {rates[1]:.0f} ({rates[0] / row.threads:.0f} {rates[1] / row.threads:.0f})"
    shares = (row.forward_of_sgemm, row.backward_of_sgemm)
    share = " ".join(f"{100 * s:.0f}%" for s in shares if s is not None)
    times = f"{row.forward_ms:>9.2f} {row.backward_ms:>9.2f}"
    return f"{row.channels:>5} {row.cell:>4} {times} {rate:>26} {share:>10}"


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit status."""
    config = tyro.cli(BenchmarkConfig, args=argv, prog="feature-gs benchmark")
    if config.repeats < 1 or min(config.gaussians, default=1) < 1:
        raise UserError("--repeats and --gaussians must be at least 1")
    keep_freed_memory()
    threads = torch.get_num_threads()
    sgemm = sgemm_rate(config.repeats)
    machine = f"{build_info()['simd']}, {threads} threads, torch {torch.__version__}"
    print(f"{machine}, sgemm {sgemm / 1e9:.0f} GFLOP/s")
    if torch.cuda.is_available():
        print("The CPU backend; of the GPU: python benchmarks/gpu.py")
    print(_HEADER)
    rows: list[Row] = []
    if config.model_path is not None:
        scenes = [model_splats(config.model_path)]
    elif config.dense:
        scenes = [random_splats(300, config.width, config.height, True)]
    else:
        scenes = [random_splats(n, config.width, config.height, False) for n in config.gaussians]
    for splats in scenes:
        fragments = count_fragments(splats)
        print(f"{splats.name}: {splats.width} x {splats.height}, {fragments / 1e6:.2f} M fragments")
        for channels in config.channels:
            for cell in config.cells if channels else [1]:
                row = measure(splats, channels, cell, fragments, sgemm, config.repeats)
                rows.append(row)
                print(_line(row), flush=True)
    report: dict[str, Any] = {"simd": build_info()["simd"], "threads": threads, "sgemm_flops": sgemm}
    report["rows"] = [asdict(row) for row in rows]
    if config.twin:
        compiled, twin = _twin_ms(config.repeats)
        report["twin"] = {"compiled_ms": compiled, "twin_ms": twin}
        print(
            f"plain PyTorch, 500 Gaussians at 128 x 96, both directions: {twin:.0f} ms;"
            f" compiled {compiled:.2f} ms ({twin / compiled:.0f} x)"
        )
    if config.json is not None:
        with atomic_write(config.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    return 0
