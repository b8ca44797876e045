"""What studies have in common: another seed's numbers beside those of a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studies import study
from studies.study import Number


def test_a_number_has_the_error_of_its_mean() -> None:
    found = Number.of("x", [1.0, 2.0, 3.0, 6.0])
    assert (found.value, found.n) == (3.0, 4)
    assert found.se == pytest.approx(np.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert Number.of("on a grid", [0.5, 0.5], step=0.01).se == 0.01


def test_equal_populations_come_out_again_nineteen_times_in_twenty() -> None:
    generator = np.random.default_rng(0)
    n_times, holds = 400, 0
    for _ in range(n_times):
        page, here = (
            [Number.of(str(k), generator.normal(k, 1 + k, 3)) for k in range(10)] for _ in range(2)
        )
        holds += study.compared(page, here)[1].holds
    # Of two errors with two degrees of freedom each the limit is a little too wide or too narrow.
    assert 0.93 < holds / n_times < 0.99


def test_a_number_that_does_not_come_out_again_ends_it_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "PAGES", tmp_path / "pages")

    def run(value: float, *flags: str) -> int:
        numbers = [Number("one", 1.0, 0.1, 3), Number("other", value, 0.1, 3)]
        found = study.Outcome([study.Claim("it", True)], numbers)
        return study.main("boston", "", lambda _: found, flags)

    assert run(2.0) == 0  # the page itself
    assert run(2.3, f"--output={tmp_path}") == 0
    said = capsys.readouterr().out
    assert "| other | 2 ± 0.1 | 2.3 ± 0.1 | 2.1 |" in said and "1 differ by less" in said
    assert run(9.0, f"--output={tmp_path}") == 1
    assert "does not hold**: the page's 2 numbers" in capsys.readouterr().out
