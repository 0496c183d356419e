"""What a running training shows: one line on the terminal, curves in TensorBoard."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

_COLUMNS = 80
_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Loss, PSNR, Gaussians, steps per second and time left: a bar on a terminal, lines in a log file.

    Args:
        first: Iterations done before (a resumed run).
        last: Iteration at which the run ends.
        quiet: Show nothing.
    """

    def __init__(self, first: int, last: int, quiet: bool) -> None:
        self.quiet = quiet
        self._in_log = not sys.stderr.isatty()
        self._first, self._last, self._done = first, last, first
        self._started = self._said = time.monotonic()
        self._bar = tqdm(
            total=last,
            initial=first,
            disable=quiet or self._in_log,
            ncols=_COLUMNS,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix} {rate_fmt} {remaining}",
            unit="it",
        )

    def advance(self, steps: int, loss: float, psnr: float, gaussians: int) -> None:
        """Shows the state after `steps` more iterations."""
        if self.quiet:
            return
        self._done += steps
        state = f"loss {loss:.4f} {psnr:.2f} dB {short_count(gaussians)} Gs"
        if not self._in_log:
            self._bar.set_postfix_str(state, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            rate = (self._done - self._first) / (time.monotonic() - self._started)
            left = tqdm.format_interval((self._last - self._done) / rate)
            self.say(f"{self._done}/{self._last} {state} {rate:.1f}it/s {left}")

    def say(self, message: str) -> None:
        """Prints a line, on a terminal above the bar; unless quiet."""
        self._said = time.monotonic()
        if not self.quiet:
            self._bar.write(message, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


class Curves:
    """Scalars for TensorBoard in `events.*` files of the model folder; none if it is not installed.

    Args:
        folder: The model folder.
    """

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder))

    def add(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Adds one point to each named curve."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Writes what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def short_count(count: int) -> str:
    """A count with three or four digits: 950, 12.3k, 999.9k, 1.25M."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 999_950 else f"{count / 1e6:.2f}M"
