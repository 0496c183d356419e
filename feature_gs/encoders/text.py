"""Words in the space of a teacher's features, so that a scene can be asked for them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from feature_gs.encoders import weights as weights_file
from feature_gs.encoders.options import split_spec
from feature_gs.encoders.registry import own_class
from feature_gs.errors import UserError
from feature_gs.files import atomic_write

_PLACE = "{}"  # where a template takes the text


def has_text(spec: str) -> bool:
    """Whether words can be compared with the features of that teacher.

    Args:
        spec: As for `load_encoder`. A folder of maps, or a name that is no encoder, has no words.

    Returns:
        True for lseg, maskclip, and classes of one's own with `encode_words`. Only those are imported.

    Raises:
        UserError: A class of one's own cannot be imported.
    """
    name = spec.partition("?")[0]
    return name in _WITH_CLIP or getattr(own_class(name), "encode_words", None) is not None


def encode_text(
    texts: Sequence[str],
    spec: str,
    *,
    weights: Path | None = None,
    templates: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:  # [n, C]
    """Words as unit vectors in the space of a teacher's features.

    Results of lseg and maskclip are kept in a folder beside torch's hub (`words_folder()`), so the network is
    only loaded for words that are new. Delete the folder at any time.

    Args:
        texts: Words or sentences, such as "a chair".
        spec: The teacher, as for `load_encoder`. Of its options only those that choose the text tower count.
        weights: File of weights, as given to the teacher; None takes the teacher's own.
        templates: Sentences with {} where a text goes, such as "a photo of a {}.". Each text is put into all
            of them; its vector is the direction of the mean of their unit vectors. None: the text alone.
        device: Where to compute.

    Returns:
        One unit vector per text, on the CPU. [n, C] float32. No gradient.

    Raises:
        UserError: The teacher has no words, a text is empty or too long, a template has no {}, or the
            weights are missing or wrong.
    """
    templates = tuple(templates or (_PLACE,))
    _check(texts, templates)
    name, options = split_spec(spec)
    if name in _WITH_CLIP:
        return _encode_with_clip(texts, templates, name, options, weights, device)
    words = getattr(own_class(name), "encode_words", None)
    if words is None:
        raise UserError(
            f"{name} knows no words. Teachers with words: {', '.join(_WITH_CLIP)}, and classes of your own "
            "with encode_words (docs/teachers.md)."
        )
    filled = [template.replace(_PLACE, text) for text in texts for template in templates]
    vectors = words(filled, weights, device)
    shape = tuple(getattr(vectors, "shape", ()))
    if len(shape) != 2 or shape[0] != len(filled) or not bool(vectors.isfinite().all()):
        raise UserError(
            f"encode_words of {name} must give [{len(filled)}, C] finite numbers for {len(filled)} texts, "
            f"got {list(shape) or type(vectors).__name__}."
        )
    unknown = [text for text, vector in zip(filled, vectors, strict=True) if not bool(vector.any())]
    if unknown:
        raise UserError(f"{name} knows no word of {unknown[0]!r}: its encode_words gave zeros.")
    return _mean_direction(vectors.detach().cpu().float(), len(templates))


def ADE20K_LABELS() -> list[str]:  # noqa: N802  a constant, read when asked for
    """The 150 names of ADE20K's scene parsing benchmark, in its order, "wall" first."""
    text = resources.files("feature_gs.encoders").joinpath("data/ade20k_150.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def words_folder() -> Path:
    """Where vectors of words are kept."""
    return Path(torch.hub.get_dir()).parent / "feature_gs" / "words"


def _encode_with_clip(
    texts: Sequence[str],
    templates: tuple[str, ...],
    name: str,
    options: Mapping[str, Any],
    weights: Path | None,
    device: torch.device | str,
) -> Tensor:  # [n, C]
    path, quick_gelu = _WITH_CLIP[name](options, weights)
    about = path.stat()
    identity = [str(path.resolve()), about.st_size, about.st_mtime_ns, quick_gelu, templates]
    kept = {text: words_folder() / f"{_digest([identity, text])}.safetensors" for text in texts}
    found = {text: vector for text, file in kept.items() if (vector := _read_kept(file)) is not None}
    new = [text for text in kept if text not in found]
    if new:
        from feature_gs.encoders.clip_text import encode_clip

        filled = [template.replace(_PLACE, text) for text in new for template in templates]
        vectors = _mean_direction(encode_clip(filled, path, quick_gelu, device), len(templates))
        for text, vector in zip(new, vectors, strict=True):
            found[text] = vector
            _keep(kept[text], vector)
    return torch.stack([found[text] for text in texts])


def _lseg_tower(options: Mapping[str, Any], weights: Path | None) -> tuple[Path, bool]:
    """LSeg's file where it is at hand, else the CLIP whose text tower it holds unchanged."""
    from feature_gs.encoders.clip_weights import VIT_B_32
    from feature_gs.encoders.lseg import CHECKPOINT

    own = weights_file.hub_folder() / CHECKPOINT.file
    config = CHECKPOINT if weights is not None or own.is_file() else VIT_B_32.weights
    return weights_file.find_weights("lseg", config, weights), VIT_B_32.quick_gelu


def _maskclip_tower(options: Mapping[str, Any], weights: Path | None) -> tuple[Path, bool]:
    from feature_gs.encoders.clip_weights import VIT_B_16
    from feature_gs.encoders.maskclip import MaskClip
    from feature_gs.encoders.options import read_options

    clip = VIT_B_16[read_options("maskclip", options, MaskClip.known_options)["pretrained"]]
    return weights_file.find_weights("maskclip", clip.weights, weights), clip.quick_gelu


_WITH_CLIP = {"lseg": _lseg_tower, "maskclip": _maskclip_tower}


def _check(texts: Sequence[str], templates: Sequence[str]) -> None:
    if isinstance(texts, str) or not texts or not all(text.strip() for text in texts):
        raise UserError(f"expected words to look for, none of them empty, got {texts!r}.")
    for template in templates:
        if _PLACE not in template:
            raise UserError(
                f'the template {template!r} has no {_PLACE} where the text goes: "a photo of a {_PLACE}."'
            )


def _mean_direction(vectors: Tensor, group: int) -> Tensor:  # [n * group, C] -> [n, C]
    unit = functional.normalize(vectors, dim=-1)
    return functional.normalize(unit.unflatten(0, (-1, group)).mean(1), dim=-1)


def _digest(key: Any) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()


def _read_kept(path: Path) -> Tensor | None:  # [C]
    try:
        vector = safetensors.torch.load_file(path)["vector"]
        return vector if vector.ndim == 1 else None
    except Exception:  # not there, or damaged: made again
        return None


def _keep(path: Path, vector: Tensor) -> None:
    try:
        with atomic_write(path) as temporary:
            safetensors.torch.save_file({"vector": vector.contiguous()}, temporary)
    except OSError:  # a folder that cannot be written to only costs time
        pass
