"""The public LSeg checkpoint: which of its tensors go where, and which are left out.

Names on the left of `_NAMES` are those of the file, names on the right those of `encoders.lseg.Network`.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from feature_gs.encoders.weights import misfits
from feature_gs.errors import UserError

TEXT = "net.clip_pretrained."  # CLIP ViT-B/32, frozen in training

_NAMES = [
    ("net.pretrained.model.", "vit."),
    *(
        (f"net.pretrained.act_postprocess{level + 1}.{theirs}.", f"dpt.reassemble.{level}.{ours}.")
        for level in range(4)
        for theirs, ours in (("0.project.0", "readout"), ("3", "project"), ("4", "resample"))
    ),
    *((f"net.scratch.layer{level + 1}_rn.", f"dpt.narrow.{level}.") for level in range(4)),
    *(
        (f"net.scratch.refinenet{level + 1}.{theirs}.", f"dpt.fuse.{level}.{ours}.")
        for level in range(4)
        for theirs, ours in (("resConfUnit1", "skip"), ("resConfUnit2", "unit"), ("out_conv", "out"))
    ),
    ("net.scratch.head1.", "dpt.head."),
]

UNUSED = (
    "net.pretrained.model.norm.",  # the map is made of tokens from before the ViT's last normalisation
    "net.pretrained.model.head.",  # the ViT's classes of ImageNet
    "net.scratch.refinenet4.resConfUnit1.",  # the coarsest level has nothing to be added to
)


def load_network(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Puts a checkpoint's tensors into the network, as float32.

    Args:
        network: A network of `encoders.lseg`; its tensors are replaced, so it may be on the device "meta".
        state: The checkpoint's state dict.
        path: The file, for messages.

    Raises:
        UserError: A tensor is missing, of another shape, or has a name that is neither used nor known to be
            unused; says how many and which.
    """
    names = {public_name(name): name for name in network.state_dict()}
    wanted = {name: network.state_dict()[ours] for name, ours in names.items()}
    faults = misfits(wanted, state, (*UNUSED, TEXT))
    if faults:
        raise UserError(
            f"{path} is not the LSeg checkpoint that lseg reads (demo_e200.ckpt, backbone clip_vitl16_384). "
            f"Of its tensors are\n{faults}"
        )
    tensors = {ours: state[name] for name, ours in names.items()}
    network.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()},
        assign=True,
    )


def public_name(name: str) -> str:
    """What the checkpoint calls a tensor of the network."""
    for theirs, ours in _NAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)
