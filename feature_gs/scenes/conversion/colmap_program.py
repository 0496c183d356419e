"""Structure from motion with a COLMAP program that the user has installed, with CUDA perhaps."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from feature_gs.errors import UserError
from feature_gs.scenes.conversion.colmap_library import BLOCK, TOLERANCE

_TAIL = 8  # lines of the log in an error message


class ColmapProgram:
    """COLMAP as a program, called without a shell.

    Args:
        executable: Its name or path.
        gpu: Let it use the GPU.
        log: Folder that its messages go to.

    Raises:
        UserError: There is no such program, or it is not COLMAP.
    """

    def __init__(self, executable: str, gpu: bool, log: Path) -> None:
        found = shutil.which(executable)
        if found is None:
            raise UserError(
                f"--colmap_executable {executable}: there is no such program. Without this flag the "
                "library that came with feature_gs does the same."
            )
        self._program, self._gpu, self._log = found, gpu, log / "program.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = False
        self._log_start = 0  # where the messages of the running stage begin
        self._options = {stage: self._help(stage) for stage in ("feature_extractor", "exhaustive_matcher")}

    def extract(
        self, database: Path, photos: Path, names: list[str], camera: str, camera_id: int | None
    ) -> None:
        """Finds features in the photos `names` of one camera, new or `camera_id`."""
        with tempfile.TemporaryDirectory() as folder:
            listing = Path(folder) / "photos.txt"
            listing.write_text("\n".join(names) + "\n", encoding="utf-8")
            arguments = ["--database_path", str(database), "--image_path", str(photos)]
            arguments += ["--image_list_path", str(listing), "--ImageReader.single_camera", "1"]
            arguments += ["--ImageReader.camera_model", camera]
            if camera_id is not None:
                arguments += ["--ImageReader.existing_camera_id", str(camera_id)]
            arguments += self._use_gpu("feature_extractor", "Extraction")
            self._run("feature_extractor", arguments)

    def match(self, database: Path, matcher: str, vocab_tree: Path | None) -> None:
        """Compares photos and checks what they have in common."""
        arguments = ["--database_path", str(database), *self._use_gpu("exhaustive_matcher", "Matching")]
        if matcher == "exhaustive":
            arguments += ["--ExhaustiveMatching.block_size", str(BLOCK)]
        elif matcher == "vocabtree":
            arguments += ["--VocabTreeMatching.vocab_tree_path", str(vocab_tree)]
        names = {"vocabtree": "vocab_tree_matcher"}
        self._run(names.get(matcher, f"{matcher}_matcher"), arguments)

    def map(self, database: Path, photos: Path, output: Path) -> None:
        """Writes models to `output`/0, `output`/1, and so on."""
        arguments = ["--database_path", str(database), "--image_path", str(photos)]
        arguments += ["--output_path", str(output), "--Mapper.ba_global_function_tolerance", str(TOLERANCE)]
        self._run("mapper", arguments)

    def placed(self) -> int:
        """Number of photos that `map` has placed so far, as its messages tell."""
        with open(self._log, "rb") as log:
            log.seek(self._log_start)
            return log.read().count(b"Registering ")

    def cancel(self) -> None:
        """Ends the running stage soon."""
        self._cancelled = True
        if self._process is not None:
            self._process.terminate()

    def _use_gpu(self, stage: str, what: str) -> list[str]:
        """The flag for the GPU, which COLMAP 3.13 renamed."""
        flags = [f"--Feature{what}.use_gpu", f"--Sift{what}.use_gpu"]
        return [next((flag for flag in flags if flag in self._options[stage]), flags[0]), str(int(self._gpu))]

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

    def _run(self, stage: str, arguments: list[str]) -> None:
        with open(self._log, "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [self._program, stage, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        code = self._process.wait()
        self._process = None
        if code != 0 and not self._cancelled:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
            shown = "\n".join(f"  {line}" for line in lines)
            raise UserError(
                f"{self._program} {stage} failed (exit code {code}). The end of {self._log}:\n{shown}"
            )
