"""From checked photos to models: features, matches, mapping; each taken up where it was left."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from feature_gs.errors import UserError
from feature_gs.scenes.conversion import database
from feature_gs.scenes.conversion.colmap_process import Colmap, Command, placed, run
from feature_gs.scenes.conversion.folders import fresh, install
from feature_gs.scenes.conversion.layout import Layout
from feature_gs.scenes.conversion.models import model_folders
from feature_gs.scenes.conversion.photos import Photo, same_camera
from feature_gs.scenes.conversion.record import Record, fingerprint
from feature_gs.scenes.conversion.settings import ConvertConfig
from feature_gs.scenes.source import some_of

MANY = 400  # photos, from which on comparing all with all takes very long


@dataclass
class Reconstruction:
    """One scene's way from photos to models.

    Attributes:
        place: The scene's folder.
        photos: The photos, checked.
        config: The flags.
        record: What is done.
        colmap: What does it.
        say: Takes the messages.
    """

    place: Layout
    photos: list[Photo]
    config: ConvertConfig
    record: Record
    colmap: Colmap
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        tree = self.config.vocab_tree
        self.features_key = fingerprint([(p.name, p.sha256) for p in self.photos], self.config.camera)
        self.matches_key = fingerprint(self.features_key, self.config.matcher, tree and tree.stat().st_size)

    @property
    def done(self) -> bool:
        """Whether the models of these photos and settings are there."""
        return self.record.done("models", self.matches_key) and bool(model_folders(self.place.models))

    def run(self) -> None:
        """Makes the models, or as much of them as is missing.

        Raises:
            UserError: COLMAP failed, or the photos have too little in common.
        """
        self._open_database()
        if self.record.done("features", self.features_key):
            self.say("features: done before, kept")
        else:
            self._features()
        if self.record.done("matches", self.matches_key):
            self.say("matches: done before, kept")
        else:
            self._matches()
        self._models()

    def _open_database(self) -> None:
        """Removes a database that is damaged or of other photos."""
        path = self.place.database
        if self.record.started("features", self.features_key) and path.is_file():
            if database.is_whole(path):
                return
            self.say(f"{path} is damaged and made anew")
        elif self.record.started("features") and path.is_file():
            self.say("other photos or another --camera than before: features are made anew")
        database.remove(path)
        self.record.forget("matches")
        self.record.start("features", self.features_key)

    def _features(self) -> None:
        for group in same_camera(self.photos):
            self._extract(group)
        finished = database.finished_photos(self.place.database)
        lost = [photo.name for photo in self.photos if self._name_on_disk(photo) not in finished]
        if lost:
            self.say(
                f"{len(lost)} of {len(self.photos)} photos without features, black perhaps: {some_of(lost)}"
            )
        self.record.finish("features", self.features_key)

    def _extract(self, group: list[Photo]) -> None:
        """Finds the features of photos that share a calibration, those that are not in the database yet."""
        path, finished = self.place.database, database.finished_photos(self.place.database)
        names = [self._name_on_disk(photo) for photo in group]
        camera = next((finished[name] for name in names if name in finished), None)
        todo = [name for name in names if name not in finished]
        if todo:
            command = self.colmap.extract(path, self.place.input, todo, self.config.camera, camera)
            with database.opened_beside(path) as count:
                self._run(command, lambda _: count(database.PHOTOS), "features", len(self.photos), "photo")

    def _name_on_disk(self, photo: Photo) -> str:
        return photo.path.relative_to(self.place.input).as_posix()

    def _matches(self) -> None:
        path, photos = self.place.database, len(self.photos)
        exhaustive = self.config.matcher == "exhaustive"
        pairs = photos * (photos - 1) // 2
        if exhaustive and photos > MANY:
            self.say(
                f"{pairs:,} pairs of photos to compare. If the photos are in order, as from a film, "
                "--matcher sequential is far quicker (Ctrl-C, then the same command with it)."
            )
        self.record.start("matches", self.matches_key)
        command = self.colmap.match(path, self.config.matcher, self.config.vocab_tree)
        with database.opened_beside(path) as count:
            total = pairs if exhaustive else None
            self._run(command, lambda _: count(database.PAIRS), "matching", total, "pair")
        self.record.finish("matches", self.matches_key)

    def _models(self) -> None:
        features, pairs = database.features_and_matches(self.place.database)
        median = statistics.median(features) if features else 0
        about = f"{median:.0f} features in a photo (median), {pairs} pairs that match"
        if pairs == 0:
            raise UserError(f"no two photos show enough of the same things: {about}. {_ADVICE}")
        self.record.start("models", self.matches_key)
        output = fresh(self.place.half_made("sparse"))
        command = self.colmap.map(self.place.database, self.place.input, output)
        self._run(command, placed, "mapping", len(self.photos), "photo")
        if not model_folders(output):
            raise UserError(f"no camera could be placed: {about}. {_ADVICE}")
        install(output, self.place.models)
        self.record.finish("models", self.matches_key)

    def _run(
        self, command: Command, count: Callable[[str], int], what: str, total: int | None, unit: str
    ) -> None:
        log = self.place.log / f"{what}.log"
        with tqdm(None, what, total, unit=unit, ncols=80, disable=self.config.quiet) as bar:
            run(command, what, log, count, bar)


_ADVICE = (
    "Neighbouring photos should share two thirds of what they show, be sharp, and be taken from different "
    "places: walk, do not turn on the spot. Bare walls, glass and mirrors have nothing to hold on to."
)
