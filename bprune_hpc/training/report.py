"""What a training run tells: a bar or log lines on the way, ``train.json`` at the end.

What belongs here: text for people and the record of the run. What does not: measuring.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from .validation import Validation

_LOG_LINES = 20
PACKAGES = ("horovod", "numpy", "tensorflow", "tensorflow-probability", "tf_keras")
"""What a training's bits depend on."""

logger = logging.getLogger(__name__)


def progress(n_epochs: int) -> Callable[[int, float, float, Validation | None], None]:
    """A bar where somebody watches, about twenty lines where a log file does.

    Returns
    -------
    function
        Takes epochs done, the mean of the negative log-likelihood over the last one, and the KL
        divergence at its end, in nats an example; and what was measured then.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(total=n_epochs, unit="epoch")

        def move(epoch: int, nll: float, kl: float, found: Validation | None) -> None:
            more = {} if found is None else {"validation": f"{found.nll:.4f}"}
            bar.set_postfix(nll=f"{nll:.4f}", kl=f"{kl:.4f}", **more, refresh=False)
            bar.update(epoch - bar.n)
            if epoch == n_epochs:
                bar.close()

        return move
    every = max(1, n_epochs // _LOG_LINES)

    def say(epoch: int, nll: float, kl: float, found: Validation | None) -> None:
        if epoch % every == 0 or epoch == n_epochs or found is not None:
            more = f"; validation nll {found.nll:.4f} ± {found.nll_se:.4f}" if found else ""
            logger.info(
                "epoch %d of %d: nll %.4f, kl %.4f per example%s", epoch, n_epochs, nll, kl, more
            )

    return say


def log_result(report: dict[str, Any]) -> None:
    """Log what ``train.json`` holds in three lines."""
    config, data = report["config"], report["data"]
    if not data["held_out"]:
        logger.warning(
            "%s: has no test half; the accuracy is that on the examples trained on",
            config["data_path"],
        )
    logger.info(
        "%d steps on %d rank%s in %.1f s; the network is in %s",
        report["n_steps"],
        report["n_ranks"],
        "s" if report["n_ranks"] > 1 else "",
        report["train_time_s"],
        config["model_dir"],
    )
    if "rmse_averaged" in report:
        logger.info(
            "root mean squared error on %d %s examples: %.4f with mean weights, %.4f averaged over "
            "%d draws, %.4f with a single draw; noise scale %.4f",
            data["n_test"],
            "held-out" if data["held_out"] else "training",
            report["rmse_mean_weights"],
            report["rmse_averaged"],
            config["n_draws_eval"],
            report["rmse_single_draw"],
            report["noise_scale"],
        )
    else:
        _log_accuracy(report)
    quantiles = report["snr_quantiles"].items()
    logger.info(
        "quantiles of the weights' SNR: %s",
        ", ".join(f"{float(q):.0%} {v:.3g}" for q, v in quantiles),
    )


def _log_accuracy(report: dict[str, Any]) -> None:
    config, data = report["config"], report["data"]
    logger.info(
        "accuracy on %d %s examples: %.4f with mean weights, %.4f averaged over %d draws, "
        "%.4f with a single draw",
        data["n_test"],
        "held-out" if data["held_out"] else "training",
        report["accuracy_mean_weights"],
        report["accuracy_averaged"],
        config["n_draws_eval"],
        report["accuracy_single_draw"],
    )
