"""What setup.py decides, as far as that can be seen without building."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.delenv("FEATURE_GS_CUDA", raising=False)
    return runpy.run_path(str(SETUP), run_name="settings")


def test_architectures_asked_for(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    assert settings["choose_architectures"]() == "8.0;9.0+PTX"


def test_architectures_of_the_gpus_here(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: [(9, 0), (7, 5), (9, 0)][i])
    assert settings["choose_architectures"]() == "7.5;9.0"


@pytest.mark.skipif(sys.platform != "linux", reason="a shell script stands for nvcc")
def test_architectures_that_this_nvcc_knows(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\nprintf 'sm_70\\nsm_80\\nsm_90\\nsm_100\\n'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setitem(settings["choose_architectures"].__globals__, "find_nvcc", lambda: str(nvcc))
    assert settings["choose_architectures"]() == "8.0;9.0;10.0+PTX"


@pytest.mark.parametrize(
    ("wish", "nvcc", "cuda_torch", "built"),
    [
        ("", "/nvcc", "13.0", True),
        ("", None, "13.0", False),
        ("", "/nvcc", None, False),
        ("0", "/nvcc", "13.0", False),
    ],
)
def test_cuda_is_built_where_it_can_be(
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    wish: str,
    nvcc: str | None,
    cuda_torch: str | None,
    built: bool,
) -> None:
    monkeypatch.setenv("FEATURE_GS_CUDA", wish)
    monkeypatch.setitem(settings["use_cuda"].__globals__, "find_nvcc", lambda: nvcc)
    monkeypatch.setattr(torch.version, "cuda", cuda_torch)
    assert settings["use_cuda"](["a.cu"]) is built
    assert settings["use_cuda"]([]) is False


def test_cuda_that_cannot_be_built_is_said(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_GS_CUDA", "1")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(SystemExit, match="needs nvcc and a CUDA build of torch"):
        settings["use_cuda"](["a.cu"])
    monkeypatch.setenv("FEATURE_GS_CUDA", "yes")
    with pytest.raises(SystemExit, match="must be 0 or 1, got 'yes'"):
        settings["use_cuda"](["a.cu"])


def test_twins_have_object_files_of_their_own(settings: dict[str, Any]) -> None:
    sources, objects = ["csrc/ssim/ssim.cpp", "csrc/ssim/ssim.cu"], ["build/ssim.o", "build/ssim.o"]
    assert settings["apart"](sources, objects) == ["build/ssim.o", "build/ssim.cu.o"]
