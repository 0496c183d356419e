"""The standard PLY of 3D Gaussian splatting: what every viewer reads and every tool writes."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from plyfile import PlyData, PlyElement, PlyParseError

from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.gaussians.sh import degree_of

Array = npt.NDArray[np.float32]

_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_OPACITY = ("opacity",)
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")
_LOGIT_LIMIT = 30.0
_LOG_SCALE_LIMIT = 40.0


@dataclass(frozen=True)
class PlyGaussians:
    """What a PLY holds, as float32 arrays in the layout of `GaussianModel`."""

    means: Array  # [N, 3]
    quats: Array  # [N, 4] w, x, y, z
    log_scales: Array  # [N, 3]
    logit_opacities: Array  # [N]
    sh_dc: Array  # [N, 3]
    sh_rest: Array  # [N, K - 1, 3], all bands
    features: Array | None = None  # [N, C]

    @property
    def sh_degree(self) -> int:
        """The SH degree that `sh_rest` amounts to."""
        degree = degree_of(self.sh_rest.shape[1])
        if degree is None:
            raise ValueError(f"sh_rest must be [N, 0 | 3 | 8 | 15, 3], got {list(self.sh_rest.shape)}")
        return degree


def write_ply(path: Path, gaussians: PlyGaussians) -> None:
    """Writes little-endian float32 rows: x y z nx ny nz f_dc f_rest opacity scale rot, then semantic.

    `f_rest` lists all coefficients of red, then of green, then of blue. Normals are zero. There are columns
    `semantic_0`, ... (as Feature 3DGS lays them out) only where there are features.

    Raises:
        UserError: The file cannot be written (a full disk, no permission); a previous one stays whole.
    """
    count, bands = gaussians.sh_rest.shape[:2]
    features = np.empty((count, 0), np.float32) if gaussians.features is None else gaussians.features
    names = _column_names(bands, features.shape[1])
    rows = np.concatenate(
        [
            gaussians.means,
            np.zeros((count, len(_NORMAL)), np.float32),
            gaussians.sh_dc,
            gaussians.sh_rest.transpose(0, 2, 1).reshape(count, 3 * bands),
            gaussians.logit_opacities[:, None],
            gaussians.log_scales,
            gaussians.quats,
            features,
        ],
        axis=1,
        dtype="<f4",
    )
    vertices = rows.view([(name, "<f4") for name in names]).reshape(count)
    element = PlyElement.describe(vertices, "vertex")
    comments = [f"SH degree: {gaussians.sh_degree}"]
    try:
        with atomic_write(path) as temporary:
            PlyData([element], byte_order="<", comments=comments).write(str(temporary))
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder (-m)."
        ) from error


def read_ply(path: Path, *, features: bool = False) -> PlyGaussians:
    """Reads a 3DGS PLY, binary or ascii, of any column order and number type.

    Normals and further columns are ignored. Rows that cannot be shown (a NaN or an
    infinity in position, colour or rotation, a NaN elsewhere) are left out with a warning; infinite opacity
    logits and log-scales, which some tools write for "opaque" and "flat", become +-30 and +-40; zero
    rotations become the identity.

    Args:
        path: The file.
        features: Read the columns `semantic_0`, ... (Feature 3DGS) or `sem_0`, ... (FiT3D) too.

    Raises:
        UserError: The file is missing, truncated, or does not hold Gaussians, or not the features asked for.
    """
    vertices = _read_vertices(path)
    available = set(vertices.dtype.names or ())
    rest = _numbered(available, "f_rest_")
    required = (*_POSITION, *_DC, *_OPACITY, *_SCALE, *_ROTATION)
    missing = [name for name in required if name not in available]
    if missing:
        hint = "it looks like a plain point cloud or mesh" if not available & {*_DC, *_OPACITY} else ""
        raise UserError(
            f"{path} is not a PLY of 3D Gaussians: it lacks the columns {', '.join(missing)}"
            + (f" ({hint})." if hint else ".")
        )
    bands = len(rest) // 3
    if len(rest) % 3 or degree_of(bands) is None or rest != [f"f_rest_{i}" for i in range(3 * bands)]:
        raise UserError(
            f"{path} has {len(rest)} columns f_rest_*; expected f_rest_0.. up to 0, 9, 24 or 45 of them "
            "(SH degree 0, 1, 2 or 3)."
        )
    count = len(vertices)
    data = PlyGaussians(
        means=_columns(path, vertices, _POSITION),
        quats=_columns(path, vertices, _ROTATION),
        log_scales=_columns(path, vertices, _SCALE),
        logit_opacities=_columns(path, vertices, _OPACITY)[:, 0],
        sh_dc=_columns(path, vertices, _DC),
        sh_rest=np.ascontiguousarray(
            _columns(path, vertices, rest).reshape(count, 3, bands).transpose(0, 2, 1)
        ),
        features=_features(path, vertices) if features else None,
    )
    return _usable(path, data)


def _column_names(bands: int, channels: int) -> list[str]:
    rest = [f"f_rest_{i}" for i in range(3 * bands)]
    semantic = [f"semantic_{i}" for i in range(channels)]
    return [*_POSITION, *_NORMAL, *_DC, *rest, *_OPACITY, *_SCALE, *_ROTATION, *semantic]


def _numbered(names: set[str], prefix: str) -> list[str]:
    """The names that are `prefix` and a number, by that number."""
    found = (name for name in names if re.fullmatch(rf"{prefix}\d+", name))
    return sorted(found, key=lambda name: int(name.removeprefix(prefix)))


def _features(path: Path, vertices: npt.NDArray[Any]) -> Array:
    """The features, [N, C]."""
    available = set(vertices.dtype.names or ())
    names = _numbered(available, "semantic_") or _numbered(available, "sem_")
    if not names:
        raise UserError(f"{path} holds no features: it has no columns semantic_0.. or sem_0..")
    prefix = names[0].rstrip("0123456789")
    if names != [f"{prefix}{i}" for i in range(len(names))]:
        raise UserError(
            f"{path} has {len(names)} columns {prefix}*; expected {prefix}0 to {prefix}{len(names) - 1}."
        )
    features = _columns(path, vertices, names)
    if not np.isfinite(features).all():
        raise UserError(f"the features (columns {prefix}*) of {path} hold a NaN or an infinity.")
    return features


def _read_vertices(path: Path) -> npt.NDArray[Any]:
    """The rows of the element `vertex`, still in the file's own types."""
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    try:
        elements = PlyData.read(str(path))
        return np.asarray(elements["vertex"].data)
    except KeyError:
        raise UserError(f"{path} has no element `vertex`, so it holds no Gaussians.") from None
    except (
        PlyParseError,
        ValueError,
        TypeError,
        EOFError,
        OverflowError,
        MemoryError,
        UnicodeError,
    ) as error:
        raise UserError(f"{path} is not a whole PLY file ({error}). Write or download it again.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error


def _columns(path: Path, vertices: npt.NDArray[Any], names: tuple[str, ...] | list[str]) -> Array:
    """The named columns as float32, [N, len(names)]."""
    result = np.empty((len(vertices), len(names)), np.float32)
    with np.errstate(over="ignore"):  # doubles beyond float32 become infinities, which are dealt with later
        for i, name in enumerate(names):
            if vertices.dtype[name].kind not in "fiu":
                raise UserError(f"column {name} of {path} holds lists; expected one number per Gaussian.")
            result[:, i] = vertices[name]
    return result


def _usable(path: Path, data: PlyGaussians) -> PlyGaussians:
    """Without the rows that cannot be shown, and with the infinities that mean something made finite."""
    sh_rest = data.sh_rest.reshape(len(data.means), 3 * data.sh_rest.shape[1])
    finite = np.isfinite(np.concatenate([data.means, data.quats, data.sh_dc, sh_rest], axis=1)).all(axis=1)
    finite &= ~np.isnan(data.log_scales).any(axis=1) & ~np.isnan(data.logit_opacities)
    dropped = len(finite) - int(finite.sum())
    if dropped:
        warnings.warn(f"left out {dropped} of {len(finite)} Gaussians of {path}: not finite", stacklevel=4)
    quats = data.quats[finite]
    quats[~quats.any(axis=1)] = (1, 0, 0, 0)
    return PlyGaussians(
        means=data.means[finite],
        quats=quats,
        log_scales=_finite(data.log_scales[finite], _LOG_SCALE_LIMIT),
        logit_opacities=_finite(data.logit_opacities[finite], _LOGIT_LIMIT),
        sh_dc=data.sh_dc[finite],
        sh_rest=data.sh_rest[finite],
        features=None if data.features is None else data.features[finite],
    )


def _finite(values: Array, limit: float) -> Array:
    return np.nan_to_num(values, copy=False, posinf=limit, neginf=-limit)
