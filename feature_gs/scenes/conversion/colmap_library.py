"""Structure from motion with COLMAP as a library: no program needs to be installed."""

from pathlib import Path
from typing import Any, Protocol

import pycolmap

from feature_gs.errors import UserError
from feature_gs.scenes.conversion.progress import processors
from feature_gs.scenes.conversion.settings import VOCAB_TREE

BLOCK = 10  # exhaustive matching compares so many photos with so many at a time, and then saves
TOLERANCE = 1e-6  # relative, at which the adjustment of all cameras stops


class Colmap(Protocol):
    """COLMAP's three long stages. Each call blocks until it is done; `cancel` ends it from another thread."""

    def extract(
        self, database: Path, photos: Path, names: list[str], camera: str, camera_id: int | None
    ) -> None:
        """Finds features in the photos `names` of one camera, new or `camera_id`."""

    def match(self, database: Path, matcher: str, vocab_tree: Path | None) -> None:
        """Compares photos and checks what they have in common."""

    def map(self, database: Path, photos: Path, output: Path) -> None:
        """Writes models to `output`/0, `output`/1, and so on."""

    def placed(self) -> int:
        """Number of photos that `map` has placed so far."""

    def cancel(self) -> None:
        """Ends the running stage soon."""


class ColmapLibrary:
    """COLMAP through pycolmap.

    Args:
        gpu: Use a GPU where this build of pycolmap can.
        log: Folder that its messages go to.
    """

    def __init__(self, gpu: bool, log: Path) -> None:
        self._device = pycolmap.Device.auto if gpu else pycolmap.Device.cpu
        self._token = pycolmap.CancellationToken()
        self._placed = 0
        pycolmap.logging.logtostderr = pycolmap.logging.alsologtostderr = False
        pycolmap.logging.stderrthreshold = pycolmap.logging.FATAL.value
        pycolmap.logging.set_log_destination(pycolmap.logging.INFO, log / "library.")

    def extract(
        self, database: Path, photos: Path, names: list[str], camera: str, camera_id: int | None
    ) -> None:
        """Finds features in the photos `names` of one camera, new or `camera_id`."""
        reader = pycolmap.ImageReaderOptions(camera_model=camera)
        if camera_id is not None:
            reader.existing_camera_id = camera_id
        pycolmap.extract_features(
            database,
            photos,
            names,
            pycolmap.CameraMode.SINGLE,
            reader,
            pycolmap.FeatureExtractionOptions(num_threads=processors()),
            self._device,
            self._token,
        )

    def match(self, database: Path, matcher: str, vocab_tree: Path | None) -> None:
        """Compares photos and checks what they have in common."""
        options = pycolmap.FeatureMatchingOptions(num_threads=processors())
        common: dict[str, Any] = {"matching_options": options, "device": self._device}
        common["cancellation_token"] = self._token
        if matcher == "exhaustive":
            pairing = pycolmap.ExhaustivePairingOptions(block_size=BLOCK)
            pycolmap.match_exhaustive(database, pairing_options=pairing, **common)
        elif matcher == "sequential":
            pycolmap.match_sequential(database, **common)
        else:
            lookup = pycolmap.VocabTreePairingOptions(vocab_tree_path=vocab_tree, num_threads=processors())
            pycolmap.match_vocabtree(database, pairing_options=lookup, **common)

    def map(self, database: Path, photos: Path, output: Path) -> None:
        """Writes models to `output`/0, `output`/1, and so on."""
        self._placed = 0
        pycolmap.incremental_mapping(
            database,
            photos,
            output,
            pycolmap.IncrementalPipelineOptions(
                ba_global_function_tolerance=TOLERANCE, num_threads=processors(), random_seed=0
            ),
            initial_image_pair_callback=lambda: self._place(2),
            next_image_callback=lambda: self._place(1),
            cancellation_token=self._token,
        )

    def placed(self) -> int:
        """Number of photos that `map` has placed so far."""
        return self._placed

    def cancel(self) -> None:
        """Ends the running stage soon."""
        self._token.cancel()

    def _place(self, photos: int) -> None:
        self._placed += photos


def check_vocab_tree(path: Path) -> None:
    """Checks that the library can read a vocabulary tree.

    Raises:
        UserError: It cannot.
    """
    try:
        pycolmap.VisualIndex.read(path)
    except Exception:  # pycolmap lets through whatever C++ threw
        raise UserError(
            f"--vocab_tree {path} is no vocabulary tree that COLMAP {pycolmap.__version__} reads; those for "
            f"COLMAP before 3.12 have another format. There is one at {VOCAB_TREE}"
        ) from None
