"""COLMAP as a program that the user has installed, with CUDA perhaps."""

import shutil
import subprocess
from pathlib import Path

from feature_gs.errors import UserError
from feature_gs.scenes.conversion.colmap_process import BLOCK, TOLERANCE, Command


class ColmapProgram:
    """Starts the stages of a COLMAP program, without a shell.

    Args:
        executable: Its name or path.
        gpu: Let it use the GPU.
        scratch: Folder for a list of photos.

    Raises:
        UserError: There is no such program, or it is not COLMAP.
    """

    def __init__(self, executable: str, gpu: bool, scratch: Path) -> None:
        found = shutil.which(executable)
        if found is None:
            raise UserError(
                f"--colmap_executable {executable}: there is no such program. Without this flag the library "
                "that came with feature_gs does the same."
            )
        self._program, self._gpu, self._scratch = found, gpu, scratch
        self._options = {stage: self._help(stage) for stage in ("feature_extractor", "exhaustive_matcher")}

    def extract(
        self, database: Path, photos: Path, names: list[str], camera: str, camera_id: int | None
    ) -> Command:
        """Finds features in the photos `names` of one camera, new or `camera_id`."""
        listing = self._scratch / "photos.txt"
        self._scratch.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n", encoding="utf-8")
        flags = {
            "--database_path": database,
            "--image_path": photos,
            "--image_list_path": listing,
            "--ImageReader.single_camera": 1,
            "--ImageReader.camera_model": camera,
            self._gpu_flag("feature_extractor", "Extraction"): int(self._gpu),
        }
        if camera_id is not None:
            flags["--ImageReader.existing_camera_id"] = camera_id
        return self._command("feature_extractor", flags)

    def match(self, database: Path, matcher: str, vocab_tree: Path | None) -> Command:
        """Compares photos and checks what they have in common."""
        flags: dict[str, object] = {"--database_path": database}
        flags[self._gpu_flag("exhaustive_matcher", "Matching")] = int(self._gpu)
        if matcher == "exhaustive":
            flags["--ExhaustiveMatching.block_size"] = BLOCK
        elif matcher == "vocabtree":
            flags["--VocabTreeMatching.vocab_tree_path"] = vocab_tree
        return self._command({"vocabtree": "vocab_tree"}.get(matcher, matcher) + "_matcher", flags)

    def map(self, database: Path, photos: Path, output: Path) -> Command:
        """Writes models to `output`/0, `output`/1, and so on."""
        flags = {
            "--database_path": database,
            "--image_path": photos,
            "--output_path": output,
            "--Mapper.ba_global_function_tolerance": TOLERANCE,
        }
        return self._command("mapper", flags)

    def _command(self, stage: str, flags: dict[str, object]) -> Command:
        return Command([self._program, stage, *(str(word) for pair in flags.items() for word in pair)])

    def _gpu_flag(self, stage: str, what: str) -> str:
        """The flag for the GPU, which COLMAP 3.13 renamed."""
        older = f"--Sift{what}.use_gpu"
        return older if older in self._options[stage] else f"--Feature{what}.use_gpu"

    def _help(self, stage: str) -> str:
        try:
            answer = subprocess.run(
                [self._program, stage, "-h"], capture_output=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"--colmap_executable {self._program} cannot be run: {error}") from None
        text = (answer.stdout + answer.stderr).decode(errors="replace")
        if "--database_path" not in text:
            shown = " ".join(text.split())[:200] or "nothing"
            raise UserError(
                f"--colmap_executable {self._program} is not COLMAP: asked for the options of its {stage}, "
                f"it answered {shown!r}."
            )
        return text
