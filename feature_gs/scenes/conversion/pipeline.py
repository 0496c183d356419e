"""The stages from photos to a scene, one after the other, each only where it is not done yet.

    film            input/                   photos from a film
    checked                                  photos that are whole
    features        distorted/database.db
    matches         distorted/database.db
    models          distorted/sparse/N
    undistorted     images/, sparse/0
    images_N        images_2/, images_4/, images_8/

Folders are made under a hidden name in distorted/ and put in place when they are whole; the database keeps
whole photos and whole blocks of pairs, so that a killed stage goes on inside it. distorted/convert.json says
what is done, and from what.
"""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from feature_gs.errors import UserError
from feature_gs.scenes.colmap import find_colmap_model
from feature_gs.scenes.conversion import replacing
from feature_gs.scenes.conversion.colmap_library import ColmapLibrary, check_vocab_tree
from feature_gs.scenes.conversion.colmap_process import Colmap
from feature_gs.scenes.conversion.colmap_program import ColmapProgram
from feature_gs.scenes.conversion.film import take_frames
from feature_gs.scenes.conversion.folders import fresh, install, recover
from feature_gs.scenes.conversion.layout import Layout
from feature_gs.scenes.conversion.models import Model, choose_model, read_models
from feature_gs.scenes.conversion.photos import (
    FEWEST,
    Photo,
    check_input_folder,
    check_readable,
    choose_photos,
    describe,
    read_photos,
)
from feature_gs.scenes.conversion.reconstruction import Reconstruction
from feature_gs.scenes.conversion.record import Record, fingerprint
from feature_gs.scenes.conversion.settings import ConvertConfig
from feature_gs.scenes.conversion.sizes import FACTORS, write_smaller
from feature_gs.scenes.conversion.undistortion import check_sizes, undistort
from feature_gs.scenes.images import index_images


@dataclass(frozen=True)
class Converted:
    """What a conversion made.

    Attributes:
        photos: Photos that were to be placed.
        placed: Photos in images/.
        points: Points of the model.
        error: Mean distance between points and where photos show them, in pixels of the photos as taken.
    """

    photos: int
    placed: int
    points: int
    error: float


def convert(config: ConvertConfig, say: Callable[[str], None] = print) -> Converted:
    """Makes a scene of SOURCE/input, of a film, or of the model in SOURCE/distorted.

    What an earlier run finished is kept; Ctrl-C and `kill` lose at most the stage they meet.

    Args:
        config: The flags.
        say: Takes the messages.

    Raises:
        UserError: The photos, the flags, or what lies in the folder stand in the way.
    """
    config.check()
    place = Layout(config.source_path)
    colmap = None if config.skip_matching else _colmap(config, place)
    if place.source.is_dir():
        for folder in (place.input, place.models, place.images, place.sparse, *map(place.smaller, FACTORS)):
            recover(folder)
    record = Record(place.record)
    if config.skip_matching:
        replacing.adopt_distorted_scene(place, say)
    replacing.check_foreign(place, config, record)
    if config.video is not None:
        _film(config, place, record, say)
    check_input_folder(place.source, place.input)
    if colmap is None:
        photos, model = _given_model(config, place, record, say)
    else:
        photos, model = _reconstructed_model(config, place, record, colmap, say)
    _undistorted(config, place, record, model, photos, say)
    if config.resize:
        _smaller(config, place, record, model, say)
    replacing.end(record)
    points = model.reconstruction
    return Converted(
        len(index_images(place.input)),
        len(model.registered),
        points.num_points3D(),
        points.compute_mean_reprojection_error(),
    )


def _colmap(config: ConvertConfig, place: Layout) -> Colmap:
    if config.colmap_executable:
        return ColmapProgram(config.colmap_executable, not config.no_gpu, place.distorted)
    if config.vocab_tree is not None:
        check_vocab_tree(config.vocab_tree)
    return ColmapLibrary(not config.no_gpu)


def _film(config: ConvertConfig, place: Layout, record: Record, say: Callable[[str], None]) -> None:
    assert config.video is not None
    with open(config.video, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    key = fingerprint(digest.hexdigest(), config.fps)
    folder = place.half_made("input")
    there = index_images(place.input) if place.input.is_dir() else {}
    if there and record.started("film", key) and not folder.exists():
        say(f"film: taken before, {len(there)} photos kept")
        return
    if there:
        about = f"--video: {place.input} holds {len(there)} photos already"
        if not (record.started("film") and all(re.fullmatch(r"frame_\d{6}\.jpg", name) for name in there)):
            raise UserError(f"{about}, of yours. Move them away, or leave out --video.")
        if not replacing.may_replace(config, record):
            raise UserError(f"{about}, of another film or --fps. --overwrite replaces them.")
    frames = take_frames(config.video, config.fps, fresh(folder), quiet=config.quiet)
    say(
        f"film: {frames.seen} frames in {frames.seconds:.1f} s; the sharpest of every 1/{config.fps:g} s, "
        f"{frames.blurred} blurred ones dropped: {frames.kept} photos"
    )
    if frames.kept < FEWEST:
        raise UserError(
            f"--video {config.video}: {frames.kept} photos of {frames.seconds:.1f} s are too few, at least "
            f"{FEWEST} are needed: raise --fps."
        )
    record.start("film", key)  # only now: the frames are whole
    install(folder, place.input)
    record.finish("film", key)


def _reconstructed_model(
    config: ConvertConfig, place: Layout, record: Record, colmap: Colmap, say: Callable[[str], None]
) -> tuple[list[Photo], Model]:
    """The largest model that can be made of the photos, and the photos in it."""
    photos, messages = choose_photos(read_photos(place.input, quiet=config.quiet), place.input)
    for message in messages:
        say(message)
    _check_readable(photos, config, place, record)
    replacing.begin_anew(config, record)
    way = Reconstruction(place, photos, config, record, colmap, say)
    if way.done:
        say("models: done before, kept")
    else:
        if record.done("undistorted") and not replacing.may_replace(config, record):
            replacing.refuse_outputs(place, "made of other photos or with other settings")
        way.run()
    model, messages = choose_model(read_models(place.models), [photo.name for photo in photos], place.models)
    for message in messages:
        say(message)
    registered = set(model.registered)
    return [photo for photo in photos if photo.name in registered], model


def _given_model(
    config: ConvertConfig, place: Layout, record: Record, say: Callable[[str], None]
) -> tuple[list[Photo], Model]:
    """The largest model that is there, and the photos in it."""
    model, messages = choose_model(read_models(place.models), sorted(index_images(place.input)), place.models)
    photos = read_photos(place.input, model.registered, quiet=config.quiet)
    for message in [*messages, *describe(photos)]:
        say(message)
    check_sizes(model, {photo.name: photo for photo in photos})
    _check_readable(photos, config, place, record)
    replacing.begin_anew(config, record)
    return photos, model


def _check_readable(photos: list[Photo], config: ConvertConfig, place: Layout, record: Record) -> None:
    key = fingerprint([photo.sha256 for photo in photos])
    if not record.done("checked", key):
        check_readable(photos, place.input, quiet=config.quiet)
        record.finish("checked", key)


def _undistorted(
    config: ConvertConfig,
    place: Layout,
    record: Record,
    model: Model,
    photos: list[Photo],
    say: Callable[[str], None],
) -> None:
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(model.folder.glob("*.*"))]
    key = fingerprint(files, [(photo.name, photo.sha256) for photo in photos])
    made = place.half_made("undistorted")
    if record.done("undistorted", key) and _all_there(place, model):
        say("undistorted: done before, kept")
        return
    if not (record.started("installing", key) and made.is_dir()):
        other = record.done("undistorted") and not record.done("undistorted", key)
        if other and not replacing.may_replace(config, record):
            replacing.refuse_outputs(place, "made of another model")
        record.start("undistorted", key)
        undistort(model, photos, fresh(made), quiet=config.quiet)
        record.start("installing", key)
    for name, target in (("images", place.images), ("sparse", place.sparse)):
        if (made / name).exists():
            install(made / name, target)
    for factor in FACTORS:
        if record.started(f"images_{factor}"):  # of the photos that were there before
            shutil.rmtree(place.smaller(factor), ignore_errors=True)
            say(f"images_{factor} was of the earlier photos and is removed")
            record.forget(f"images_{factor}")
    record.forget("installing")
    record.finish("undistorted", key)
    shutil.rmtree(made, ignore_errors=True)


def _all_there(place: Layout, model: Model) -> bool:
    there = index_images(place.images) if place.images.is_dir() else {}
    return there.keys() >= set(model.registered) and find_colmap_model(place.source) is not None


def _smaller(
    config: ConvertConfig, place: Layout, record: Record, model: Model, say: Callable[[str], None]
) -> None:
    for factor in FACTORS:
        stage, target = f"images_{factor}", place.smaller(factor)
        if record.done(stage) and target.is_dir() and index_images(target).keys() >= set(model.registered):
            say(f"{stage}: done before, kept")
            continue
        record.start(stage, "")
        folder = fresh(place.half_made(stage))
        write_smaller(place.images, model.registered, factor, folder, quiet=config.quiet)
        install(folder, target)
        record.finish(stage, "")
