"""Writing files so that a killed process leaves the previous file whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    If the body raises (a full disk, Ctrl-C), the temporary file is removed and `path` stays as it was.
    A process killed in between leaves `path` as it was and a `*.tmp` file, which the next write replaces.

    Args:
        path: The file to be written. Its folder is created when missing.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors makes files that only their owner reads
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        with suppress(OSError):  # of a folder that cannot be written to; the error is the first one
            temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it
    os.umask(mask)
    return mask
