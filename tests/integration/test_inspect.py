"""What ``inspect`` says of a case, against the checkpoint read apart from this project."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bprune_hpc.checkpoints import case as cases
from bprune_hpc.inspect import main, parser
from bprune_hpc.inspection import figure, text
from bprune_hpc.inspection.tensors import (
    COLLAPSED_BELOW_NATS,
    SNR_QUANTILES,
    collapsed_fraction,
    is_collapsed,
    kl_to_prior,
    tensor_rows,
    totals,
)
from bprune_hpc.posterior.mean_field import Posterior
from bprune_hpc.results.file import SCHEMA, Contents, write
from bprune_hpc.tensorflow_import import import_tensorflow
from tests.helpers import input_models
from tests.helpers.flags import foreign_flags
from tests.helpers.launch import LIMIT_S, ROOT, THETA_DIR, needs_theta, run_group

EMBEDDED = ROOT / "bprune_hpc" / "embedded" / "digits_fc" / "model.ckpt-4400"


def posterior_of(loc: np.ndarray, scale: np.ndarray) -> Posterior:
    return Posterior({"w": np.asarray(loc, "f4")}, {"w": np.asarray(scale, "f4")})


def test_kl_is_the_mean_log_ratio_of_the_densities() -> None:
    rng = np.random.default_rng(0)
    loc, scale, prior = rng.normal(size=30), rng.uniform(0.01, 3, size=30), 0.7
    # The log ratio is a quadratic in the weight, which three Gauss-Hermite nodes integrate exactly.
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    w = loc[:, None] + scale[:, None] * nodes
    log_q = -(nodes**2) / 2 - np.log(scale)[:, None]
    log_p = -((w / prior) ** 2) / 2 - np.log(prior)
    expected = ((log_q - log_p) * weights).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(kl_to_prior(loc, scale, prior), expected, rtol=1e-12)
    assert kl_to_prior(0.0, prior, prior) == pytest.approx(0, abs=1e-15)
    assert kl_to_prior(1.0, 0.0, prior) == np.inf


def test_what_collapsed_means_in_numbers() -> None:
    loc, scale = np.meshgrid(np.linspace(0, 0.3, 1201), np.linspace(0.5, 1.5, 1201))
    collapsed = is_collapsed(2 * loc, 2 * scale, prior_scale=2.0)
    assert 0.140 < loc[collapsed].max() < 0.142
    assert 0.09 < 1 - scale[collapsed].min() < 0.11 and 0.09 < scale[collapsed].max() - 1 < 0.11
    assert (loc / scale)[collapsed].max() < 0.15


@pytest.fixture(scope="module")
def embedded() -> cases.Case:
    return cases.read_case("embedded:digits_fc")


def test_rows_against_the_checkpoint_read_apart(embedded: cases.Case) -> None:
    reader = import_tensorflow().train.load_checkpoint(str(EMBEDDED))
    rows = {
        row.name: row
        for row in tensor_rows(embedded.posterior, embedded.fixed, embedded.source.stripped, 0.5)
    }
    n_collapsed = n_weights = 0
    for suffix, shape in (("", (64, 64)), ("_1", (64, 32)), ("_2", (32, 10))):
        layer = f"sequential/dense_flipout{suffix}"
        loc = reader.get_tensor(f"{layer}/kernel_posterior_loc").astype(float)
        raw = reader.get_tensor(f"{layer}/kernel_posterior_untransformed_scale").astype(float)
        scale = np.finfo(np.float32).eps + np.log1p(np.exp(raw))
        row = rows[f"{layer}/kernel_posterior_loc"]
        assert (row.kind, row.shape, row.n_values) == ("mean-field", shape, loc.size)
        assert row.n_bytes == 2 * 4 * loc.size
        assert row.mean_abs_loc == pytest.approx(np.abs(loc).mean(), rel=1e-9)
        assert row.median_scale == pytest.approx(np.median(scale), rel=1e-6)
        assert row.snr_quantiles is not None
        ratio = np.abs(loc) / scale
        for share, value in row.snr_quantiles.items():
            # The scales here and there differ by float32's rounding.
            assert (ratio <= value * (1 + 1e-6)).mean() >= share
            assert (ratio < value * (1 - 1e-6)).mean() < share
        kl = np.log(0.5 / scale) + (scale**2 + loc**2) / (2 * 0.25) - 0.5
        assert row.kl == pytest.approx(kl.sum(), rel=1e-6)
        assert abs((kl < 0.01).sum() - row.collapsed_fraction * loc.size) <= 1
        n_collapsed += (kl < 0.01).sum()
        n_weights += loc.size
        bias = rows[f"{layer}/bias_posterior_loc"]
        value = reader.get_tensor(bias.name)
        assert (bias.kind, bias.n_bytes) == ("fixed", value.nbytes)
        assert bias.mean_abs_loc == pytest.approx(np.abs(value).mean(), rel=1e-6)
        assert bias.median_scale is None and bias.snr_quantiles is None
    assert collapsed_fraction(rows.values()) == pytest.approx(n_collapsed / n_weights, abs=1e-3)


@pytest.mark.parametrize("name", ["embedded", pytest.param("theta", marks=needs_theta)])
def test_every_variable_of_the_checkpoint_has_its_place(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where, prefix = {
        "embedded": ("embedded:digits_fc", EMBEDDED),
        "theta": (str(THETA_DIR), THETA_DIR / "model.ckpt-250"),
    }[name]
    assert main([where, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    stored = dict(import_tensorflow().train.list_variables(str(prefix)))
    placed = [row["name"] for row in said["tensors"]]
    for row in said["tensors"]:
        if row["kind"] == "mean-field":
            assert row["scale_variables"]
            placed += row["scale_variables"]
        assert tuple(row["shape"]) == tuple(stored[row["name"]])
    assert sorted(placed) == sorted(stored)
    n_stored = sum(int(np.prod(shape)) for shape in stored.values())
    kinds = said["totals"]
    assert n_stored == sum(
        factor * kinds[kind]["n_values"]
        for kind, factor in (("mean-field", 2), ("fixed", 1), ("stripped", 1))
    )
    if name == "theta":
        assert said["source"]["tf_version"] == "1.14.0" and said["source"]["step"] == 250
        assert said["input"] == {
            "tensor": "Placeholder:0", "shape": [None, 784], "dtype": "float32",
            "layout": "channels_last", "flat_image": [28, 28, 1], "own_scaling": None,
        }  # fmt: skip
        assert said["output"]["tensor"] == "sequential/dense/BiasAdd:0"
        assert said["output"]["shape"] == [None, 10]


def test_json_has_every_digit(embedded: cases.Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embedded:digits_fc", "--json", "--prior_scale=0.5"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == text.SCHEMA
    rows = tensor_rows(embedded.posterior, embedded.fixed, embedded.source.stripped, 0.5)
    assert [row["name"] for row in said["tensors"]] == [row.name for row in rows]
    for found, row in zip(said["tensors"], rows, strict=True):
        for key in ("mean_abs_loc", "median_scale", "kl", "collapsed_fraction"):
            assert found[key] == getattr(row, key)
        if row.snr_quantiles:
            assert {float(q): v for q, v in found["snr_quantiles"].items()} == row.snr_quantiles
    assert said["totals"]["mean-field"] == dataclasses.asdict(totals(rows)["mean-field"])
    assert said["collapse_rule"]["prior_scale"] == 0.5
    assert said["collapse_rule"]["kl_below_nats"] == COLLAPSED_BELOW_NATS
    assert set(said["source"]["sha256"]) >= {"model.ckpt-4400.meta", "model.ckpt-4400.index"}


def test_the_text_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EMBEDDED.parent), "--model_ckpt=model.ckpt-4400.meta"]) == 0
    out = capsys.readouterr().out
    for piece in (
        "source  tf1: ", "step 4400, written by TensorFlow 2.18.1",
        "input   Placeholder (any, 64) float32",
        "output  sequential/dense_flipout_2/BiasAdd (any, 10): logits",
        "mean-field  6,464 values in 3 tensors, 50.5 KiB; 49.9 % collapsed to the prior",
        "fixed       106 values in 3 tensors, 424 B",
        "KL(N(loc, scale²) || N(0, 1²)) of the weight is below 0.01 nats",
    ):  # fmt: skip
        assert piece in out
    rows = [line.split() for line in out.splitlines()]
    for name, _ in import_tensorflow().train.list_variables(str(EMBEDDED)):
        if not name.endswith("untransformed_scale"):
            assert [line[0] for line in rows if line].count(name) == 1, name
    (row,) = (
        line for line in rows if line[:1] == ["sequential/dense_flipout/kernel_posterior_loc"]
    )
    assert row[1:3] == ["(64,", "64)"] and row[3] == "mean-field" and row[-2:] == ["40.4", "%"]


def test_zero_scales_empty_tensors_and_odd_types(embedded: cases.Case, tmp_path: Path) -> None:
    posterior = Posterior(
        {"pruned": np.zeros(4, "f4"), "sure": np.ones(4, "f4"), "none": np.zeros((0, 3), "f4")},
        {"pruned": np.zeros(4, "f4"), "sure": np.zeros(4, "f4"), "none": np.zeros((0, 3), "f4")},
    )
    fixed = {"index": np.arange(3), "empty": np.zeros(0, "f4")}
    stripped = {"text": ((), "string"), "half": ((2, 3), "bfloat16"), "flag": ((5,), "bool")}
    rows = {row.name: row for row in tensor_rows(posterior, fixed, stripped, 1.0)}
    assert rows["pruned"].snr_quantiles == dict.fromkeys(SNR_QUANTILES, 0.0)
    assert rows["sure"].snr_quantiles == dict.fromkeys(SNR_QUANTILES, np.inf)
    assert rows["sure"].collapsed_fraction == 0 and rows["sure"].kl == np.inf
    assert rows["none"].snr_quantiles is None and rows["none"].n_values == 0
    assert rows["index"].mean_abs_loc is None and rows["empty"].mean_abs_loc is None
    assert [rows[name].n_bytes for name in stripped] == [None, 12, 5]
    assert totals(rows.values())["stripped"].n_bytes == 17
    odd = dataclasses.replace(embedded, posterior=posterior, fixed=fixed)
    said = json.loads(text.as_json("odd", odd, list(rows.values()), 1.0))
    assert said["tensors"][1]["snr_quantiles"] == {str(q): None for q in SNR_QUANTILES}
    assert "inf" in text.text("odd", odd, list(rows.values()), 1.0)
    figure.plot(tmp_path / "odd.png", posterior, 1.0)


@pytest.mark.parametrize("n_tensors", [1, 6, 17])
def test_every_weight_is_in_the_figure(
    n_tensors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    rng = np.random.default_rng(2)
    loc = {f"layer_{i}": rng.normal(0, 10.0**-i, 50 + i).astype("f4") for i in range(n_tensors)}
    scale = {name: np.full(values.shape, 0.9, "f4") for name, values in loc.items()}
    drawn = []
    stairs = Axes.stairs

    def counted(axes, values, *args, **kwargs):
        if kwargs["label"] == "others":
            drawn.append(values.sum())
        return stairs(axes, values, *args, **kwargs)

    monkeypatch.setattr(Axes, "stairs", counted)
    figure.plot(tmp_path / "snr.png", Posterior(loc, scale), 1.0)
    assert drawn == [50 + i for i in range(n_tensors)]
    assert (tmp_path / "snr.png").read_bytes().startswith(b"\x89PNG")


def test_a_keras_case_whose_builder_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud_builder.py").write_text(
        "import tensorflow_probability as tfp, tf_keras\n"
        "def build():\n"
        "    layer = tfp.layers.DenseFlipout(3, name='layer')\n"
        "    model = tf_keras.Sequential([tf_keras.Input((4,)), layer])\n"
        "    model.summary()\n"
        "    return model\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import_tensorflow()
    import loud_builder

    model = loud_builder.build()
    model.save_weights(str(tmp_path / "net.weights.h5"))
    capsys.readouterr()
    assert main(["net.weights.h5", "--model=loud_builder:build", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["source"]["kind"] == "keras"
    assert said["totals"]["mean-field"]["n_values"] == 12
    (row,) = (row for row in said["tensors"] if row["kind"] == "mean-field")
    kernel = model.layers[0].kernel_posterior.mean().numpy()
    assert row["mean_abs_loc"] == pytest.approx(np.abs(kernel.astype(float)).mean(), rel=1e-12)


def results_file(path: Path, **attrs: str) -> Path:
    write(path, Contents({"schema": SCHEMA, **attrs}, {}, {}))
    return path


@pytest.mark.parametrize(("status", "code"), [("complete", 0), ("partial", 3)])
def test_status_of_a_results_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    assert main(["--status", str(results_file(tmp_path / "s.h5", status=status))]) == code
    assert capsys.readouterr().out == f"{status}\n"


def test_status_says_how_far_a_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path / "s.h5",
        Contents(
            {"schema": SCHEMA, "status": "partial", "n_cells": 200, "n_cells_done": 120}, {}, {}
        ),
    )
    assert main(["--status", str(tmp_path / "s.h5")]) == 3
    assert capsys.readouterr().out == "partial 120/200 cells\n"


def test_status_of_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results_file(tmp_path / "s.h5", status="complete")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    assert main(["--status", str(path)]) == 1
    assert capsys.readouterr().out == "damaged\n"


def test_what_is_wrong_is_one_line_and_comes_at_once(tmp_path: Path) -> None:
    results_file(tmp_path / "odd.h5", status="burning")
    results_file(tmp_path / "none.h5")
    (tmp_path / "junk.h5").write_text("junk")
    (tmp_path / "empty").mkdir()
    wrong = [
        ([], "no case is named"),
        (["/nowhere"], "/nowhere: no such directory; check the path"),
        (["empty"], "empty: holds no checkpoint"),
        (["embedded:nothing"], "no such embedded case; there are digits_fc"),
        (["embedded:digits_fc", "--model_ckpt=model.ckpt-1"], "no 'model.ckpt-1'"),
        (["embedded:digits_fc", "--jsn"], "unknown flag '--jsn'; did you mean --json?"),
        (["embedded:digits_fc", "--prior_scale=0"], "--prior_scale: 0 is not positive"),
        (["embedded:digits_fc", "--prior_scale=wide"], "invalid float value: 'wide'"),
        (["embedded:digits_fc", "--model=build"], "--model: 'build' is not MODULE:FUNCTION"),
        (["embedded:digits_fc", "--plot=snr.doc"], "'snr.doc' is not a figure"),
        (["embedded:digits_fc", "--plot=none/snr.png"], "none: no such directory"),
        (["--status=absent.h5"], "absent.h5: no such file"),
        (["--status=junk.h5"], "junk.h5: not a readable results file"),
        (["--status=odd.h5"], "odd.h5: status is 'burning'"),
        (["--status=none.h5"], "none.h5: status is None"),
        (["--status=odd.h5", "embedded:digits_fc"], "takes no case beside it"),
    ]
    program = (
        "import json, sys\n"
        "from bprune_hpc.inspect import main\n"
        "for argv in json.loads(sys.argv[1]):\n"
        "    status = main(argv)\n"
        "    sys.stderr.write(f'{status} ')\n"
        "assert not {'tensorflow', 'mpi4py', 'horovod'} & set(sys.modules)\n"
    )
    # A line is written before its status, so that line k holds the status of the case before.
    done = run_group(
        [sys.executable, "-c", program, json.dumps([argv for argv, _ in wrong])], cwd=tmp_path
    )
    assert done.returncode == 0 and not done.stdout, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(wrong) + 1, done.stderr
    for line, (argv, message) in zip(lines, wrong, strict=False):
        assert message in line, argv
        assert foreign_flags(line, parser()) <= {"--jsn"}, argv
    for line in lines[1:]:
        assert line.startswith("2 ")


def test_it_runs_as_a_module_under_a_launcher_that_it_does_not_need() -> None:
    """Variables of a launcher are set, and neither MPI nor Horovod can be imported."""
    program = (
        "import runpy, sys\n"
        "sys.modules['mpi4py'] = sys.modules['horovod'] = None\n"
        "sys.argv = ['inspect', 'embedded:digits_fc', '--json']\n"
        "runpy.run_module('bprune_hpc.inspect', run_name='__main__')\n"
    )
    done = run_group(
        [sys.executable, "-c", program], OMPI_COMM_WORLD_SIZE="4", OMPI_COMM_WORLD_RANK="1"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["mean-field"]["n_values"] == 6464
    assert not done.stderr


def test_help_is_quick_and_the_document_shows_what_it_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    helped = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bprune_hpc.inspect", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert helped.returncode == 0
    assert not re.search(r"\| +(tensorflow|mpi4py|matplotlib)\b", helped.stderr)
    document = (ROOT / "docs" / "inspect.md").read_text()
    flags = set(re.findall(r"--\w+", helped.stdout)) - {"--help"}
    assert flags <= set(re.findall(r"--\w+", document))
    (block,) = re.findall(r"^```text\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    assert main(["embedded:digits_fc"]) == 0
    printed = capsys.readouterr().out.replace(f"{ROOT}/", "")
    shown = block.split("...\n")
    assert len(shown) == 2 and all(part in printed for part in shown)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tokens", "(any, 7) int32"),
        ("float64", "(any, 4) float64, subtracts means of up to 1.6e+09 first"),
        ("flat_rows", "(any, 108) float32, channels last, flat rows of images (6, 6, 3)"),
        ("rescaling", "(any, 6, 6, 3) float32, multiplies by 0.003922 first"),
    ],
)
def test_what_a_network_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    _, (weights, model) = input_models.saved(name, tmp_path)
    assert main([weights.partition("=")[2], model]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [one for one in lines if one.startswith("input ")]
    assert line.endswith(said)
