"""Adam over Gaussians whose number changes: parameters and their moments are cut and grown together."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from feature_gs.gaussians import GaussianModel

_MOMENTS = ("exp_avg", "exp_avg_sq")


class GaussianOptimizer:
    """One Adam group per parameter of a model, with a learning rate of its own.

    Args:
        model: The Gaussians. The optimiser replaces their parameters when rows come and go.
        rates: Learning rate by parameter name; a parameter without one is not trained.
        blocked: One number on the model's device; steps do nothing while it is 1.
    """

    def __init__(
        self, model: GaussianModel, rates: Mapping[str, float], blocked: Tensor | None = None
    ) -> None:
        self.model = model
        self.blocked = blocked
        groups = [
            {"params": [parameter], "lr": rates[name], "name": name}
            for name, parameter in model.named_parameters()
            if name in rates
        ]
        self.adam = torch.optim.Adam(groups, eps=1e-15, fused=True)
        block(self.adam, blocked)

    def step(self) -> None:
        """Moves the parameters along their gradients, then forgets the gradients."""
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def set_rate(self, name: str, rate: float) -> None:
        """Sets the learning rate of one parameter."""
        self._group(name)["lr"] = rate

    def rate(self, name: str) -> float:
        """The learning rate of one parameter."""
        return float(self._group(name)["lr"])

    def moments(self, name: str) -> dict[str, Tensor]:
        """Adam's running means of one parameter (`exp_avg`, `exp_avg_sq`), empty before its first step."""
        state = self.adam.state.get(self._group(name)["params"][0], {})
        return {key: state[key] for key in _MOMENTS if key in state}

    def restructure(self, kept: Tensor, added: Mapping[str, Tensor] | None = None) -> None:
        """Keeps some Gaussians with their moments and appends new ones, whose moments are zero.

        Parameters that Adam does not train go along.

        Args:
            kept: Rows that stay, in their new order. [M] int64
            added: Rows to append by parameter name, [A, ...] each; all parameters of the model or none.
        """
        groups = {group["name"]: group for group in self.adam.param_groups}
        for name, old in list(self.model.named_parameters()):
            rows = None if added is None else added[name]
            new = nn.Parameter(_regrouped(old.detach(), kept, rows), requires_grad=old.requires_grad)
            setattr(self.model, name, new)
            if name not in groups:
                continue
            groups[name]["params"][0] = new
            self.adam.state[new] = state = self.adam.state.pop(old, {})
            for key in _MOMENTS:
                if key in state:
                    zeros = None if rows is None else torch.zeros_like(rows)
                    state[key] = _regrouped(state[key], kept, zeros)

    @torch.no_grad()
    def overwrite(self, name: str, values: Tensor, rows: Tensor | None = None) -> None:
        """Sets a parameter, or some rows of it, in place and zeroes the moments there.

        Args:
            name: The parameter.
            values: New values, shaped as the parameter or its rows.
            rows: Rows to set; None sets all. [M] int64
        """
        trained = any(group["name"] == name for group in self.adam.param_groups)
        moments = self.moments(name) if trained else {}
        targets = [(getattr(self.model, name), values), *((moment, None) for moment in moments.values())]
        for tensor, new in targets:
            if rows is None:
                tensor.copy_(new) if new is not None else tensor.zero_()
            else:
                tensor[rows] = new if new is not None else 0.0

    def raise_sh_degree(self) -> bool:
        """Adds the model's next SH band, whose moments start at zero; False when there is none left."""
        group = self._group("sh_rest")
        old = group["params"][0]
        if not self.model.raise_sh_degree():
            return False
        new = self.model.sh_rest
        group["params"][0] = new
        state = self.adam.state.pop(old, {})
        for key in _MOMENTS:
            if key in state:
                grown = torch.zeros_like(new)
                grown[:, : old.shape[1]] = state[key]
                state[key] = grown
        if old.shape[1] and state:
            self.adam.state[new] = state
        return True

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Adam's state by parameter name: `exp_avg`, `exp_avg_sq`, `step`."""
        return {
            group["name"]: dict(self.adam.state.get(group["params"][0], {}))
            for group in self.adam.param_groups
        }

    def load_state_dict(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes up the state of another optimiser over a model of the same shapes.

        Raises:
            ValueError: A moment does not have its parameter's shape.
        """
        for group in self.adam.param_groups:
            parameter = group["params"][0]
            state = {
                key: tensor.to(parameter.device) for key, tensor in states.get(group["name"], {}).items()
            }
            for key in _MOMENTS:
                if key in state and state[key].shape != parameter.shape:
                    shapes = f"{list(parameter.shape)}, got {list(state[key].shape)}"
                    raise ValueError(f"{key} of {group['name']} must be {shapes}")
            if state:
                self.adam.state[parameter] = state

    def _group(self, name: str) -> dict[str, Any]:
        for group in self.adam.param_groups:
            if group["name"] == name:
                return group
        raise KeyError(f"{name} is not trained")


def block(adam: torch.optim.Adam, blocked: Tensor | None) -> None:
    """Lets a fused Adam do nothing while `blocked`, a number on its device, is 1."""
    if blocked is not None:
        adam.found_inf = blocked  # type: ignore[attr-defined]  # what torch's GradScaler sets


def _regrouped(values: Tensor, kept: Tensor, added: Tensor | None) -> Tensor:
    rows = values.index_select(0, kept)
    return rows if added is None else torch.cat([rows, added])
