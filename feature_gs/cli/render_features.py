"""The features' part of `feature-gs render`: maps, pictures, and figures beside the teacher.

MODEL/{train,test,novel}/iteration_N/
  features/NAME.safetensors   `features` [C, h, w] float16 at the teacher's grid, as the Gaussians carry
                              them or, with --decode, in the teacher's space; a folder of teacher maps
  feature_pca/NAME.png        their principal components as colours, at full size: one palette per model
  compare_teacher/NAME.png    teacher and distilled features side by side (--compare_teacher)
  feature_video.mp4           the colours of the features along the novel path (--video)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from feature_gs.cli.render_pictures import picture_names
from feature_gs.cli.teacher_views import teacher_of
from feature_gs.errors import UserError
from feature_gs.features.comparison import Comparison, Patch, cell_to_compare
from feature_gs.features.field import FeatureField
from feature_gs.features.rendering import decoded
from feature_gs.features.teacher import write_map, write_meta
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import save_picture
from feature_gs.scenes import Camera, View
from feature_gs.training.trained import Trained


def write_features(
    trained: Trained, field: FeatureField, folder: Path, views: Sequence[tuple[Camera, str]], *, decode: bool
) -> Iterator[Picture]:
    """Writes the maps and pictures of some views and yields the pictures.

    Args:
        trained: The model.
        field: Its features.
        folder: The folder of the iteration, in train, test or novel.
        views: Cameras and the names of their pictures, ending in .png.
        decode: Write the maps in the teacher's space.

    Raises:
        UserError: A feature does not fit into half precision.
    """
    channels = field.decoder.channels if decode else field.decoder.features
    write_meta(folder / "features", field.teacher, channels, decoded=decode, iteration=trained.iteration)
    for camera, name in views:
        rendered = trained.render_features(field, camera)
        maps = decoded(field, rendered) if decode else rendered.features
        path = (folder / "features" / name).with_suffix(".safetensors")
        scale = rendered.cells_x / camera.width, rendered.cells_y / camera.height
        try:
            write_map(path, maps.permute(2, 0, 1), *scale)
        except ValueError as error:
            raise UserError(f"cannot write {path}: {error}. Leave maps out with --skip_features.") from None
        picture = trained.render_palette(field, camera)
        save_picture(folder / "feature_pca" / name, picture)
        yield picture


class TeacherFigures:
    """Figures of a model's features beside the teacher's, of the test views, or of the train views if none.

    Attributes:
        split: "test" or "train".
        views: The views, sorted by name; the first gives the query.
        folder: Where the figures go.
    """

    def __init__(self, trained: Trained, field: FeatureField, source_path: str, patch: Patch | None) -> None:
        """Finds photos and teacher maps.

        Args:
            trained: The model.
            field: Its features.
            source_path: Where the scene's folder is now; empty: where it was at training.
            patch: What to look for in the first view; None: its middle.

        Raises:
            UserError: The scene, a teacher map or the patch is at fault.
        """
        photos = trained.views(source_path)
        self.split = "test" if trained.cameras["test"] else "train"
        cameras = trained.cameras[self.split]
        self.views: list[View] = [photos[camera.name] for camera in cameras if camera.name in photos]
        if not self.views:
            raise UserError(f"--compare_teacher: none of the {len(cameras)} {self.split} photos is there.")
        self.folder = trained.path / self.split / f"iteration_{trained.iteration}" / "compare_teacher"
        self._trained, self._field = trained, field
        names = zip((camera.name for camera in cameras), picture_names(cameras), strict=True)
        self._paths = {name: self.folder / picture for name, picture in names}
        self._store = teacher_of(trained, field, source_path, self.views)
        camera = self.views[0].camera
        self._patch = patch or Patch.central(camera.width, camera.height)
        self._patch.check(camera.width, camera.height)

    @property
    def about(self) -> str:
        """What the figures compare with what, in words."""
        patch = self._patch
        return (
            f"{self._store.name}; patch {patch.x:g} {patch.y:g} {patch.size:g} of {self.views[0].camera.name}"
        )

    def write(self) -> Iterator[Picture]:
        """Writes the figure of each view and yields it."""
        comparison: Comparison | None = None
        for view in self.views:
            camera, teacher = view.camera, self._store.load(view)
            rendered = self._trained.render_features(
                self._field, camera, cell_to_compare(self._field, camera)
            )
            colors = self._trained.render_palette(self._field, camera)
            patch = None
            if comparison is None:
                patch = self._patch
                comparison = Comparison(self._field, patch, teacher, rendered, (camera.width, camera.height))
            figure = comparison.figure(teacher, rendered, colors, patch)
            save_picture(self._paths[camera.name], figure)
            yield figure
