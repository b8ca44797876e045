"""The compiled module, as Python sees it; what it does is told in ``_compiled.c``."""

from typing import Any

SOURCES_SHA256: str
TILE: int
BLOCK: int
GROUP: int
SHARED: int
EXAMPLES: int
MOST_LAYERS: int

def supported_sets() -> list[str]: ...
def fill_tiles(
    x: Any, n_examples: int, n_columns: int, columns: Any, out: Any, first_tile: int, last_tile: int
) -> None: ...
def draw_values(
    loc: Any, scale: Any, noise: Any, index: Any, sign: float, out: Any, offset: int, stride: int
) -> None: ...
def multiply(
    name: str,
    tiles: Any,
    n_in: int,
    layer: tuple[Any, ...],
    out: Any,
    first_tile: int,
    last_tile: int,
) -> None: ...
def forward(
    name: str,
    tiles: Any,
    n_tile_rows: int,
    first: tuple[Any, ...],
    means: Any,
    columns: tuple[int, ...],
    signs: tuple[float, ...],
    layers: tuple[Any, ...],
    out: Any,
    scratch: Any,
    first_tile: int,
    last_tile: int,
) -> None: ...
def forward_local(
    name: str,
    means: Any,
    n_means: int,
    deviations: Any,
    n_deviations: int,
    layers: tuple[Any, ...],
    signs: tuple[float, ...],
    replicate: int,
    position: int,
    out: Any,
    scratch: Any,
    first_tile: int,
    last_tile: int,
) -> None: ...
def normals_at(
    name: str, key: Any, replicate: int, first: int, n_positions: int, places: Any, out: Any
) -> None: ...
def normals_of(
    name: str, key: Any, replicate: int, position: int, n_fours: int, out: Any
) -> None: ...
def add_predictions(
    name: str,
    logits: Any,
    label: Any,
    sums: Any,
    offset: int,
    sums_stride: int,
    room: Any,
    n_correct: Any,
    nll: Any,
) -> None: ...
