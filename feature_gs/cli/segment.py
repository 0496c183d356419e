"""`feature-gs segment`: asks a trained model, and writes the answer for every view and in 3D.

feature-gs segment -m MODEL --view 008.png --point 120 80
feature-gs segment -m MODEL --view 008.png --box 90 60 160 140
feature-gs segment -m MODEL --view 008.png --patch 120 80 16
feature-gs segment -m MODEL --text "chair,table,floor"
feature-gs segment -m MODEL --everything

MODEL/queries/NAME/
  selection.safetensors    score and choice of each Gaussian
  masks/VIEW.png           0 and 255; with --text and --everything numbers of labels.json
  scores/VIEW.png          16-bit grey: score = value / 65535
  overlay/VIEW.png         the answer over the photo, with the prompt
  query.json               what was asked, and the command that asks it again
  labels.json              names of the numbers (--text, --everything)
  parts/LABEL/selection.safetensors    the Gaussians of each of them
  instances.json           masks of --everything in the format of COCO
  histogram.png            distances from --patch
  timing.json              where the time went (--timing)
"""

import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tyro
from tqdm import tqdm

import feature_gs
from feature_gs.cli.segment_output import AnswerWriter, prepare
from feature_gs.cli.segment_settings import SegmentConfig, words_of
from feature_gs.encoders.text import ADE20K_LABELS
from feature_gs.errors import UserError
from feature_gs.features.comparison import Patch
from feature_gs.features.field import FeatureField
from feature_gs.queries.answers import Answer, LikeliestWords, SamePixels, SelectedGaussians, Things
from feature_gs.queries.ask import ask_box, ask_patch, ask_points, find_everything
from feature_gs.queries.drawing import Marks, histogram_picture
from feature_gs.queries.sam import SamDecoder
from feature_gs.queries.sam_view import is_sam
from feature_gs.queries.stopwatch import Stopwatch
from feature_gs.queries.views import Box, check_points, find_view
from feature_gs.queries.words import Words
from feature_gs.rendering.camera_path import interpolate_path
from feature_gs.rendering.colormap import Picture
from feature_gs.rendering.pictures import save_picture
from feature_gs.scenes import Camera, View
from feature_gs.scenes.names import names_without_suffix
from feature_gs.training.trained import SPLITS, Trained, load_trained


def main(argv: list[str] | None = None) -> int:
    """Runs the verb; see the module's text for what it writes."""
    run(parsed(argv))
    return 0


def parsed(argv: list[str] | None) -> SegmentConfig:
    """The configuration of a command line."""
    return tyro.cli(
        SegmentConfig,
        args=argv,
        prog="feature-gs segment",
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def run(config: SegmentConfig) -> None:
    """Asks what `config` asks and says where the answer is.

    Raises:
        UserError: The model, its features or the request is at fault.
    """
    config.check()
    asked = _Asked.of(config)
    say: Callable[[str], None] = _silent if config.quiet else print
    cameras = _cameras(config, asked.trained)
    folder = config.model_path / "queries" / config.folder_name()
    prepare(folder)
    answer, histogram, seconds = _timed(asked.answer, config.timing)
    writer = AnswerWriter(
        folder,
        answer,
        asked.trained,
        _photos(config, asked.trained, say),
        asked.marks(),
    )
    writer.clear()
    writer.write_query(asked.about(answer))
    if histogram is not None:
        save_picture(writer.folder / "histogram.png", histogram)
    watch = Stopwatch()
    names = names_without_suffix([camera.name for camera in cameras])
    shown = tqdm(zip(cameras, names, strict=True), "views", len(cameras), disable=config.quiet, ncols=80)
    for camera, name in shown:
        for _ in range(config.timing + 1):
            writer.write_view(camera, name, answer.in_view(camera, watch), watch)
            watch.end_round()
        watch.end_view(warm_up=config.timing > 0)
    writer.finish(config.command())
    _report(config, writer, answer, len(cameras), say)
    if config.timing:
        writer.write_timing(watch.stages(), seconds, config.timing)
        _report_times(watch, seconds, len(cameras), say)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A query with all that its answer needs, read and checked before anything is computed."""

    config: SegmentConfig
    trained: Trained
    field: FeatureField
    camera: Camera | None
    sam: SamDecoder | None
    words: Words | None

    @classmethod
    def of(cls, config: SegmentConfig) -> "_Asked":
        trained = load_trained(config.model_path, config.iteration)
        camera = find_view(trained, config.view) if config.view else None
        if camera is not None:
            _check_prompt(config, camera)
        field = trained.field()
        if field is None:
            raise UserError(
                f"{config.model_path} has no features at iteration {trained.iteration}, so it cannot be "
                f"asked. Give it some: feature-gs lift -m {config.model_path} -f TEACHER"
            )
        if config.patch is not None and field.decoder.kind == "conv3x3":
            raise UserError(
                "--patch compares features of single Gaussians, but the model's conv3x3 decoder looks at "
                "neighbouring cells. Lift features with --decoder linear or none, or ask with --point or "
                "--box."
            )
        sam = None
        if is_sam(field) and config.kind in ("point", "box", "everything"):
            sam = SamDecoder.load(
                field.teacher.partition("?")[0], config.weights, config.onnx_path, trained.model.means.device
            )
        elif config.onnx_path is not None:
            raise UserError(
                f"--onnx_path is SAM's decoder, for --point, --box and --everything of models that SAM "
                f"taught; this one was taught by {field.teacher}."
            )
        return cls(config, trained, field, camera, sam, _words(config, field))

    def answer(self) -> tuple[Answer, Picture | None]:
        """The answer, and the histogram of a patch."""
        config, trained, field = self.config, self.trained, self.field
        if self.words is not None:
            return LikeliestWords(trained, field, self.words), None
        if config.everything:
            query = {"kind": "everything", "teacher": field.teacher}
            return Things(
                trained, find_everything(trained, field, sam=self.sam, watch=self._watch), query
            ), None
        assert self.camera is not None
        box = None if config.box is None else Box(*config.box)
        if config.per_view:
            return SamePixels(trained, field, config.point, config.negative_point, box, self.sam), None
        if config.patch is not None:
            patch = Patch(*config.patch)
            selection, distances, split = ask_patch(trained, field, self.camera, patch, config.threshold)
            picture = histogram_picture(distances[field.seen].cpu().numpy(), split)
            return SelectedGaussians(trained, selection), picture
        if box is not None:
            selection = ask_box(trained, field, self.camera, box, sam=self.sam)
        else:
            points = (config.point, config.negative_point)
            selection = ask_points(trained, field, self.camera, *points, sam=self.sam)
        return SelectedGaussians(trained, selection), None

    def marks(self) -> dict[str, Marks]:
        """What is drawn on which view."""
        config, box = self.config, None
        if config.box is not None:
            box = Box(*config.box)
        elif config.patch is not None:
            x, y, half = config.patch[0], config.patch[1], config.patch[2] / 2
            box = Box(x - half, y - half, x + half, y + half)
        marks = Marks(config.point, config.negative_point, box)
        if config.per_view:
            return {camera.name: marks for split in SPLITS for camera in self.trained.cameras[split]}
        return {} if self.camera is None else {self.camera.name: marks}

    def about(self, answer: Answer) -> dict[str, Any]:
        """What query.json says."""
        config = self.config
        selection = answer.selection
        return {
            "command": config.command(),
            "query": {} if selection is None else selection.query,
            "model": str(config.model_path.resolve()),
            "iteration": self.trained.iteration,
            "gaussians": len(self.trained.model),
            "selected": None if selection is None else int(selection.selected.sum()),
            "teacher": self.field.teacher,
            "sam_decoder": self.sam is not None,
            "feature_gs": feature_gs.__version__,
        }

    def _watch(self, what: Sequence[Any]) -> Iterable[Any]:
        return tqdm(what, "questions", disable=self.config.quiet, ncols=80)


def _check_prompt(config: SegmentConfig, camera: Camera) -> None:
    size = (camera.width, camera.height)
    check_points(config.point, *size, "--point")
    check_points(config.negative_point, *size, "--negative_point")
    if config.box is not None:
        Box(*config.box).check(*size)
    if config.patch is not None:
        Patch(*config.patch).check(*size)


def _words(config: SegmentConfig, field: FeatureField) -> Words | None:
    if config.text is None:
        return None
    names = ADE20K_LABELS() if config.text.strip().lower() == "ade20k" else words_of(config.text)
    negatives = None if config.negative_text is None else words_of(config.negative_text)
    return Words.encode(
        field,
        names,
        negatives,
        templates=config.template,
        temperature=config.temperature,
        weights=config.weights,
    )


def _cameras(config: SegmentConfig, trained: Trained) -> list[Camera]:
    if config.views == "novel":
        path = interpolate_path(trained.cameras["train"], config.num_views)
        return [replace(camera, name=f"novel/{camera.name}") for camera in path]
    splits = SPLITS if config.views == "all" else (config.views,)
    cameras = [camera for split in splits for camera in trained.cameras[split]]
    if not cameras:
        raise UserError(
            "there are no test views: the model was trained without --eval. Choose other --views."
        )
    return cameras


def _photos(config: SegmentConfig, trained: Trained, say: Callable[[str], None]) -> dict[str, View]:
    """The photos under the overlays; none, with a message, where the scene's folder is gone."""
    if config.views == "novel":
        return {}
    try:
        return trained.views(config.source_path)
    except UserError as error:
        say(f"No photos, so overlays are on renders: {error}\n  If they are elsewhere now, name it with -s.")
        return {}


def _timed(
    ask: Callable[[], tuple[Answer, Picture | None]], rounds: int
) -> tuple[Answer, Picture | None, float]:
    """What is answered, and the median of the seconds that it took after one round to warm up."""
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        found = ask()
        seconds.append(time.perf_counter() - started)
    return (*found, statistics.median(seconds[1:] or seconds))


def _report(
    config: SegmentConfig, writer: AnswerWriter, answer: Answer, views: int, say: Callable[[str], None]
) -> None:
    say(f"\n{writer.folder}")
    if answer.selection is not None:
        chosen, count = int(answer.selection.selected.sum()), len(answer.selection)
        parts = f", in {len(answer.parts)} parts" if answer.parts else ""
        say(f"  selection.safetensors   {chosen:,} of {count:,} Gaussians{parts}")
    elif config.text is not None:
        say("  no selection: a conv3x3 decoder does not decode single Gaussians; pixels were asked.")
    say(f"  masks, scores, overlay  {views} views")
    if answer.selection is not None and not bool(answer.selection.selected.any()):
        say("Nothing was found. Try another place or another kind of query.")
    elif answer.selection is not None:
        model = shlex.quote(str(config.model_path))
        say(f"Next: feature-gs decompose -m {model} --selection {config.folder_name()}")


def _report_times(watch: Stopwatch, seconds: float, views: int, say: Callable[[str], None]) -> None:
    say(f"\nquery      {seconds:8.3f} s")
    for name, (one, both) in watch.stages().items():
        say(f"{name:<10} {both:8.3f} s for {views} views, {1000 * one:.1f} ms the median view")


def _silent(_: str) -> None:
    pass
