"""What a COLMAP database holds.

Asked through SQLite, because COLMAP's own library would first bring an older program's file up to date.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

PHOTOS, PAIRS = "descriptors", "two_view_geometries"  # tables with one row for each


@contextmanager
def opened_beside(database: Path) -> Iterator[Callable[[str], int]]:
    """Counts the rows of a table, again and again, while COLMAP writes to the database.

    COLMAP dies when it finds its database locked. Opening one locks it for a moment; reading, in the mode set
    here, does not. So the database is opened once, before COLMAP opens it, and closed after it.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")

        def count(table: str) -> int:
            try:
                return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])
            except sqlite3.Error:  # there is no such table yet
                return 0

        yield count


def is_whole(database: Path) -> bool:
    """Whether SQLite finds the file sound; a machine that lost power may leave one that is not."""
    return _ask(database, "PRAGMA quick_check") == [("ok",)]


def finished_photos(database: Path) -> dict[str, int]:
    """Camera ids, by name on disk, of the photos whose features are in the database."""
    query = (
        "SELECT name, camera_id FROM images JOIN descriptors USING (image_id) JOIN keypoints USING (image_id)"
    )
    return dict(_ask(database, query))


def features_and_matches(database: Path) -> tuple[list[int], int]:
    """Number of features of each photo, and number of pairs of photos that see the same things."""
    features = [int(rows) for (rows,) in _ask(database, "SELECT rows FROM keypoints")]
    pairs = _ask(database, f"SELECT COUNT(*) FROM {PAIRS} WHERE rows > 0")
    return features, int(pairs[0][0]) if pairs else 0


def remove(database: Path) -> None:
    """Removes a database with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _ask(database: Path, query: str) -> list[Any]:
    """The rows; none where the file is missing, damaged or without the table. Not while COLMAP runs."""
    if not database.is_file():
        return []
    try:
        with closing(
            sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as connection:
            rows: Iterable[Any] = connection.execute(query)
            return list(rows)
    except sqlite3.Error:
        return []
