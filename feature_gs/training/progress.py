"""What a running training shows: one line on the terminal, curves in TensorBoard."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

_COLUMNS = 80
_TERMINAL_SECONDS = 0.2
_LOG_FILE_SECONDS = 30.0


class Progress:
    """A progress bar with loss, PSNR, Gaussians, steps per second and time left, in 80 columns.

    Args:
        first: Iterations done before (a resumed run).
        last: Iteration at which the run ends.
        quiet: Show nothing.
    """

    def __init__(self, first: int, last: int, quiet: bool) -> None:
        self.quiet = quiet
        self._bar = tqdm(
            total=last,
            initial=first,
            disable=quiet,
            ncols=_COLUMNS,
            file=sys.stderr,
            mininterval=_TERMINAL_SECONDS if sys.stderr.isatty() else _LOG_FILE_SECONDS,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix} {rate_fmt} {remaining}",
            unit="it",
        )

    def advance(self, steps: int, loss: float, psnr: float, gaussians: int) -> None:
        """Shows the state after `steps` more iterations."""
        if not self.quiet:
            text = f"loss {loss:.4f} {psnr:.2f} dB {short_count(gaussians)} Gs"
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(steps)

    def say(self, message: str) -> None:
        """Prints a line above the bar, unless quiet."""
        if not self.quiet:
            tqdm.write(message, file=sys.stderr)

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
    """A count in at most 5 characters: 950, 12.3k, 1.25M."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 999_950 else f"{count / 1e6:.2f}M"
