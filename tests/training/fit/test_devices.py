import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from app.settings import PROJECT
from benchmarks.services import free_port
from tests.training.host_process import train
from tests.training.pictures import dataset, one_hot
from training.data.batches import train_batches
from training.errors import RunError
from training.fit.devices import Devices, all_devices

Weights = dict[str, npt.NDArray[Any]]

_PROGRAM = """
import sys
from training.quiet import start_tensorflow
start_tensorflow()
from tests.training.host_process import main
main(*sys.argv[1:])
"""
"""As the commands do: devices can be chosen only where the start has run no operation."""


def _start(
    run: Path,
    weights: Path,
    *,
    replicas: int = 1,
    batch_norm: bool = False,
    precision: str = "float32",
    **environment: str,
) -> subprocess.Popen[str]:
    arguments = [str(run), str(weights), str(replicas), str(batch_norm), precision]
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        cwd=PROJECT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(processes: list[subprocess.Popen[str]]) -> None:
    try:
        for process in processes:
            _, stderr = process.communicate(timeout=200)
            assert process.returncode == 0, stderr[-4000:]
    finally:
        for process in processes:
            process.kill()


def _load(weights: Path) -> Weights:
    with np.load(weights) as values:
        return dict(values)


def _history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _assert_same(ours: Weights, theirs: Weights, tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for path, weight in ours.items():
        if path != "replicas":
            np.testing.assert_allclose(weight, theirs[path], rtol=tolerance, atol=tolerance)


def _two_hosts(directory: Path, *, batch_norm: bool) -> tuple[Weights, Weights]:
    hosts = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    files = [directory / f"host{index}.npz" for index in range(2)]
    _end(
        [
            _start(
                directory / "hosts",
                files[index],
                batch_norm=batch_norm,
                TF_CONFIG=json.dumps(
                    {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
                ),
            )
            for index in range(2)
        ]
    )
    first, second = (_load(file) for file in files)
    return first, second


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """One device, in this process."""
    directory = tmp_path_factory.mktemp("alone")
    one = Devices(tf.distribute.OneDeviceStrategy("CPU:0"))
    train(directory / "run", directory / "weights.npz", one)
    return directory / "run", _load(directory / "weights.npz")


def _assert_same_figures(ours: Path, theirs: Path) -> None:
    for row, expected in zip(_history(ours), _history(theirs), strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=2e-4), name


@pytest.mark.slow
def test_two_hosts_end_as_one_process_does(alone: tuple[Path, Weights], tmp_path: Path) -> None:
    run, expected = alone

    first, second = _two_hosts(tmp_path, batch_norm=False)

    assert first["replicas"] == second["replicas"] == 2
    _assert_same(first, second, 0.0)
    _assert_same(first, expected, 1e-4)
    _assert_same_figures(tmp_path / "hosts", run)
    assert sorted(path.name for path in (tmp_path / "hosts").iterdir()) == [
        "best.weights.h5",
        "checkpoints",
        "config.json",
        "curves.png",
        "data.json",
        "history.csv",
    ]


@pytest.mark.slow
def test_two_devices_of_a_host_end_as_one_does(alone: tuple[Path, Weights], tmp_path: Path) -> None:
    run, expected = alone

    _end([_start(tmp_path / "run", tmp_path / "weights.npz", replicas=2)])

    weights = _load(tmp_path / "weights.npz")
    assert weights["replicas"] == 2
    _assert_same(weights, expected, 1e-4)
    _assert_same_figures(tmp_path / "run", run)


@pytest.mark.slow
def test_two_devices_scale_the_loss_together(tmp_path: Path) -> None:
    files = [tmp_path / f"{replicas}.npz" for replicas in (1, 2)]
    for replicas, file in enumerate(files, start=1):
        run = tmp_path / f"run{replicas}"
        _end([_start(run, file, replicas=replicas, precision="float16")])

    alone, together = (_load(file) for file in files)
    _assert_same(together, alone, 2e-3)


@pytest.mark.slow
def test_hosts_agree_on_the_statistics_of_batch_norm(tmp_path: Path) -> None:
    first, second = _two_hosts(tmp_path, batch_norm=True)

    assert np.abs(first["stem_bn/moving_mean"]).max() > 1e-3
    _assert_same(first, second, 0.0)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_hosts_share_each_batch(workers: int) -> None:
    examples = dataset(train=15).train

    def batches(worker: int, workers: int, replicas: int) -> list[tuple[Any, ...]]:
        return list(
            train_batches(
                examples,
                size=32,
                batch_size=6,
                seed=0,
                epoch=0,
                augment=True,
                targets=one_hot(examples),
                worker=worker,
                workers=workers,
                replicas=replicas,
            )
        )

    whole = batches(0, 1, 1)
    shares = [batches(worker, workers, workers) for worker in range(workers)]
    assert len(whole) == 2
    for number, (photos, labels, _) in enumerate(whole):
        np.testing.assert_array_equal(photos, np.concatenate([s[number][0] for s in shares]))
        np.testing.assert_array_equal(labels, np.concatenate([s[number][1] for s in shares]))


def test_one_device_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    single = {"cluster": {"worker": ["127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}
    for spec in ("", "{}", json.dumps(single)):
        monkeypatch.setenv("TF_CONFIG", spec)

        devices = all_devices()

        assert (devices.worker, devices.workers, devices.is_chief) == (0, 1, True)
        assert devices.total([2.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(
    "spec",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_malformed_cluster(monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.setenv("TF_CONFIG", spec)

    with pytest.raises(RunError, match="TF_CONFIG"):
        all_devices()


def test_only_the_first_host_is_chief() -> None:
    assert Devices(None, worker=0, workers=2).is_chief
    assert not Devices(None, worker=1, workers=2).is_chief
