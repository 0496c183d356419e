"""Teacher folders as Feature 3DGS's encoders write them: one `NAME_fmap_CxHxW.pt` per photo."""

from pathlib import Path, PurePosixPath

import torch

from feature_gs.features.maps import TeacherMap, located

SUFFIX = "_fmap_CxHxW.pt"
_SAM_CHANNELS, _SAM_SIDE = 256, 64


def is_feature3dgs_folder(folder: Path) -> bool:
    """Whether the folder holds maps of Feature 3DGS."""
    return next(folder.glob(f"*{SUFFIX}"), None) is not None


def file_name(image_name: str) -> str:
    """Name of an image's map: sub-folders are dropped, and everything from the first dot on."""
    return PurePosixPath(image_name).name.split(".")[0] + SUFFIX


def read_feature3dgs(path: Path, width: int, height: int) -> TeacherMap:
    """Reads a map of Feature 3DGS, memory-mapped.

    LSeg's maps span the whole photo, whatever its proportions. SAM's lie on a square of 64 x 64 cells whose
    side is the photo's longer one; the rows below a landscape photo are already cut off in the file, the
    columns beside a portrait one are not.

    Args:
        path: The file.
        width: Width of the photo's file in pixels.
        height: Height of the photo's file in pixels.

    Raises:
        ValueError: The file is damaged or holds something else; says what.
    """
    try:
        features = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what torch raises on a damaged file is not one family
        reason = str(error).split("\n")[0]
        raise ValueError(f"it is damaged or no map ({type(error).__name__}: {reason})") from None
    if not isinstance(features, torch.Tensor) or features.layout != torch.strided:
        raise ValueError(f"expected one tensor [channels, rows, columns], got {type(features).__name__}")
    if features.numel() * features.element_size() > path.stat().st_size:
        raise ValueError(f"it claims a tensor {list(features.shape)} larger than itself")
    if features.ndim == 3 and features.shape[0] == _SAM_CHANNELS and features.shape[2] == _SAM_SIDE:
        scale = _SAM_SIDE / max(width, height)
        if features.shape[1] in (_SAM_SIDE, int(scale * height + 0.5)):
            return located(features, scale * width, scale * height)
    if features.ndim != 3:
        raise ValueError(f"expected features [channels, rows, columns], got {list(features.shape)}")
    return located(features, features.shape[2], features.shape[1])
