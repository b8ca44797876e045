"""Threads of NumPy's matrix products: of a process, or while something runs.

How many there are decides nothing else here; evaluators say how many they were given.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np  # noqa: F401  whose library is looked for
from threadpoolctl import ThreadpoolController


def limit_threads(n_threads: int) -> Any:
    """Let products have so many threads: from now on, or inside of ``with``, and then as before."""
    return _libraries().limit(limits=n_threads, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks at all that is loaded, which takes milliseconds
