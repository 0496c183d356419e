"""Weights of networks: found, downloaded once, read safely."""

import hashlib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from feature_gs.errors import UserError

_HUB_FILE = "model.safetensors"
_SHOWN = 3  # names of tensors in a message
_PATIENCE = 10  # seconds for the hub's first answer


@dataclass(frozen=True)
class Published:
    """Weights of a network that is not of timm, in the words of timm's `PretrainedCfg`.

    Attributes:
        url: A page to download them from by hand, or "" where the hub has them.
        file: Their file's name in `hub_folder()`.
        license: Their licence.
        mean: What is subtracted from colours in [0, 1].
        std: What they are then divided by.
        hf_hub_id: Repository of the Hugging Face hub, or None.
        hf_hub_filename: File in it.
        older_filename: What the file was called before, in repositories that were not changed since.
    """

    url: str
    file: str
    license: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    hf_hub_id: str | None = None
    hf_hub_filename: str | None = None
    older_filename: str | None = None


def find_weights(name: str, config: Any, weights: Path | None) -> Path:
    """The file of weights of a network, downloaded when it is nowhere on this machine.

    Looked for in this order: `weights`; torch's hub folder, under timm's name or the original's; the cache of
    the Hugging Face hub; the hub itself.

    Args:
        name: The encoder, for messages.
        config: timm's `PretrainedCfg` of the model, or `Published`.
        weights: The user's own file, or None.

    Raises:
        UserError: The file is missing and cannot be had; says URL and folder.
    """
    if weights is not None:
        if not weights.is_file():
            raise UserError(f"--weights: there is no file {weights} for {name}.\n  {how_to_get(config)}")
        return weights
    folder = hub_folder()
    for file in filter(None, [local_name(config), str(config.url or "").rpartition("/")[2]]):
        if (folder / file).is_file():
            return folder / file
    return _from_hub(name, config)


def hub_folder() -> Path:
    """Where weights may be put by hand: torch's hub folder."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def local_name(config: Any) -> str:
    """What a model's weights are called in `hub_folder()`."""
    if config.file:
        return str(config.file)
    tag = f".{config.tag}" if config.tag else ""
    return f"{config.architecture}{tag}.safetensors"


def weights_url(config: Any) -> str:
    """Where a model's weights are, or nothing where timm knows none."""
    if not config.hf_hub_id:
        return str(config.url or "")
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or _HUB_FILE}"


def how_to_get(config: Any) -> str:
    """What to download and where to put it."""
    url = weights_url(config)
    if not url:
        return "timm knows no weights of this model: name a file with --weights."
    file = local_name(config) if config.hf_hub_id or config.file else url.rpartition("/")[2]
    return f"Download\n    {url}\n  to\n    {hub_folder() / file}\n  or name the file with --weights."


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors of a .safetensors file, or of a .pth file that holds nothing but data.

    They are read from the disk when they are used, except those of a .pth in torch's old format.

    Raises:
        UserError: The file is damaged, or holds Python objects, which could run code when loaded.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # of several libraries, all meaning the same
        raise UserError(
            f"cannot read the weights {path}: {type(error).__name__}: {str(error).partition(chr(10))[0]}\n"
            "  Expected .safetensors, or a .pth with tensors only. Is the file only partly copied?"
        ) from error
    if not isinstance(state, Mapping):
        raise UserError(f"the weights {path} hold a {type(state).__name__}; expected a state dict.")
    return dict(state)


def fit_weights(model: torch.nn.Module, state: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Loads a state dict that must hold all of the model, and no further blocks; a classifier is left out.

    Raises:
        UserError: The weights are of another model.
    """
    try:
        result = model.load_state_dict(state, strict=False)
    except Exception as error:  # shapes, or values that are no tensors
        raise UserError(
            f"the weights {path} do not fit {name}: {str(error).rpartition(chr(10))[2].strip()}"
        ) from error
    wrong = [f"lack {key}" for key in result.missing_keys]
    wrong += [f"have {key} besides" for key in result.unexpected_keys if key.startswith("blocks.")]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"the weights {path} are not those of {name}: they {wrong[0]}{more}.")


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], ignored: tuple[str, ...]) -> str:
    """What keeps a state dict from filling a network, for people: nothing, or a line per kind of fault.

    Args:
        wanted: Every tensor of the network, under the file's name for it.
        state: The file's tensors.
        ignored: How names of tensors begin that the file may hold besides.

    Returns:
        Counts and first names of what is missing, of another shape, and unknown. "" where nothing is.
    """
    lacking = [name for name in wanted if name not in state]
    misshapen = [
        f"{name} {list(state[name].shape)} instead of {list(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    unknown = [name for name in state if name not in wanted and not name.startswith(ignored)]
    kinds = (("missing", lacking), ("of another shape", misshapen), ("unknown", unknown))
    return "\n".join(
        f"  {len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in kinds
        if names
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _from_hub(name: str, config: Any) -> Path:
    if not config.hf_hub_id:
        raise UserError(f"{name} needs weights that are not on this machine.\n  {how_to_get(config)}")
    import huggingface_hub

    file = config.hf_hub_filename or _HUB_FILE
    older = getattr(config, "older_filename", None)
    for known in filter(None, (file, older)):
        cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, known)
        if isinstance(cached, str):
            return Path(cached)
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            _knock(
                weights_url(config)
            )  # the hub's own client tries for half a minute where there is no network
        try:
            return Path(huggingface_hub.hf_hub_download(config.hf_hub_id, file))
        except huggingface_hub.errors.EntryNotFoundError:
            if older is None:
                raise
            return Path(huggingface_hub.hf_hub_download(config.hf_hub_id, older))
    except Exception as error:  # of the network, the hub or the disk
        raise UserError(
            f"{name} needs weights that are neither on this machine nor to be downloaded: {error}\n"
            f"  {how_to_get(config)}"
        ) from error


def _knock(url: str) -> None:
    """Raises at once when nobody answers at `url`; any answer will do."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE).close()
    except urllib.error.HTTPError:
        return
