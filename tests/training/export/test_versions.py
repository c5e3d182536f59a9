"""Versions on disk: whole or not there, whatever happens to the export."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from app.bundle import Bundle, BundleError, ModelCard, checksums, find_version, load
from training.errors import ExportError
from training.export.explained import ExplainedNetwork
from training.export.versions import check_free, next_version, revision, write


def test_card_is_written_with_checksums(small_bundle: Bundle, card: ModelCard) -> None:
    assert small_bundle.card.checksums == checksums(small_bundle.path)
    assert "saved_model.pb" in small_bundle.card.checksums
    assert [(layer.height, layer.width) for layer in small_bundle.card.layers] == [
        (8, 8),
        (4, 4),
        (4, 4),
    ]
    assert small_bundle.card.model_copy(update={"checksums": {}}) == card


def test_existing_version_is_kept_without_overwrite(
    explained: ExplainedNetwork, card: ModelCard, tmp_path: Path
) -> None:
    version_dir = tmp_path / "small" / "3"
    write(explained, version_dir, card)
    (version_dir / "mark").touch()

    with pytest.raises(ExportError, match="already exists"):
        write(explained, version_dir, card)
    assert (version_dir / "mark").exists()

    write(explained, version_dir, card, overwrite=True)
    assert load(version_dir).card.name == "small"
    assert sorted(path.name for path in version_dir.parent.iterdir()) == ["3"]


def test_old_version_is_whole_until_the_new_one_is_in_place(
    explained: ExplainedNetwork, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version_dir = tmp_path / "small" / "3"
    write(explained, version_dir, card)
    before = load(version_dir).card
    real = Path.rename
    moves: list[tuple[str, str]] = []

    def rename(path: Path, target: Path) -> Path:
        moves.append((path.name, target.name))
        if path.name.endswith(".draft"):
            assert load(path.with_name(".3.old")).card == before  # aside, and untouched
            with pytest.raises(BundleError, match="holds no model version"):
                find_version(path.parent)
            raise OSError("no room")
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(OSError, match="no room"):
            write(explained, version_dir, card, overwrite=True)

    assert moves == [("3", ".3.old"), (".3.draft", "3"), (".3.old", "3")]
    assert load(version_dir.parent).card == before

    write(explained, version_dir, card, overwrite=True)
    assert sorted(path.name for path in version_dir.parent.iterdir()) == ["3"]


@pytest.mark.parametrize(
    ("owner", "function", "killed_at", "surviving_licence"),
    [(Path, "rename", ".3.draft", "old"), (shutil, "rmtree", ".3.old", "new")],
    ids=["between its renames", "before it deletes the old version"],
)
def test_export_after_one_that_was_killed(
    explained: ExplainedNetwork,
    card: ModelCard,
    tmp_path: Path,
    owner: Any,
    function: str,
    killed_at: str,
    surviving_licence: str,
) -> None:
    version_dir = tmp_path / "small" / "3"
    old, new = (card.model_copy(update={"licence": licence}) for licence in ("old", "new"))
    write(explained, version_dir, old)
    real = getattr(owner, function)

    def killed(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == killed_at:
            raise SystemExit
        return real(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, function, killed)
        with pytest.raises(SystemExit):
            write(explained, version_dir, new, overwrite=True)
    assert (version_dir.parent / ".3.old").exists()
    assert next_version(version_dir.parent) == 4

    write(explained, version_dir.with_name("4"), card.model_copy(update={"version": 4}))

    assert load(version_dir).card.licence == surviving_licence
    assert {path.name for path in version_dir.parent.iterdir()} - {".3.draft"} == {"3", "4"}


def test_place_must_match_the_card(
    explained: ExplainedNetwork, card: ModelCard, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="not the directory of small version 3"):
        write(explained, tmp_path / "other" / "3", card)


@pytest.mark.parametrize("name", ["..", "a b", "-x", "x" * 65, "a\nb", "\u00e4"])
def test_name_that_is_no_directory_of_its_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is not a valid model name"):
        check_free(tmp_path / "models" / name / "1", overwrite=True)


def test_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "models").touch()

    with pytest.raises(ExportError, match="models is no writable directory"):
        check_free(tmp_path / "models" / "own" / "1", overwrite=False)


def test_next_version(tmp_path: Path) -> None:
    assert next_version(tmp_path / "none") == 1
    for name in ("2", "10", "notes"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == 11


def test_a_revision_takes_its_versions_place(
    explained: ExplainedNetwork, card: ModelCard, tmp_path: Path
) -> None:
    version_dir = tmp_path / "small" / "3"
    before = write(explained, version_dir, card)

    with revision(version_dir) as draft:
        (draft / "more").write_bytes(b"more")
        after = before.replace(licence="another", checksums=checksums(draft))
        after.write(draft)
        assert load(version_dir).card == before

    assert load(version_dir).card == after
    assert sorted(path.name for path in version_dir.parent.iterdir()) == ["3"]


def test_a_revision_that_fails_leaves_the_version(
    explained: ExplainedNetwork, card: ModelCard, tmp_path: Path
) -> None:
    version_dir = tmp_path / "small" / "3"
    before = write(explained, version_dir, card)

    def interrupted() -> None:
        with revision(version_dir) as draft:
            (draft / "more").write_bytes(b"more")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert load(version_dir).card == before
    assert sorted(path.name for path in version_dir.parent.iterdir()) == ["3"]
