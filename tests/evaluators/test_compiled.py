"""The compiled module: which instructions are used, and that wrong arguments are refused."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bprune_hpc import compiled, results, sources, sweep
from bprune_hpc.errors import ConfigError
from bprune_hpc.evaluators.chain_compiled import CompiledChain
from bprune_hpc.job.environment import versions
from tests.helpers.launch import LIMIT_S, ROOT, run_group
from tests.helpers.reference_chains import convolution_of, random_chain

SWEEP = [
    "--model_dir=embedded:digits_fc", "--dataset=digits", "--thresholds=0,0.5,1,3",
    "--num_monte_carlo=12", "--batch_size=100",
]  # fmt: skip


@pytest.mark.compiled
def test_there_are_instructions_that_every_processor_has() -> None:
    supported = compiled.supported()
    assert supported[-1] == "plain" and compiled.NONE not in supported
    assert len(set(supported)) == len(supported)


def test_the_fastest_instructions_are_taken_unless_others_are_asked_for() -> None:
    possible = [*compiled.supported(), compiled.NONE]
    assert compiled.instructions({}) == possible[0]
    assert compiled.instructions({compiled.VARIABLE: " "}) == possible[0]
    for name in possible:
        assert compiled.instructions({compiled.VARIABLE: name}) == name
        assert compiled.instructions({compiled.VARIABLE: f" {name} "}) == name


@pytest.mark.parametrize("name", ["nonsense", "AVX2", "plain,avx2"])
def test_instructions_that_there_are_not(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        compiled.instructions({compiled.VARIABLE: name})
    message = str(raised.value)
    assert message.startswith(f"{compiled.VARIABLE}={name}: there is ")
    assert ", ".join([*compiled.supported(), "none"]) in message


def test_a_network_is_compiled_where_all_its_activations_are(instructions: str) -> None:
    wanted = instructions != compiled.NONE
    for activation in (None, "Relu", "Relu6"):
        chain = random_chain(4, 3, 2, activation=activation)
        assert isinstance(chain.pruned(), CompiledChain) == wanted
    assert not isinstance(random_chain(4, 3, 2, activation="Tanh").pruned(), CompiledChain)
    convolution = convolution_of((4, 4, 1), (2, 2), activation="Elu")
    chain = random_chain(2, convolution=convolution, n_filters=3)
    assert not isinstance(chain.pruned(), CompiledChain)


def test_a_sweep_refuses_instructions_that_there_are_not(tmp_path: Path) -> None:
    output = tmp_path / "sweep.h5"
    done = run_group(
        [sys.executable, "-m", "bprune_hpc.sweep", *SWEEP, f"--output={output}"],
        BPRUNE_INSTRUCTIONS="nonsense",
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: BPRUNE_INSTRUCTIONS=nonsense: there is ") and not done.stdout
    assert not output.exists()


@pytest.mark.compiled
def test_a_module_of_other_sources_is_not_used() -> None:
    done = run_group(
        [sys.executable, "-c", "from bprune_hpc import _compiled; _compiled.SOURCES_SHA256 = 0\n"
         "from bprune_hpc import compiled; print(compiled.instructions(), compiled.missing)"],
    )  # fmt: skip
    assert done.stdout.startswith("none the module was built from other sources"), done.stderr


def test_any_change_of_code_or_flags_is_other_code(tmp_path: Path) -> None:
    home = tmp_path / "bprune_hpc"
    shutil.copytree(sources.HOME, home, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    whole, built = sources.package_sha256(), sources.compiled_sha256()
    assert sources.compiled_sha256(home) == built
    sources.package_sha256.cache_clear()
    assert sources.package_sha256(home) == whole  # wherever it lies
    seen = {whole}
    for name in ("report.py", "_compiled.c", "_compiled_forward.h", sources.FLAGS):
        with (home / name).open("a") as file:
            file.write("\n")
        sources.package_sha256.cache_clear()
        seen.add(sources.package_sha256(home))
        assert (sources.compiled_sha256(home) == built) == (name == "report.py")
    (home / "more").mkdir()
    (home / "more" / "new.py").touch()
    sources.package_sha256.cache_clear()
    assert len({*seen, sources.package_sha256(home)}) == 6


@pytest.mark.compiled
def test_a_sweep_with_numpy_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for name in (compiled.NONE, "plain"):
        monkeypatch.setenv(compiled.VARIABLE, name)
        path = tmp_path / f"{name}.h5"
        assert sweep.main([*SWEEP, f"--output={path}"]) == 0
        found[name] = results.read(path)
    ours, theirs = found.values()
    assert list(ours.metrics) == list(theirs.metrics)
    for name in (
        "accuracy", "accuracy_single_draw", "accuracy_mean_weights", "nll", "brier",
        "predictive_entropy", "expected_entropy",
    ):  # fmt: skip
        np.testing.assert_allclose(
            ours.metrics[name], theirs.metrics[name], rtol=2e-6, atol=1e-7, err_msg=name
        )
    for name in ("nll", "accuracy"):
        np.testing.assert_allclose(ours.draws[name], theirs.draws[name], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(
        ours.examples.mean_probability, theirs.examples.mean_probability, rtol=0, atol=2e-6
    )
    # Others may add in NumPy's order; these have no multiplication with addition in one.
    assert (ours.draws.nll.values != theirs.draws.nll.values).any()
    for name, result in found.items():
        assert json.loads(result.run.versions.item())["instructions"] == name


def test_the_results_name_the_instructions(instructions: str) -> None:
    assert versions()["instructions"] == instructions


WITHOUT_MODULE = """
import sys
sys.modules["bprune_hpc._compiled"] = None
import pytest
test = "tests/evaluators/test_compiled.py::test_there_are_instructions_that_every_processor_has"
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", test]))
"""


@pytest.mark.parametrize("is_required", [False, True])
def test_without_the_module_tests_of_it_are_skipped_unless_required(is_required: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if "BPRUNE" not in name}
    if is_required:
        environment["BPRUNE_REQUIRE_ALL"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODULE], cwd=ROOT, env=environment, capture_output=True,
        text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == is_required, done.stdout + done.stderr
    assert "the compiled module is not built" in done.stdout
    assert ("1 error" if is_required else "1 skipped") in done.stdout


def at_the_end(array: np.ndarray) -> np.ndarray:
    """A copy after which comes memory that nobody may read or write."""
    page = mmap.PAGESIZE
    n_bytes = -(-array.nbytes // page) * page
    held = mmap.mmap(-1, n_bytes + page)
    start = np.frombuffer(held, np.uint8).ctypes.data
    library = ctypes.CDLL(None, use_errno=True)
    assert library.mprotect(ctypes.c_void_p(start + n_bytes), ctypes.c_size_t(page), 0) == 0
    out = np.frombuffer(held, array.dtype, array.size, n_bytes - array.nbytes)
    out = out.reshape(array.shape)
    out[...] = array
    return out


def placed_at_the_end(value: Any) -> Any:
    """Arguments with every array in them placed so."""
    if isinstance(value, np.ndarray):
        return at_the_end(value)
    return tuple(map(placed_at_the_end, value)) if isinstance(value, tuple) else value


def run_at_the_end() -> None:
    """Call each function with arrays of the least size."""
    calls = [fill_tiles(), draw_values()]
    for name in compiled.supported():
        calls += [multiply(name, width) for width in (1, 4)]
        for n_layers in (0, 1, 2):
            calls += [
                Forward(forward(name, means, n_layers)).call for means in (None, floats(2, 300, 64))
            ]
        calls += [add_predictions(name, n) for n in (1, 15, 16, 17, 20)]
        calls += [forward_local(name, n_layers) for n_layers in (1, 2, 3)]
        calls += [normals_at(name, n) for n in (1, 63, 64, 65)]
        calls += [normals_of(name, n) for n in (1, 64, 65)]
    for call in calls:
        call.arguments = {key: placed_at_the_end(value) for key, value in call.arguments.items()}
        call()


@pytest.mark.compiled
def test_nothing_behind_an_array_is_read_or_written() -> None:
    program = "from tests.evaluators import test_compiled; test_compiled.run_at_the_end()"
    done = run_group([sys.executable, "-X", "faulthandler", "-c", program])
    assert done.returncode == 0, done.stderr


class Call:
    """Arguments of a call of the module, by name, which are right until some are replaced."""

    def __init__(self, function: str, **arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __call__(self, **others: Any) -> None:
        assert set(others) <= set(self.arguments)
        getattr(compiled.module, self.function)(*{**self.arguments, **others}.values())

    def refuses(self, *errors: type[Exception], **others: Any) -> None:
        with pytest.raises(errors or ValueError):
            self(**others)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def places(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


HUGE = (2**31, 2**54, 2**56, 2**58, 2**59, 2**60, 2**61, 2**62, 2**63 - 65, 2**63 - 1)
"""Sizes that arithmetic may take for small ones, or for negative ones."""
WRONG = (-1, -64, -(2**31), -(2**63), *HUGE)


def fill_tiles() -> Call:
    return Call(
        "fill_tiles", x=floats(70, 3), n_examples=70, n_columns=3, columns=places(2, -1, 0, 1),
        tiles=floats(2, 4, 64), first=0, last=2,
    )  # fmt: skip


@pytest.mark.compiled
def test_wrong_examples_are_refused() -> None:
    call = fill_tiles()
    call()
    tiles = call.arguments["tiles"]
    assert (tiles[:, 1] == 0).all() and tiles[1, :, 6:].max() == 0 and tiles[1, 0, :6].min() == 1
    call.refuses(x=floats(69, 3))
    call.refuses(columns=places(3, 0, 0, 0))
    call.refuses(columns=places(0, 0, 0, -2))
    call.refuses(tiles=floats(2, 4, 63))
    call.refuses(last=3)
    call.refuses(first=-1)
    for size in WRONG:
        call.refuses(n_examples=size)
        call.refuses(last=size)
        if size < 0 or size > 2**31:
            call.refuses(n_columns=size)
    call.refuses(n_examples=2**32, n_columns=2**32)
    call.refuses(n_examples=-70, n_columns=-3)
    call.refuses(BufferError, ValueError, TypeError, x=floats(3, 70).T)
    call.refuses(TypeError, x=None)
    call.refuses(TypeError, n_examples="70")
    frozen = floats(2, 4, 64)
    frozen.flags.writeable = False
    call.refuses(BufferError, ValueError, tiles=frozen)


def draw_values() -> Call:
    return Call(
        "draw_values", loc=floats(3), scale=floats(3), noise=floats(5), index=places(4, 0, 2),
        sign=-1.0, out=np.zeros((3, 4), np.float32), offset=1, stride=4,
    )  # fmt: skip


@pytest.mark.compiled
def test_wrong_weights_are_refused() -> None:
    call = draw_values()
    call(loc=2 * floats(3))
    assert call.arguments["out"].tolist() == 3 * [[0, 1, 0, 0]]
    call(loc=None)
    assert call.arguments["out"].tolist() == 3 * [[0, -1, 0, 0]]
    call.refuses(loc=floats(2))
    call.refuses(scale=floats(2))
    call.refuses(index=places(4, 0, 5))
    call.refuses(index=places(4, -1, 2))
    call.refuses(noise=floats(4))
    call.refuses(offset=4)
    call.refuses(stride=0)
    call.refuses(out=floats(8))
    for size in WRONG:
        call.refuses(offset=size)
        call.refuses(stride=size)
    call(index=places(), offset=0)  # nothing to do
    call.refuses(BufferError, ValueError, scale=floats(6)[::2])


INFINITE = (-np.inf, np.inf)


def layer(n_in: int = 300, n_out: int = 6, width: int = 4, n_draws: int = 1) -> dict[str, Any]:
    """A layer each of whose groups of units takes the last two inputs of each block."""
    n_groups = -(-n_out // width)
    n_blocks = max(1, -(-n_in // 256))
    left = [min(256, n_in - 256 * block) for block in range(n_blocks)]
    rows = [64 * (size - back) for size in left for _ in range(n_groups) for back in (2, 1)]
    starts = 2 * np.arange(n_blocks * n_groups + 1)
    return {
        "starts": places(*starts), "rows": places(*rows), "width": width, "n_out": n_out,
        "bounds": INFINITE, "values": floats(n_draws, len(rows), width),
        "bias": floats(n_draws, n_groups * width),
    }  # fmt: skip


def refuse_layers(refuses: Callable[[tuple[Any, ...]], None], right: dict[str, Any]) -> None:
    """Check that layers that are wrong in one thing are refused."""
    rows, starts = right["rows"], right["starts"]
    n_last = 64 * (44 - 1)
    wrong: list[dict[str, Any]] = [
        {"width": 0}, {"width": 2}, {"width": -4}, {"n_out": 9}, {"n_out": -1},
        {"values": right["values"].ravel()[:-1]}, {"bias": right["bias"].ravel()[:-1]},
        {"bias": floats(0)}, {"values": floats(0)},
        {"rows": rows[:-1]}, {"rows": np.append(rows, rows[-1:])}, {"rows": places()},
        {"starts": starts[:-1]}, {"starts": starts[1:]}, {"starts": places()},
        {"starts": starts + np.int32(1)}, {"starts": starts - np.int32(1)},
        {"starts": starts[::-1].copy()},
        {"starts": np.array([0, 2**30, *starts[2:]], np.int32)},
        {"starts": np.array([0, -(2**31), *starts[2:]], np.int32)},
    ]  # fmt: skip
    for at, row in ((-1, n_last + 1), (-1, n_last + 64), (0, 64 * 256), (0, -1), (1, 2**31 - 1)):
        other = rows.copy()
        other[at] = row
        wrong.append({"rows": other})
    wrong += [{"n_out": size} for size in WRONG] + [{"width": size} for size in WRONG]
    for change in wrong:
        refuses(tuple({**right, **change}.values()))


def multiply(name: str, width: int) -> Call:
    right = layer(width=width)
    return Call(
        "multiply", name=name, tiles=floats(2, 300, 64), n_in=300, layer=tuple(right.values()),
        out=np.zeros((2, right["bias"].size, 64), np.float32), first=0, last=2,
    )  # fmt: skip


@pytest.mark.compiled
@pytest.mark.parametrize("width", [1, 4])
def test_wrong_layers_are_refused(compiled_instructions: str, width: int) -> None:
    right, call = layer(width=width), multiply(compiled_instructions, width)
    n_padded = right["bias"].size
    call()
    assert (call.arguments["out"] == 1 + 2 * 2).all()
    refuse_layers(lambda wrong: call.refuses(layer=wrong), right)
    call.refuses(n_in=299)
    call.refuses(n_in=0)
    call.refuses(tiles=floats(1, 300, 64))
    call.refuses(out=floats(2 * n_padded * 64 - 1))
    call.refuses(first=-1)
    call.refuses(last=3)
    for size in WRONG:
        call.refuses(n_in=size)
        if size > 0:
            call.refuses(last=size)
    for name in ("", "none", "nonsense", "avx", compiled_instructions + "2"):
        call.refuses(name=name)
    call.refuses(TypeError, layer=None)
    call.refuses(TypeError, layer=tuple(right.values())[1:])


def forward(name: str, means: np.ndarray | None, n_layers: int = 2) -> Call:
    """Three draws of a first layer of 300 units and two others, in two tiles of ten rows."""
    n_columns = 4 if means is not None else 5
    first = {
        "starts": places(0, 2, 3), "rows": places(0, 64, 3 * 64),
        "bases": places(*(64 * (at % 7) for at in range(300))), "n_places": 2,
        "n_columns": n_columns, "bounds": INFINITE, "values": floats(3, n_columns),
        "bias": floats(2, n_columns),
    }  # fmt: skip
    layers = (layer(300, 6, 4, 3), layer(6, 5, 1, 3))[:n_layers]
    n_out = [300, 6, 5][n_layers]
    n_scratch = 3 * (256 + 8 * (n_layers > 0)) + 2 * 5 * (n_layers > 1)
    return Call(
        "forward", name=name, tiles=floats(2, 10, 64), n_rows=10, first=first, means=means,
        columns=(0, -1, n_columns - 1), signs=(1.0, 0.0, -1.0), layers=layers,
        out=np.zeros((3, n_out, 2, 64), np.float32), scratch=floats(n_scratch, 64), first_tile=0,
        last_tile=2,
    )  # fmt: skip


class Forward:
    """A call with its first layer, and the others, as tuples."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.first, self.layers = call.arguments["first"], call.arguments["layers"]
        call.arguments["first"] = tuple(self.first.values())
        call.arguments["layers"] = tuple(tuple(one.values()) for one in self.layers)

    def refuses_first(self, **others: Any) -> None:
        self.call.refuses(first=tuple({**self.first, **others}.values()))


@pytest.mark.compiled
@pytest.mark.parametrize("n_layers", [0, 1, 2])
@pytest.mark.parametrize("has_means", [False, True])
def test_wrong_chains_are_refused(
    compiled_instructions: str, has_means: bool, n_layers: int
) -> None:
    means = floats(2, 300, 64) if has_means else None
    given = Forward(forward(compiled_instructions, means, n_layers))
    call, first = given.call, given.first
    call()
    assert np.isfinite(call.arguments["out"]).all() and call.arguments["out"].all(axis=3).any()
    for number in range(n_layers):
        if number == 0:

            def refuses(wrong: tuple[Any, ...]) -> None:
                call.refuses(layers=(wrong, *call.arguments["layers"][1:]))

            refuse_layers(refuses, given.layers[0])
    n_columns = first["values"].shape[1]
    wrong: list[dict[str, Any]] = [
        {"starts": places()}, {"starts": places(0, 2)}, {"starts": places(1, 2, 3)},
        {"starts": places(0, 4, 3)}, {"starts": places(0, -1, 3)}, {"starts": places(0, 2, 4)},
        {"starts": places(0, 2, 3, 3)},
        {"rows": places(0, 64)}, {"rows": places(0, 64, 4 * 64)}, {"rows": places(-1, 64, 0)},
        {"rows": places(2**31 - 1, 64, 0)},
        {"bases": places()}, {"bases": first["bases"] + np.int32(1)},
        {"bases": first["bases"] - np.int32(64)}, {"bases": first["bases"][1:]},
        {"bases": np.full(300, 2**31 - 1, np.int32)},
        {"n_places": 0}, {"n_places": -1}, {"n_places": 7}, *({"n_places": n} for n in WRONG),
        {"values": floats(3, n_columns - 1)}, {"bias": floats(2, n_columns - 1)},
        {"n_columns": n_columns - 1}, {"n_columns": n_columns + 1}, {"n_columns": -1},
        *({"n_columns": n} for n in WRONG),
    ]  # fmt: skip
    if not has_means:
        wrong.append({"n_columns": 0, "values": floats(0), "bias": floats(0)})
    for change in wrong:
        given.refuses_first(**change)
    call.refuses(TypeError, first=None)
    call.refuses(columns=(0, -1))
    call.refuses(columns=(0, -1, n_columns))
    call.refuses(columns=(0, -2, 0))
    call.refuses(columns=(), signs=())
    room = {name: np.repeat(call.arguments[name], 17, axis=0) for name in ("out", "scratch")}
    call.refuses(columns=17 * (0,), signs=17 * (1.0,), **room)
    call.refuses(columns=[0, -1, 0])
    call.refuses(TypeError, columns=(0, -1, 1.5))
    call.refuses(TypeError, signs=(1.0, 0.0, "1"))
    call.refuses(OverflowError, columns=(0, -1, 2**70))
    call.refuses(TypeError, layers=list(call.arguments["layers"]))
    call.refuses(layers=call.arguments["layers"] + 300 * (call.arguments["layers"][:1] or (None,)))
    call.refuses(tiles=floats(9, 64))
    call.refuses(n_rows=9)
    for size in (0, *WRONG):
        call.refuses(n_rows=size)
    if has_means:
        call.refuses(means=floats(2 * 300 * 64 - 1))
    call.refuses(out=call.arguments["out"].ravel()[1:].copy())
    call.refuses(scratch=call.arguments["scratch"].ravel()[1:].copy())
    call.refuses(first_tile=-1)
    call.refuses(last_tile=3)
    for size in HUGE:
        call.refuses(last_tile=size)
        call.refuses(first_tile=-size)
    for name in ("", "none", "nonsense"):
        call.refuses(name=name)
    call()  # as before


KEY = np.arange(5, dtype=np.uint32)


def forward_local(name: str, n_layers: int = 3) -> Call:
    """Two draws of a first layer of 300 units, whose means are given, and of two others."""
    first = (None, None, KEY, places(*range(300)), INFINITE)
    others = (
        (tuple(layer(300, 6, 4).values()), tuple(layer(300, 6, 1).values()), KEY,
         places(0, 1, 2, 5, 6, 40), INFINITE),
        (tuple(layer(6, 5, 1).values()), None, None, places(*range(5)), INFINITE),
    )  # fmt: skip
    n_units = (300, 306, 311)[n_layers - 1]
    return Call(
        "forward_local", name=name, means=floats(2, 303, 64), n_means=303,
        deviations=floats(2, 300, 64), n_deviations=300, layers=(first, *others)[:n_layers],
        signs=(1.0, -1.0), replicate=3, position=9,
        out=np.zeros((2, (300, 6, 5)[n_layers - 1], 2, 64), np.float32),
        scratch=floats(4 * 300 + n_units, 64), first_tile=0, last_tile=2,
    )  # fmt: skip


@pytest.mark.compiled
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_wrong_layers_with_noise_of_examples_are_refused(
    compiled_instructions: str, n_layers: int
) -> None:
    call = forward_local(compiled_instructions, n_layers)
    call()
    first, *others = call.arguments["layers"]
    if others:
        mean, variance, key, units, bounds = others[0]
        rest = others[1:]
        refuse_layers(
            lambda wrong: call.refuses(
                layers=(first, (wrong, variance, key, units, bounds), *rest)
            ),
            layer(300, 6, 4),
        )
        for wrong in (
            (mean, tuple(layer(300, 7, 1).values()), key, units, bounds),
            (mean, variance, key, units[:-1], bounds),
            (mean, variance, key, -units, bounds),
            (mean, variance, KEY[:4], units, bounds),
        ):
            call.refuses(layers=(first, wrong, *rest))
        call.refuses(TypeError, layers=(first, (mean, None, key, units, bounds), *rest))
    call.refuses(layers=())
    call.refuses(TypeError, layers=None)
    call.refuses(n_means=299)
    call.refuses(n_deviations=299)
    call.refuses(means=floats(2 * 303 * 64 - 1), out=call.arguments["out"])
    call.refuses(deviations=floats(2 * 300 * 64 - 1))
    call.refuses(TypeError, deviations=None)
    call.refuses(signs=())
    call.refuses(signs=17 * (1.0,))
    call.refuses(out=call.arguments["out"].ravel()[1:].copy())
    call.refuses(scratch=call.arguments["scratch"].ravel()[1:].copy())
    call.refuses(first_tile=-1)
    call.refuses(last_tile=3)
    for size in WRONG:
        call.refuses(n_means=size)
        call.refuses(n_deviations=size)
    call.refuses(name="none")
    call()


def normals_at(name: str, n: int = 65) -> Call:
    return Call(
        "normals_at", name=name, key=KEY, replicate=1, first=7, n_positions=n,
        places=places(0, 5, 6), out=np.zeros((3, n), np.float32),
    )  # fmt: skip


def normals_of(name: str, n: int = 65) -> Call:
    return Call(
        "normals_of", name=name, key=KEY, replicate=1, position=7, n_fours=n,
        out=np.zeros(4 * n, np.float32),
    )  # fmt: skip


@pytest.mark.compiled
def test_wrong_places_of_normals_are_refused(compiled_instructions: str) -> None:
    for call, size in (
        (normals_at(compiled_instructions), "n_positions"),
        (normals_of(compiled_instructions), "n_fours"),
    ):
        call()
        assert call.arguments["out"].all()
        call.refuses(key=KEY[:4])
        call.refuses(key=KEY.astype(np.int32))
        call.refuses(out=call.arguments["out"].ravel()[1:].copy())
        call.refuses(name="none")
        for wrong in WRONG:
            call.refuses(**{size: wrong})
    normals_at(compiled_instructions).refuses(places=places(0, -1, 2))


def add_predictions(name: str, n: int = 20) -> Call:
    return Call(
        "add_predictions", name=name, logits=floats(2, 3, n),
        label=np.arange(n, dtype=np.int32) % 3,
        sums=np.zeros((3 + 5, n + 5), np.int64), offset=5, stride=n + 5, room=np.zeros((3, 3, 16)),
        n_correct=np.zeros(2, np.int64), nll=np.zeros(2, np.int64),
    )  # fmt: skip


@pytest.mark.compiled
def test_wrong_predictions_are_refused(compiled_instructions: str) -> None:
    call = add_predictions(compiled_instructions)
    call()
    label, logits = call.arguments["label"], call.arguments["logits"]
    call.refuses(logits=floats(2, 4, 20))
    call.refuses(logits=floats(3, 3, 20))
    call.refuses(logits=floats(2, 3, 21))
    call.refuses(logits=floats(2, 0, 20))
    call.refuses(logits=floats(3, 20))
    call.refuses(logits=np.ones((2, 3, 20)))
    call.refuses(logits=floats(2, 3, 40)[:, :, ::2])
    call.refuses(logits=logits[:, :, ::-1])
    call.refuses(logits=floats(2, 20, 3).transpose(0, 2, 1))
    call.refuses(TypeError, logits=None)
    for wrong in (3, -1, 2**31 - 1, -(2**31)):
        for at in (0, 15, 19):
            other = label.copy()
            other[at] = wrong
            call.refuses(label=other)
    call.refuses(label=label[:-1].copy())
    call.refuses(sums=np.zeros(8 * 25 - 1, np.int64))
    call.refuses(offset=6)
    call.refuses(stride=26)
    call.refuses(stride=19)
    for size in WRONG:
        call.refuses(offset=size)
        call.refuses(stride=size)
    call.refuses(room=np.zeros(3 * 3 * 16 - 1))
    call.refuses(n_correct=np.zeros(1, np.int64))
    call.refuses(nll=np.zeros(1, np.int64))
    for name in ("", "none", "nonsense"):
        call.refuses(name=name)
    before = call.arguments["sums"].copy()
    assert before[:, 5:].any() and not before[:, :5].any()
    call.refuses(label=label + np.int32(1))
    assert (call.arguments["sums"] == before).all()  # what is refused has changed nothing
