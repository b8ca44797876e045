"""Forward passes of the zoo at the mean, written out in NumPy from named variables.

Independent of TensorFlow and of how the networks are built: SAME padding, strides, batch
normalization with moving statistics, basic blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

EPSILON = 1e-3
Values = Mapping[str, np.ndarray]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _padded(x: np.ndarray, size: int, stride: int, value: float) -> np.ndarray:
    pads = [(0, 0)]
    for n in x.shape[1:3]:
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)], constant_values=value)


def _windows(x: np.ndarray, size: int, stride: int, value: float) -> np.ndarray:
    """(n, height, width, channels, row, column) of every window."""
    padded = _padded(x, size, stride, value)
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    return views[:, ::stride, ::stride]


def conv(x: np.ndarray, kernel: np.ndarray, stride: int = 1) -> np.ndarray:
    return np.tensordot(_windows(x, len(kernel), stride, 0), kernel, ([4, 5, 3], [0, 1, 2]))


def max_pool(x: np.ndarray) -> np.ndarray:
    return _windows(x, 2, 2, -np.inf).max(axis=(4, 5))


def loc(values: Values, layer: str, which: str = "kernel") -> np.ndarray:
    return np.float64(values[f"{layer}/{which}_posterior_loc"])


def dense(x: np.ndarray, values: Values, layer: str) -> np.ndarray:
    return x @ loc(values, layer) + loc(values, layer, "bias")


def vgg(x: np.ndarray, values: Values, n_convolutions: tuple[int, ...] = (2, 2, 2)) -> np.ndarray:
    for stage, n_of_stage in enumerate(n_convolutions, 1):
        for number in range(1, n_of_stage + 1):
            layer = f"stage{stage}_conv{number}"
            x = relu(conv(x, loc(values, layer)) + loc(values, layer, "bias"))
        x = max_pool(x)
    return dense(relu(dense(x.reshape(len(x), -1), values, "hidden")), values, "head")


def resnet18(x: np.ndarray, values: Values) -> np.ndarray:
    def conv_norm(x: np.ndarray, name: str, stride: int = 1) -> np.ndarray:
        gamma, beta, mean, variance = (
            np.float64(values[f"{name}_norm/{part}"])
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        x = conv(x, loc(values, f"{name}_conv"), stride)
        return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta

    x = relu(conv_norm(x, "stem"))
    for stage in (1, 2, 3, 4):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            is_new = stage > 1 and block == 1
            stride = 2 if is_new and x.shape[1] > 4 else 1
            inner = conv_norm(relu(conv_norm(x, f"{name}_1", stride)), f"{name}_2")
            x = relu(inner + (conv_norm(x, f"{name}_shortcut", stride) if is_new else x))
    return dense(x.mean(axis=(1, 2)), values, "head")
