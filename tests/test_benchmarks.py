"""The benchmarks run and hold what they promise to measure; how fast this machine is, is not tested."""

import importlib.util
import json
import math
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_gpu_benchmark_runs_anywhere(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    size = ["--gaussians", "200", "--width", "64", "--height", "48", "--views", "1", "--repeats", "1"]
    figures = program.main([*size, "--json", str(tmp_path / "gpu.json")])
    assert all(math.isfinite(value) for value in figures.values())
    for what in (
        "colour",
        "128 channels",
        "512 channels",
        "joint / colour",
        "lifting",
        "256 channels forward",
    ):
        assert any(name.startswith(what) for name in figures), what
    assert json.loads((tmp_path / "gpu.json").read_text())["joint / colour"] == figures["joint / colour"]
