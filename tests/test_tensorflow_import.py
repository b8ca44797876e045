"""TensorFlow as it comes into this process: without the GPUs of the host."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bprune_hpc import tensorflow_import


def test_sessions_take_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = tensorflow_import.import_graphs()
    configs = []

    def opened(graph: Any = None, config: Any = None) -> Any:
        configs.append(config)
        return graphs.Session(graph=graph, config=config)

    stand_in = SimpleNamespace(**{**vars(graphs), "Session": opened})
    monkeypatch.setattr(tensorflow_import, "import_graphs", lambda: stand_in)
    with graphs.Graph().as_default() as graph:
        one = graphs.constant(1)
    with tensorflow_import.open_session(graph) as session:
        assert session.run(one) == 1
    assert configs and all(config.device_count["GPU"] == 0 for config in configs)


@pytest.mark.parametrize("has_run", [False, True])
def test_a_tensorflow_that_is_imported_here_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    visible: list[tuple[list[Any], str]] = []

    def set_visible_devices(devices: list[Any], kind: str) -> None:
        if has_run:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        visible.append((devices, kind))

    config = SimpleNamespace(set_visible_devices=set_visible_devices)
    fake = SimpleNamespace(config=config)
    monkeypatch.delitem(tensorflow_import.sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(tensorflow_import.importlib, "import_module", lambda name: fake)
    assert tensorflow_import.import_tensorflow() is fake
    assert visible == ([] if has_run else [([], "GPU")])


def test_gpus_of_the_host_are_mentioned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(tensorflow_import, "_ROOT", tmp_path)
    say = tensorflow_import._say_that_gpus_are_left_alone
    for n_said in (0, 1, 1):
        if n_said:
            (tmp_path / "dev").mkdir(exist_ok=True)
            (tmp_path / "dev/nvidia0").touch()
        say()
        assert len(caplog.messages) == n_said
        if not n_said:
            say.cache_clear()
    say.cache_clear()
    assert "GPUs, which are not used" in caplog.text
