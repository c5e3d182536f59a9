import sys
from pathlib import Path

import pytest

from app import bundle as bundles
from app import engines
from app.bundle import INT8_PATH
from app.engines import cpu_has_int8
from tests.training.folders import write_photos
from tests.training.small_networks import tiny_net
from training import cli
from training.commands import int8 as command
from training.export.int8 import gate

fast = pytest.mark.skipif(not cpu_has_int8(), reason="this CPU is not fast at 8-bit integers")


@pytest.fixture
def photos(tmp_path: Path) -> tuple[str, ...]:
    write_photos(tmp_path / "photos", 12)
    return "--source", "folder", "--data-dir", str(tmp_path / "photos")


@pytest.fixture
def keras(tmp_path: Path) -> tuple[str, ...]:
    """Options of `export`: untrained, of two classes."""
    labels = tmp_path / "labels.txt"
    labels.write_text("n00000001\tred dog\nblue dog\n", encoding="utf-8")
    tiny_net(2).save(tmp_path / "own.keras")
    model = ("--keras", str(tmp_path / "own.keras"), "--labels", str(labels))
    return *model, "--models-dir", str(tmp_path), "--name", "own", "--input-size", "32"


@pytest.fixture
def version(tmp_path: Path, keras: tuple[str, ...]) -> Path:
    cli.main(["export", *keras])
    return tmp_path / "own" / "1"


@fast
def test_a_graph_is_added_and_calibrating_keeps_it(
    version: Path, photos: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    model = ("--model", str(version), *photos)
    cli.main(["calibrate", *model])
    before = bundles.load(version).card
    capsys.readouterr()

    cli.main(["int8", *model, "--photos", "8"])

    bundle = bundles.load(version)
    printed = capsys.readouterr()
    assert f"Wrote {version / INT8_PATH}" in printed.err
    assert "points lost" in printed.out.splitlines()[0]
    int8 = bundle.card.int8
    assert int8 is not None
    assert int8.calibration_photos == 8
    assert int8.before.ece is not None
    assert bundle.card.replace(int8=None, checksums=before.checksums) == before
    assert bundle.card.checksums.keys() - before.checksums.keys() == {
        INT8_PATH.as_posix(),
        INT8_PATH.with_suffix(".bin").as_posix(),
    }
    assert engines.create(bundle, engine="openvino").info.precision == "int8"

    cli.main(["calibrate", *model])

    assert "was accepted with the calibration before this one" in capsys.readouterr().err
    assert bundles.load(version).card.int8 == int8


@fast
def test_a_graph_that_loses_too_much_is_refused(
    version: Path,
    photos: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command_line = ["int8", "--model", str(version), *photos]
    monkeypatch.setattr(gate, "MAY_LOSE", 1)  # the network is untrained
    cli.main([*command_line, "--photos", "4"])
    before = bundles.load(version).card
    monkeypatch.setattr(gate, "MAY_LOSE", -2)  # two more than all of it would have to be gained
    capsys.readouterr()

    with pytest.raises(SystemExit, match=r"Refused: in 8-bit integers .* points of top-1 accuracy"):
        cli.main([*command_line, "--photos", "8"])

    assert "top-1 accuracy" in capsys.readouterr().out
    assert bundles.load(version).card == before  # the accepted graph and its checksums, too
    assert sorted(path.name for path in version.parent.iterdir()) == ["1"]


@fast
def test_export_adds_a_graph_as_well(
    tmp_path: Path, keras: tuple[str, ...], photos: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MAY_LOSE", 1)  # the network is untrained

    cli.main(["export", *keras, *photos, "--int8"])

    assert bundles.load(tmp_path / "own" / "1").card.int8 is not None


@fast
def test_export_without_photos_is_refused_before_any_work(
    tmp_path: Path, keras: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit, match="--int8 needs photos of the classes"):
        cli.main(["export", *keras, "--int8"])
    assert not (tmp_path / "own").exists()


def test_what_cannot_be_made_is_refused(
    version: Path, photos: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["int8", "--model", str(version), *photos]
    card = bundles.load(version).card
    card.replace(precision="float32").write(version)
    with pytest.raises(SystemExit, match="predicts what it should in float32 only"):
        cli.main(options)
    card.write(version)
    monkeypatch.setattr(command, "cpu_has_int8", lambda: True)
    for name in [name for name in sys.modules if name.startswith("training.export.int8")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(SystemExit, match=r"needs the extra `int8`.*make \.venv/\.int8"):
        cli.main(options)
    monkeypatch.setattr(command, "cpu_has_int8", lambda: False)
    with pytest.raises(SystemExit, match="this CPU has none of AVX-512 VNNI"):
        cli.main(options)
