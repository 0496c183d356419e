"""A scene to be asked, made without training: balls on a floor, each kind with a feature of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from feature_gs.encoders import Encoder, Grid
from feature_gs.features.decoders import Conv3x3Decoder, Decoder, LinearDecoder, make_decoder
from feature_gs.features.field import FeatureField, field_path
from feature_gs.features.rendering import fit_field_palette
from feature_gs.gaussians import GaussianModel
from feature_gs.queries.views import score_images
from feature_gs.scenes import Camera, write_cameras_json
from feature_gs.training import TrainConfig
from feature_gs.training.trained import Trained, ply_path

SIZE = 96, 64
FLOOR = 0  # label of the floor; balls are 1, 2, ...
KINDS = ("floor", "red", "green", "blue")
CHANNELS = 8
_BALL, _SPACING = 0.3, 0.85


@dataclass(frozen=True, eq=False)
class Things:
    """The scene.

    Attributes:
        trained: Its model and cameras: six for training, two for tests.
        field: Its features.
        labels: What each Gaussian belongs to. [N]
    """

    trained: Trained
    field: FeatureField
    labels: Tensor

    def camera(self, index: int = 0) -> Camera:
        return self.trained.cameras["train"][index]

    def pixels(self, label: int, camera: Camera) -> Tensor:
        """Where a view shows a thing. [H, W] bool"""
        scores = (self.labels == label).float()[:, None]
        return score_images(self.trained, camera, scores)[..., 0] > 0.5

    def middle(self, label: int, camera: Camera) -> tuple[float, float]:
        """The middle of a thing in a view, pixels."""
        y, x = self.pixels(label, camera).nonzero(as_tuple=True)
        return float(x.float().mean()) + 0.5, float(y.float().mean()) + 0.5

    def save(self, folder: Path) -> Path:
        """Writes a model folder."""
        trained = self.trained
        folder.mkdir(parents=True, exist_ok=True)
        trained.config.save(folder / "config.json")
        write_cameras_json(folder / "cameras.json", trained.cameras["train"], trained.cameras["test"])
        path = ply_path(folder, trained.iteration)
        path.parent.mkdir(parents=True)
        trained.model.save_ply(path)
        self.field.palette = fit_field_palette(trained.model, self.field, trained.cameras["train"])
        self.field.save(field_path(path))
        return folder


def make_things(
    kinds: Sequence[int] = (1, 2, 3),
    *,
    places: Sequence[float] | None = None,
    decoder: Decoder | None = None,
    noise: float = 0.1,
    names: Callable[[int], str] = "{}.png".format,
) -> Things:
    """Balls in a row, seen from a half circle.

    Args:
        kinds: For each ball its kind, 1 to 3: what it looks like.
        places: Where they are along the row; None: beside each other with gaps.
        decoder: Gaussians carry what it decodes: none or linear; None: the teacher's own channels.
        names: Names of the photos by their number, 0 to 7; 3 and 7 are for tests.
        noise: Standard deviation of the features about those of their kinds, which have length 1.
    """
    generator = torch.Generator().manual_seed(1)
    middles = places or [(i - (len(kinds) - 1) / 2) * _SPACING for i in range(len(kinds))]
    points, labels = [], []
    for number, middle in enumerate(middles, 1):
        ball = F.normalize(torch.randn(150, 3, generator=generator), dim=1) * _BALL
        points.append(ball + torch.tensor([middle, 0, 0]))
        labels += [number] * len(ball)
    x, z = torch.meshgrid(torch.linspace(-2, 2, 34), torch.linspace(-1.5, 1.5, 26), indexing="ij")
    floor = torch.stack([x.flatten(), torch.full((x.numel(),), _BALL + 0.03), z.flatten()], dim=1)
    points.append(floor + 0.02 * torch.randn(floor.shape, generator=generator) * torch.tensor([1, 0.1, 1]))
    labels += [FLOOR] * len(floor)
    owner = torch.tensor(labels)
    kind = torch.tensor([0, *kinds])[owner]
    colors = torch.tensor([[128, 128, 128], [230, 30, 30], [30, 200, 30], [40, 60, 230]]).byte()[kind]
    model = GaussianModel.from_points(torch.cat(points), colors, 0, opacity=0.95, scale=0.55)
    targets = kind_codes()[kind] + noise * torch.randn(len(owner), CHANNELS, generator=generator)
    decoder = decoder or make_decoder("none", CHANNELS, CHANNELS)
    features = targets
    if isinstance(decoder, LinearDecoder):
        features = (targets - decoder.bias.detach()) @ torch.linalg.pinv(decoder.weight.detach()).t()
    elif isinstance(decoder, Conv3x3Decoder):
        features = targets @ torch.linalg.pinv(decoder.weight.detach().sum(dim=(2, 3))).t()
    cameras = [_camera(names(i), 2.4 * (i / 7 - 0.5)) for i in range(8)]
    trained = Trained(
        path=Path("unsaved"),
        iteration=7,
        config=TrainConfig(source_path="nowhere", foundation_model="none"),
        cameras={"train": cameras[:3] + cameras[4:7], "test": [cameras[3], cameras[7]]},
        model=model,
        background=torch.zeros(3),
    )
    seen = torch.ones(len(owner), dtype=torch.bool)
    field = FeatureField(features, decoder, "things:Speaking", (4.0, 4.0), seen)
    return Things(trained, field, owner)


def kind_codes() -> Tensor:
    """What each kind looks like: orthonormal vectors. [4, C]"""
    generator = torch.Generator().manual_seed(2)
    return torch.linalg.qr(torch.randn(CHANNELS, len(KINDS), generator=generator))[0].t().contiguous()


def small_decoder(kind: str) -> Decoder:
    """A decoder of five channels that can say what every kind looks like; a linear one has a large bias."""
    generator = torch.Generator().manual_seed(4)
    decoder = make_decoder(kind, 5, CHANNELS, generator=generator)
    columns = torch.cat([kind_codes().t(), torch.randn(CHANNELS, 1, generator=generator)], dim=1)
    columns = columns @ torch.randn(5, 5, generator=generator)
    with torch.no_grad():
        if isinstance(decoder, LinearDecoder):
            decoder.weight.copy_(columns)
            decoder.bias.copy_(3 * kind_codes().sum(dim=0))
        elif isinstance(decoder, Conv3x3Decoder):
            decoder.weight.mul_(0.02)
            decoder.weight[..., 1, 1] = columns
    return decoder


class Speaking(Encoder):
    """A teacher that knows the names of the kinds."""

    name = "speaking"
    channels = CHANNELS
    patch = stride = 1
    licence = origin = "none"

    def grid(self, width: int, height: int) -> Grid:
        return Grid.whole(width, height, height, width)

    def encode(self, image: Tensor) -> Tensor:
        raise AssertionError("it is asked for words only")

    @classmethod
    def encode_words(cls, texts: list[str], weights: Path | None, device: Any) -> Tensor:
        unknown = torch.full((CHANNELS,), 0.01)
        codes = dict(zip(KINDS, kind_codes(), strict=True))
        return torch.stack([codes.get(text, unknown) for text in texts])


def _camera(name: str, angle: float) -> Camera:
    """On a circle around the row, looking at its middle from above."""
    turn, tilt = torch.tensor(angle), torch.tensor(0.45)
    forward = torch.stack([-turn.sin() * tilt.cos(), tilt.sin(), turn.cos() * tilt.cos()])
    right = F.normalize(torch.linalg.cross(torch.tensor([0.0, 1, 0]), forward), dim=0)
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4)
    pose[:3, :3] = torch.stack([right, down, forward])
    pose[2, 3] = 4
    K = torch.tensor([[110.0, 0, SIZE[0] / 2], [0, 110, SIZE[1] / 2], [0, 0, 1]])
    return Camera(name, *SIZE, K, pose)
