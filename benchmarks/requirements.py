"""What the measurements have to show: the one table of limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Requirement:
    """A limit of one measured number.

    Attributes
    ----------
    part : str
        Of the benchmarks.
    name : str
        Of the number among the part's.
    text : str
        What it is.
    limit : float
    is_most : bool
        Whether the number may not be above the limit, rather than not below.
    """

    part: str
    name: str
    text: str
    limit: float
    is_most: bool = False

    def holds(self, measured: float) -> bool:
        """Whether a measured number keeps the limit."""
        return measured <= self.limit if self.is_most else measured >= self.limit

    def judge(self, measured: float | None) -> dict[str, Any]:
        """The requirement and what was measured, for the record."""
        return {
            "part": self.part,
            "name": self.name,
            "text": self.text,
            "measured": measured,
            "at_most" if self.is_most else "at_least": self.limit,
            "held": None if measured is None else self.holds(measured),
        }


REQUIREMENTS = (
    Requirement("dense", "threshold_0_share_of_peak",
                "dense net, threshold 0: share of sgemm peak", 0.85),
    Requirement("dense", "thresholds_over_floor",
                "dense net, thresholds 0:2:21: time / naive floor", 0.25, is_most=True),
    Requirement("dense", "fractions_over_floor",
                "dense net, prune fractions 0:0.95:20: time / naive floor", 0.60, is_most=True),
    Requirement("peers", "tfp_flipout_over_ours",
                "TFP Flipout in tf.function / ours, per draw, threshold 0", 5),
    Requirement("bprune", "sweep_over_ours_10000",
                "BPrune's procedure / ours, 21-point sweep, N = 10,000", 25),
    Requirement("bprune", "sweep_over_ours_64",
                "BPrune's procedure / ours, 21-point sweep, N = 64", 100),
    Requirement("convolutions", "theta_share_of_direct",
                "Theta net, threshold 0: share of tf.nn.conv2d's rate", 0.9),
    *(
        Requirement("convolutions", f"{name}_{key}_over_floor", f"{shape}, {what}: time / floor",
                    limit, is_most=True)
        for name, shape in (("vgg16", "VGG-16"), ("resnet18", "ResNet-18"))
        for key, what, limit in (
            ("whole", "threshold 0", 1), ("kept_0.2", "80 % pruned at random", 0.4),
            ("kept_0.1", "90 % pruned at random", 0.25),
            ("kept_0.05", "95 % pruned at random", 0.18),
            ("profile", "21 thresholds, at random", 0.5),
        )
    ),
    Requirement("convolution_peers", "tfp_flipout_over_ours",
                "ResNet-18: TFP Flipout in tf.function / ours, per draw, threshold 0", 3),
    *(
        Requirement("convolution_peers", f"bayesian_torch_{kind.lower()}_over_ours",
                    f"ResNet-18: bayesian-torch, {kind} / ours, per draw, threshold 0", 3)
        for kind in ("Flipout", "Reparameterization")
    ),
    *(
        Requirement("trained", f"{name}_thresholds_graph_over_ours",
                    f"{shape}, trained, thresholds 0:2:21: TensorFlow's graph / ours", 2)
        for name, shape in (("vgg16", "VGG-16"), ("resnet18", "ResNet-18"),
                            ("six", "six convolutions"), ("theta", "Theta net"))
    ),
    Requirement("ranks", "two_ranks_over_one",
                "2 ranks x 1 thread / 1 rank x 1 thread", 1.9),
    Requirement("ranks", "communication_share_projected",
                "share of communication, MNIST-FC, S = 6,400, 64 ranks (projected)", 0.02,
                is_most=True),
    Requirement("memory", "peak_1000_draws_over_50",
                "peak memory, 1,000 draws / 50", 1.05, is_most=True),
    Requirement("memory", "large_output_gib",
                "N = 50,000, C = 1,000, T = 20: peak memory per rank (GiB)", 4, is_most=True),
    Requirement("start", "digits_64_ranks_minutes",
                "mpirun -n 64 of the digits sweep: minutes", 3, is_most=True),
    Requirement("start", "digits_64_ranks_gib",
                "mpirun -n 64 of the digits sweep: memory in all (GiB)", 14, is_most=True),
    Requirement("start", "first_draw_over_import_tensorflow",
                "launch to first draw, 2 ranks / import tensorflow", 1.2, is_most=True),
    Requirement("training", "dense_one_rank_over_fit_one_thread",
                "training, dense: one rank / tf_keras' fit, one thread", 1.5),
    Requirement("training", "dense_two_ranks_over_one_rank",
                "training, dense: two ranks / one", 1.8),
    Requirement("training", "dense_two_ranks_over_fit_two_threads",
                "training, dense: two ranks / tf_keras' fit, two threads", 1),
    Requirement("export", "posterior_over_bundle_bytes",
                "dense net, 95 % pruned: bytes of its posterior / of the bundle", 10),
    Requirement("export", "plain_over_mean_1000",
                "the same: all weights in NumPy / predict.py, mean, batch of 1,000", 3),
)  # fmt: skip


def judge(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every requirement beside what the parts that were run have measured."""
    return [
        requirement.judge(parts.get(requirement.part, {}).get("ratios", {}).get(requirement.name))
        for requirement in REQUIREMENTS
    ]
