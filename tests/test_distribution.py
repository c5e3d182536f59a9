"""What `pip install .` installs: the dependencies, and no packages under common names."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import app
from benchmarks.protocol import PROJECT


def test_a_wheel_holds_no_code_and_the_version_of_the_service(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in ("pyproject.toml", "README.md", "LICENSE", "app/__init__.py", "app/main.py"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / path, source / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, *options, str(source)], check=True)
    (wheel,) = tmp_path.glob("breedcam-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name.split("/")[0] for name in names} == {f"breedcam-{app.__version__}.dist-info"}
        (path,) = (name for name in names if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(path))
    assert metadata["Version"] == app.__version__
    assert any(name.startswith("openvino") for name in metadata.get_all("Requires-Dist", []))


def test_the_changelog_has_the_version() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {app.__version__} - " in changelog
