"""SAM's prompt encoder and mask decoder as an ONNX file: written by PyTorch, run by onnxruntime."""

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_gs.encoders.sam_weights import CELLS, CHANNELS, SIDE
from feature_gs.encoders.timm_import import import_with_torchvision
from feature_gs.errors import UserError
from feature_gs.files import atomic_write
from feature_gs.queries.sam_frame import MASK_SIDE
from feature_gs.queries.sam_network import SamNetwork

# Names and order of segment_anything's own export, which other tools read as well.
_INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
_OUTPUTS = ("masks", "iou_predictions", "low_res_masks")
_OPSET = 17

_NO_POINT = -1  # label of the point that stands for "there is no box"
_BOX = (2, 3)  # labels of a box's corners


def export_onnx(network: SamNetwork, path: Path) -> None:
    """Writes a decoder in the format of segment_anything's own export, four masks per prompt.

    Args:
        network: The decoder.
        path: The file; it appears whole or not at all.

    Raises:
        UserError: The package onnx is missing.
    """
    _need("onnx")
    onnx_module: Any = import_with_torchvision("segment_anything.utils.onnx")
    model = onnx_module.SamOnnxModel(network.sam, return_single_mask=False)
    example = (
        torch.zeros(1, CHANNELS, CELLS, CELLS),
        torch.zeros(2, 3, 2),
        torch.ones(2, 3),
        torch.zeros(1, 1, MASK_SIDE, MASK_SIDE),
        torch.ones(1),
        torch.tensor([SIDE / 2, SIDE]),
    )
    prompts = {0: "prompts", 1: "points"}
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # Of constants that are meant, and of the exporter's age: the newer one needs a further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            example,
            str(temporary),
            input_names=list(_INPUTS),
            output_names=list(_OUTPUTS),
            opset_version=_OPSET,
            dynamic_axes={"point_coords": prompts, "point_labels": prompts},
            dynamo=False,
        )


class OnnxNetwork:
    """The same call as `SamNetwork`, by onnxruntime.

    Attributes:
        prompts: How many prompts are best asked at a time.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file of `export_onnx` or of segment_anything's own export.

        Raises:
            UserError: onnxruntime is missing, or the file is no such file.
        """
        _need("onnxruntime")
        import onnxruntime

        if not path.is_file():
            raise UserError(
                f"--onnx_path: there is no file {path}.\n  Make it: feature-gs export-sam-decoder -o {path}"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # of onnxruntime's own kinds
            raise UserError(f"--onnx_path: cannot read {path}: {str(error).splitlines()[0]}") from error
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        outputs = [entry.name for entry in self._session.get_outputs()]
        if not set(_INPUTS[:5]) <= set(inputs) or not set(_OUTPUTS[1:]) <= set(outputs):
            raise UserError(
                f"--onnx_path: {path} is no SAM decoder: expected the inputs {', '.join(_INPUTS)} and the "
                f"outputs {', '.join(_OUTPUTS)}, got {', '.join(inputs)} and {', '.join(outputs)}."
            )
        self._path = path
        self._sized = _INPUTS[5] in inputs
        self.prompts = 4 if isinstance(inputs["point_coords"][0], str) else 1  # a number: made for so many

    def __call__(
        self,
        embedding: Tensor,  # [1, 256, 64, 64]
        points: Tensor | None,  # [B, n, 2]
        labels: Tensor | None,  # [B, n]
        boxes: Tensor | None,  # [B, 4]
        masks: Tensor | None,  # [1, 1, 256, 256]
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """See `SamNetwork`; on the CPU, and with one mask for all prompts.

        Raises:
            UserError: Several masks are asked of a file that gives one.
        """
        places, kinds = _tokens(points, labels, boxes)
        scores, logits = self._run(embedding, places, kinds, masks)
        if logits.shape[1] == 1:
            if multimask:
                raise UserError(
                    f"{self._path} gives one mask per prompt, several are asked for. Make another file with "
                    "`feature-gs export-sam-decoder`."
                )
            return logits, scores
        chosen = slice(1, None) if multimask else slice(0, 1)
        return logits[:, chosen], scores[:, chosen]

    def _run(self, embedding: Tensor, places: Tensor, kinds: Tensor, masks: Tensor | None) -> list[Tensor]:
        """Scores [B, 4] and logits [B, 4, 256, 256]."""
        given = torch.zeros(1, 1, MASK_SIDE, MASK_SIDE) if masks is None else masks
        values = [embedding, places, kinds, given, torch.tensor([float(masks is not None)])]
        if self._sized:
            values.append(torch.tensor([1.0, 1.0]))  # the smallest picture: its masks are not used
        feeds = {name: value.float().cpu().numpy() for name, value in zip(_INPUTS, values, strict=False)}
        return [torch.from_numpy(value) for value in self._session.run(list(_OUTPUTS[1:]), feeds)]


def _tokens(
    points: Tensor | None, labels: Tensor | None, boxes: Tensor | None
) -> tuple[Tensor, Tensor]:  # [B, m, 2], [B, m]
    """Points and corners of boxes in one list, with the labels that tell SAM what each is."""
    places, kinds = [], []
    if points is not None and labels is not None:
        places.append(points.float())
        kinds.append(labels.float())
    if boxes is not None:
        places.append(boxes.reshape(-1, 2, 2).float())
        kinds.append(torch.tensor(_BOX).float().expand(len(boxes), 2))
    elif places:
        places.append(torch.zeros(len(places[0]), 1, 2))
        kinds.append(torch.full((len(places[0]), 1), float(_NO_POINT)))
    if not places:
        return torch.zeros(1, 0, 2), torch.zeros(1, 0)
    return torch.cat(places, dim=1), torch.cat(kinds, dim=1)


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this needs the package {package}: pip install 'feature-gs[onnx]'")
