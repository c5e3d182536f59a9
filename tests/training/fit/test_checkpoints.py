from pathlib import Path

import pytest
import tensorflow as tf

from training.errors import RunError
from training.fit.checkpoints import Checkpoints


def _checkpoints(directory: Path, value: float = 0.0) -> tuple[Checkpoints, tf.Variable]:
    variable = tf.Variable(tf.fill((64,), value))
    return Checkpoints(directory, tf.train.Checkpoint(variable=variable)), variable


def test_nothing_to_restore(tmp_path: Path) -> None:
    checkpoints, variable = _checkpoints(tmp_path / "absent", 3.0)

    assert checkpoints.restore() is None
    assert variable.numpy()[0] == 3


def test_newest_is_restored_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints, variable = _checkpoints(tmp_path)
    for value in range(12):
        variable.assign(tf.fill((64,), float(value)))
        checkpoints.save()
    again, other = _checkpoints(tmp_path)

    assert again.restore()

    assert set(other.numpy()) == {11}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000011", "000012"]


def test_draft_of_a_killed_process_does_not_count(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path, 5.0)
    checkpoints.save()
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "state.index").write_bytes(b"half")
    again, variable = _checkpoints(tmp_path)

    assert again.restore()
    again.save()

    assert variable.numpy()[0] == 5
    assert not draft.exists()


@pytest.mark.parametrize("damage", ["index", "data", "absent"])
def test_corrupt_checkpoint_is_named_and_can_be_removed(tmp_path: Path, damage: str) -> None:
    checkpoints, variable = _checkpoints(tmp_path, 1.0)
    checkpoints.save()
    variable.assign(tf.fill((64,), 2.0))
    checkpoints.save()
    newest = tmp_path / "000002"
    for path in newest.iterdir():
        if damage == "absent":
            path.unlink()
        elif damage in path.name:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    again, _ = _checkpoints(tmp_path)
    with pytest.raises(RunError, match=r"000002 cannot be read .* the one before"):
        again.restore()

    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    mended, other = _checkpoints(tmp_path)
    assert mended.restore()
    assert other.numpy()[0] == 1


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    checkpoints, _ = _checkpoints(tmp_path)
    checkpoints.save()
    other = Checkpoints(tmp_path, tf.train.Checkpoint(another=tf.Variable(0.0)))

    with pytest.raises(RunError, match="start the run anew"):
        other.restore()


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checkpoints, _ = _checkpoints(tmp_path / "file")

    with pytest.raises(RunError, match=r"cannot be written .* --resume"):
        checkpoints.save()
