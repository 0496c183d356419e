"""Rendering one view of a model."""

from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from feature_gs.gaussians import GaussianModel
from feature_gs.rasterizer import RenderOutput, rasterize
from feature_gs.scenes import Camera


def render(
    model: GaussianModel,
    camera: Camera,
    *,
    background: Tensor | None = None,  # [3]
    antialiased: bool = False,
    near: float = 0.01,
    absgrad: bool = False,
    feature_cell: int | None = None,
    features_move_geometry: bool = False,
) -> RenderOutput:
    """Renders colour, depth and alpha of one view; differentiable with respect to the model's parameters.

    Args:
        model: The Gaussians. They decide the device.
        camera: The view; its tensors are brought to the model's device.
        background: Colour behind the Gaussians, in [0, 1]; black when None. [3] float32
        antialiased: Compensate the opacity of Gaussians that the screen-space blur widens.
        near: Gaussians whose centre is nearer than this to the camera plane are skipped, scene units.
        absgrad: Make room for the per-pixel absolute gradient of the projected centres, for densification.
        feature_cell: Also find how much of each Gaussian lies in each cell of so many pixels (4, 8 or 16), as
            `cells` of the result.
        features_move_geometry: Let a gradient pass through `cells` to the Gaussians' geometry.

    Returns:
        A batch of one view: `color` [1, H, W, 3], `alpha` and `depth` [1, H, W], `radii` [1, N] and so on.

    Example:
        >>> output = render(model, camera)
        >>> output.color.shape
        torch.Size([1, 300, 400, 3])
    """
    return rasterize_view(
        model,
        camera,
        sh=(model.sh_dc, model.sh_rest),
        background=background,
        antialiased=antialiased,
        near=near,
        absgrad=absgrad,
        feature_cell=feature_cell or 1,
        features_move_geometry=features_move_geometry,
        cell_weights=feature_cell is not None,
    )


def rasterize_view(model: GaussianModel, camera: Camera, **options: Any) -> RenderOutput:
    """Rasterizes the geometry of a model from one view; colours and all else are `rasterize`'s keywords.

    Args:
        model: The Gaussians. They decide the device.
        camera: The view.
        **options: Keyword arguments of `rasterize`: `sh`, `colors`, `features`, `near`, ...

    Returns:
        A batch of one view.
    """
    cam_from_world, K = _camera_tensors(camera, model.means)
    return rasterize(
        model.means,
        model.quats,
        model.scales,
        model.opacities,
        cam_from_world,
        K,
        camera.width,
        camera.height,
        **options,
    )


_uploaded: WeakKeyDictionary[Camera, tuple[Tensor, Tensor]] = WeakKeyDictionary()


def _camera_tensors(camera: Camera, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pose [1, 4, 4] and intrinsics [1, 3, 3] beside `like`; uploaded once, since that waits for the GPU."""
    if like.device == camera.K.device:
        return camera.cam_from_world.to(like)[None], camera.K.to(like)[None]
    found = _uploaded.get(camera)
    if found is None or found[0].device != like.device or found[0].dtype != like.dtype:
        found = _uploaded[camera] = camera.cam_from_world.to(like)[None], camera.K.to(like)[None]
    return found
