"""Weights of networks: found, downloaded once, read safely."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from feature_gs.errors import UserError

_HUB_FILE = "model.safetensors"
_PATIENCE = 10  # seconds for the hub's first answer


def find_weights(name: str, config: Any, weights: Path | None) -> Path:
    """The file of weights of a model of timm, downloaded when it is nowhere on this machine.

    Looked for in this order: `weights`; torch's hub folder, under timm's name or the original's; the cache of
    the Hugging Face hub; the hub itself.

    Args:
        name: The encoder, for messages.
        config: timm's `PretrainedCfg` of the model.
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
    file = local_name(config) if config.hf_hub_id else url.rpartition("/")[2]
    return f"Download\n    {url}\n  to\n    {hub_folder() / file}\n  or name the file with --weights."


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors of a .safetensors file, or of a .pth file that holds nothing but data.

    Raises:
        UserError: The file is damaged, or holds Python objects, which could run code when loaded.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of several libraries, all meaning the same
        raise UserError(
            f"cannot read the weights {path}: {type(error).__name__}: {str(error).splitlines()[0]}\n"
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
            f"the weights {path} do not fit {name}: {str(error).splitlines()[-1].strip()}"
        ) from error
    wrong = [f"lack {key}" for key in result.missing_keys]
    wrong += [f"have {key} besides" for key in result.unexpected_keys if key.startswith("blocks.")]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"the weights {path} are not those of {name}: they {wrong[0]}{more}.")


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
    cached = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            _knock(
                weights_url(config)
            )  # the hub's own client tries for half a minute where there is no network
        return Path(huggingface_hub.hf_hub_download(config.hf_hub_id, file))
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
