"""Image metrics: hand-computed cases and laws."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.errors import UserError
from feature_gs.evaluation.lpips import Lpips, load_lpips
from feature_gs.evaluation.metrics import psnr, ssim


def test_psnr_of_a_constant_error() -> None:
    """An error of 0.1 everywhere is a mean square of 0.01: 20 dB; half of it is 6.02 dB more."""
    target = torch.rand(2, 5, 6, 3) * 0.5
    errors = torch.tensor([0.1, 0.05])[:, None, None, None]
    torch.testing.assert_close(
        psnr(target + errors, target), torch.tensor([20.0, 26.0206]), atol=1e-3, rtol=0
    )


def test_psnr_of_equal_pictures_is_finite() -> None:
    picture = torch.rand(5, 6, 3)
    assert psnr(picture, picture).item() == pytest.approx(100)


def test_metrics_refuse_different_shapes() -> None:
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match=r"\[1, 5, 6, 3\] and \[1, 6, 5, 3\]"):
            metric(torch.rand(1, 5, 6, 3), torch.rand(1, 6, 5, 3))


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 32, 40, 3)
    noise = torch.randn_like(picture)
    values = [ssim((picture + scale * noise).clamp(0, 1), picture).item() for scale in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert values[0] > values[1] > values[2]


def random_vgg() -> nn.Sequential:
    """A network with the layers of torchvision's VGG-16 `features` and random weights."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Sequential]:
    torch.manual_seed(1)
    network = random_vgg()
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, path)
    return path, network


def test_lpips_agrees_with_torchmetrics(
    vgg_file: tuple[Path, nn.Sequential], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same random VGG in both: equal up to rounding."""
    published: Any = import_with_torchvision("torchmetrics.functional.image.lpips")
    path, network = vgg_file
    monkeypatch.setattr(published, "_get_tv_model_features", lambda *_, **__: network)
    theirs = published._LPIPS(net="vgg")
    ours = load_lpips(path)
    assert isinstance(ours, Lpips)
    first, second = torch.rand(2, 40, 50, 3), torch.rand(2, 40, 50, 3)

    def channels_first(images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2)

    expected = theirs(channels_first(first), channels_first(second), normalize=True).flatten()
    torch.testing.assert_close(ours(first, second), expected, rtol=1e-4, atol=1e-7)
    assert expected.abs().min() > 1e-6
    torch.testing.assert_close(ours(first, first), torch.zeros(2))


def test_lpips_without_weights_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert load_lpips() is None


def test_wrong_lpips_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file .*nowhere.pth"):
        load_lpips(tmp_path / "nowhere.pth")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="other.pth is not torchvision's VGG-16.*features.0.weight"):
        load_lpips(tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(UserError, match="cut.pth is not"):
        load_lpips(tmp_path / "cut.pth")
