"""The parameters of a scene of 3D Gaussians."""

from pathlib import Path

import torch
from torch import Tensor, nn

from feature_gs.gaussians.initialise import neighbour_distances
from feature_gs.gaussians.ply import Array, PlyGaussians, read_ply, write_ply
from feature_gs.gaussians.sh import MAX_SH_DEGREE, degree_of, rest_bands, rgb_to_dc


class GaussianModel(nn.Module):
    """N Gaussians, stored as the unconstrained numbers an optimiser can move freely.

    Attributes:
        means: Centres in world space. [N, 3]
        quats: Rotations w, x, y, z, of any length but 0 (normalised where they are used). [N, 4]
        log_scales: Logarithms of the standard deviations along the axes. [N, 3]
        logit_opacities: Opacities before the sigmoid. [N]
        sh_dc: Constant SH coefficients. [N, 3]
        sh_rest: Further SH coefficients, of the active bands only, so that early training steps are cheap;
            grows with `raise_sh_degree`. [N, K - 1, 3]
        features: Features of a foundation model, or None. [N, C]
        sh_degree: The degree up to which `sh_rest` may grow, 0..3; the PLY is padded to it.
    """

    def __init__(
        self,
        means: Tensor,  # [N, 3]
        quats: Tensor,  # [N, 4]
        log_scales: Tensor,  # [N, 3]
        logit_opacities: Tensor,  # [N]
        sh_dc: Tensor,  # [N, 3]
        sh_rest: Tensor,  # [N, K - 1, 3]
        sh_degree: int,
        features: Tensor | None = None,  # [N, C]
    ) -> None:
        super().__init__()
        count = len(means)
        shapes = {
            "means": (means, (count, 3)),
            "quats": (quats, (count, 4)),
            "log_scales": (log_scales, (count, 3)),
            "logit_opacities": (logit_opacities, (count,)),
            "sh_dc": (sh_dc, (count, 3)),
            "sh_rest": (sh_rest, (count, sh_rest.shape[1] if sh_rest.dim() > 1 else 0, 3)),
        }
        for name, (tensor, shape) in shapes.items():
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")
        if features is not None and (features.dim() != 2 or len(features) != count):
            raise ValueError(f"features must be [{count}, C], got {list(features.shape)}")
        active = degree_of(sh_rest.shape[1])
        if active is None or not active <= sh_degree <= MAX_SH_DEGREE:
            raise ValueError(f"sh_rest {list(sh_rest.shape)} does not fit sh_degree {sh_degree} (0..3)")
        self.sh_degree = sh_degree
        self.means = nn.Parameter(means)
        self.quats = nn.Parameter(quats)
        self.log_scales = nn.Parameter(log_scales)
        self.logit_opacities = nn.Parameter(logit_opacities)
        self.sh_dc = nn.Parameter(sh_dc)
        self.sh_rest = nn.Parameter(sh_rest)
        self.features = None if features is None else nn.Parameter(features)

    @classmethod
    def from_points(
        cls,
        points: Tensor,  # [P, 3] float32
        colors: Tensor,  # [P, 3] uint8
        sh_degree: int,
        *,
        opacity: float = 0.1,
        scale: float = 1.0,
    ) -> "GaussianModel":
        """One round Gaussian per point, as large as its neighbours are far, with active SH degree 0.

        Args:
            points: World positions. [P, 3] float32
            colors: Their colours, 0..255. [P, 3] uint8
            sh_degree: The degree up to which SH may grow, 0..3.
            opacity: First opacity, in (0, 1).
            scale: Factor on the distance to the neighbours.
        """
        count = len(points)
        log_scales = (neighbour_distances(points) * scale).log()[:, None].repeat(1, 3)
        quats = points.new_zeros(count, 4)
        quats[:, 0] = 1
        return cls(
            means=points.clone(),
            quats=quats,
            log_scales=log_scales,
            logit_opacities=torch.logit(points.new_full((count,), opacity)),
            sh_dc=rgb_to_dc(colors.to(points) / 255),
            sh_rest=points.new_zeros(count, 0, 3),
            sh_degree=sh_degree,
        )

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Tensor:
        """Standard deviations along the Gaussians' axes, > 0. [N, 3]"""  # noqa: D415
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """Opacities in (0, 1). [N]"""  # noqa: D415
        return self.logit_opacities.sigmoid()

    @property
    def active_sh_degree(self) -> int:
        """The SH degree that is rendered and trained at present."""
        degree = degree_of(self.sh_rest.shape[1])
        assert degree is not None
        return degree

    def raise_sh_degree(self) -> bool:
        """Adds the next SH band with zero coefficients; False when `sh_degree` is already reached.

        `sh_rest` is then a new parameter: an optimiser must be told.
        """
        if self.active_sh_degree >= self.sh_degree:
            return False
        missing = rest_bands(self.active_sh_degree + 1) - self.sh_rest.shape[1]
        zeros = self.sh_rest.new_zeros(len(self), missing, 3)
        self.sh_rest = nn.Parameter(torch.cat([self.sh_rest.detach(), zeros], dim=1))
        return True

    def is_finite(self) -> bool:
        """Whether no parameter holds a NaN or an infinity."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters())

    def save_ply(self, path: Path, *, features: bool = False) -> None:
        """Writes the standard 3DGS PLY, which every viewer opens (SH padded to `sh_degree`).

        Args:
            path: The file.
            features: Add the features, as they are, in columns `semantic_0`, ... as Feature 3DGS does.

        Raises:
            UserError: The file cannot be written; a previous one stays whole.
        """
        bands = rest_bands(self.sh_degree)
        sh_rest = self.sh_rest.detach()
        padded = sh_rest.new_zeros(len(self), bands, 3)
        padded[:, : sh_rest.shape[1]] = sh_rest
        write_ply(
            path,
            PlyGaussians(
                means=_array(self.means),
                quats=_array(self.quats),
                log_scales=_array(self.log_scales),
                logit_opacities=_array(self.logit_opacities),
                sh_dc=_array(self.sh_dc),
                sh_rest=_array(padded),
                features=_array(self.features) if features and self.features is not None else None,
            ),
        )

    @classmethod
    def load_ply(cls, path: Path, *, features: bool = False) -> "GaussianModel":
        """Reads a 3DGS PLY of any tool, of SH degree 0..3; `sh_degree` is the file's.

        Args:
            path: The file.
            features: Read the features in columns `semantic_0`, ... (Feature 3DGS) or `sem_0`, ... (FiT3D).

        Raises:
            UserError: The file is missing, truncated, or does not hold Gaussians, or not the features asked
                for.
        """
        data = read_ply(path, features=features)
        return cls(
            means=torch.from_numpy(data.means),
            quats=torch.from_numpy(data.quats),
            log_scales=torch.from_numpy(data.log_scales),
            logit_opacities=torch.from_numpy(data.logit_opacities),
            sh_dc=torch.from_numpy(data.sh_dc),
            sh_rest=torch.from_numpy(data.sh_rest),
            sh_degree=data.sh_degree,
            features=None if data.features is None else torch.from_numpy(data.features),
        )


def _array(tensor: Tensor) -> Array:  # [...]
    return tensor.detach().float().cpu().numpy()
