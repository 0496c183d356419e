"""Times training steps with and without a teacher, in turns, from one checkpoint or from the scene's points.

    python -m tests.step_times SCENE TEACHER_FOLDER --checkpoint MODEL/checkpoints/iteration_2000.pt
    python -m tests.step_times SCENE TEACHER_FOLDER --checkpoint ... --only joint  # its peak memory

Densification rests meanwhile, so that both runs keep the same Gaussians. Medians over the views.
"""

import argparse
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from feature_gs.features.teacher import TeacherStore
from feature_gs.gaussians.order import spatial_order
from feature_gs.rasterizer.device import compute_device
from feature_gs.scenes import load_scene
from feature_gs.training import TrainConfig
from feature_gs.training.checkpoint import load_checkpoint
from feature_gs.training.memory import keep_freed_memory
from feature_gs.training.run import filled_in
from feature_gs.training.sampling import PhotoQueue
from feature_gs.training.teaching import with_feature_dim
from feature_gs.training.trainer import Trainer

WARM_UP = 60  # steps: every view of a small scene once
KINDS = ("colour", "joint")


def main() -> None:
    parser = argparse.ArgumentParser(description="Times training steps with and without a teacher, in turns.")
    parser.add_argument("scene", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--gaussians", type=int, help="repeat the checkpoint's Gaussians to so many")
    parser.add_argument("--only", choices=KINDS)
    options = parser.parse_args()
    keep_freed_memory()
    scene, teacher = load_scene(options.scene, eval=True), TeacherStore.open(options.teacher)
    checkpoint = None if options.checkpoint is None else load_checkpoint(options.checkpoint)
    runs: dict[str, Trainer] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS if options.only is None else (options.only,):
            config = TrainConfig(source_path=str(options.scene), iterations=1_000_000)
            if kind == "joint":
                config = replace(config, foundation_model=str(options.teacher))
                config = with_feature_dim(config, teacher.channels)
            config, schedule = filled_in(config)
            schedule = replace(schedule, densify_until_iter=0)
            maps = teacher if kind == "joint" else None
            runs[kind] = Trainer(config, schedule, scene, Path(folder), maps, checkpoint)
            rows = spatial_order(runs[kind].model.means.detach())
            if options.gaussians:
                rows = rows.repeat(-(-options.gaussians // len(rows)))[: options.gaussians].sort().values
            runs[kind].optimizer.restructure(rows)
        device = compute_device()
        photos = PhotoQueue(scene.train, 0, torch.device("cpu"), device, teacher.load)
        seconds: dict[str, list[float]] = {kind: [] for kind in runs}
        first = next(iter(runs.values())).iteration + 1
        for iteration in range(first, first + WARM_UP + options.steps):
            view, target, teacher_map = photos.get(iteration)
            for kind, trainer in runs.items():
                start = time.perf_counter()
                trainer.step(view, target, teacher_map)
                _wait(device)
                seconds[kind].append(time.perf_counter() - start)
        photos.close()
    medians = {kind: 1e3 * statistics.median(times[WARM_UP:]) for kind, times in seconds.items()}
    count = len(next(iter(runs.values())).model)
    line = ", ".join(f"{kind} {milliseconds:.1f} ms" for kind, milliseconds in medians.items())
    if len(medians) == 2:
        line += f", joint / colour {medians['joint'] / medians['colour']:.3f}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"C = {teacher.channels}, {count:,} Gaussians: {line}; peak memory {peak:.0f} MiB")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
