"""When things happen during a training run of a given length."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Iterations at which the recipe acts. The names are those of the command line.

    Attributes:
        position_lr_max_steps: The learning rate of the positions reaches its final value here.
        sh_interval: The SH degree grows by one every so many iterations.
        densify_from_iter: Gaussians are added and removed after this iteration,
        densify_until_iter: up to this one,
        densification_interval: every so many iterations.
        opacity_reset_interval: Opacities are lowered every so many iterations, but only while at least one
            more interval of densification follows. Large Gaussians are removed after the first one.
    """

    position_lr_max_steps: int
    sh_interval: int
    densify_from_iter: int
    densify_until_iter: int
    densification_interval: int
    opacity_reset_interval: int

    def densifies_at(self, iteration: int) -> bool:
        """Whether Gaussians are added and removed after the step of this iteration."""
        within = self.densify_from_iter < iteration <= self.densify_until_iter
        return within and iteration % self.densification_interval == 0

    def resets_opacity_at(self, iteration: int) -> bool:
        """Whether opacities are lowered after the step of this iteration."""
        followed = iteration + self.opacity_reset_interval <= self.densify_until_iter
        return iteration > 0 and followed and iteration % self.opacity_reset_interval == 0

    def raises_sh_at(self, iteration: int) -> bool:
        """Whether the next SH band joins before the step of this iteration."""
        return iteration % self.sh_interval == 0


def schedule_for(iterations: int, strategy: str) -> Schedule:
    """The recipe for a run of `iterations`.

    For 30,000 and more these are the reference's numbers. A shorter run keeps the proportions of what must
    finish (positions settle at the end, densification stops halfway, or at 5/6 with MCMC) and starts
    everything earlier; the interval between opacity resets stays, so short runs have none. MCMC, which grows
    by 5 % at a time, does so more often in runs below 13,000.

    Args:
        iterations: Length of the run, >= 1.
        strategy: "default" or "mcmc".
    """
    until = iterations * 5 // 6 if strategy == "mcmc" else iterations // 2
    return Schedule(
        position_lr_max_steps=max(iterations, 1),
        sh_interval=max(1, min(1000, iterations // 8)),
        densify_from_iter=min(500, iterations // 10),
        densify_until_iter=min(25_000 if strategy == "mcmc" else 15_000, until),
        densification_interval=max(1, min(100, iterations // 130)) if strategy == "mcmc" else 100,
        opacity_reset_interval=3000,
    )


def position_rate(iteration: int, first: float, final: float, max_steps: int) -> float:
    """Learning rate of the positions: from `first` to `final` on a straight line of its logarithm.

    Args:
        iteration: The step, counted from 1; from `max_steps` on the rate stays at `final`.
        first: Rate at iteration 0, > 0.
        final: Rate at `max_steps`, > 0.
        max_steps: Length of the decay, >= 1.
    """
    progress = min(max(iteration / max_steps, 0.0), 1.0)
    return float(first ** (1 - progress) * final**progress)
