"""The Dockerfile, and what goes into its build."""

import re
import subprocess
from pathlib import Path

import pytest

from app.settings import PROJECT, Settings
from training.export import terms

DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")


def stage(name: str) -> str:
    """The lines of a stage."""
    [text] = re.findall(rf"^FROM \S+ AS {name}$(.*?)(?=^FROM )", DOCKERFILE, re.M | re.S)
    return str(text)


def test_a_build_without_a_target_is_for_a_cpu() -> None:
    assert DOCKERFILE.rstrip().splitlines()[-1] == "FROM cpu"


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_service_is_no_root_and_is_probed(target: str) -> None:
    lines = stage(target)

    assert "\nUSER 10001:10001\n" in lines
    assert re.search(r'^HEALTHCHECK .* CMD \["python", "probe.py"\]$', lines, re.M)
    assert '\nCMD ["python", "-m", "app.main"]\n' in lines


def test_a_gpu_has_more_time_to_start() -> None:
    [cpu], [gpu] = (
        re.findall(r"--start-period=(\d+)s", stage(target)) for target in ("cpu", "gpu")
    )
    assert int(cpu) < int(gpu)


def test_the_image_has_the_models_of_the_repository_and_no_others() -> None:
    default = Settings.model_fields["model"].default

    for target in ("cpu", "gpu"):
        copied = re.findall(r"^COPY (models\S*) ", stage(target), re.M)
        assert copied == [f"{default}", f"{default}-lite"]
    sent = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert [line for line in sent if "models" in line] == [f"!{default}", f"!{default}-lite"]


def test_what_is_copied_is_sent_to_the_engine() -> None:
    """.dockerignore leaves everything out but what it names."""
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = tuple(line.removeprefix("!") for line in ignored if line.startswith("!"))
    copied = [
        source
        for source in re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.M)
        if not source.startswith("requirements/")
    ]

    assert ignored[0] == "*"
    assert len(copied) >= 8
    assert set(copied) <= set(sent)


def test_image_tells_the_terms_of_the_model_in_it() -> None:
    base = stage("base")

    assert f'org.breedcam.model.terms="{terms.IMAGENET}"' in base
    assert 'org.opencontainers.image.licenses="MIT"' in base
    for target in ("cpu", "gpu", "training"):
        assert re.search(rf"^FROM base AS {target}$", DOCKERFILE, re.M)


def test_slim_removes_what_serving_never_reads(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.12" / "site-packages"
    kept = [
        "numpy/__init__.py",
        "openvino/libs/libopenvino_intel_cpu_plugin.so",
        "openvino/libs/libopenvino_ir_frontend.so.2641",
        "openvino/libs/libopenvino_tensorflow_frontend.so.2641",
        "openvino/frontend/tensorflow/__init__.py",
    ]
    removed = [
        "numpy/core/tests/test_it.py",
        "openvino/include/openvino.hpp",
        "openvino/libs/libopenvino_intel_gpu_plugin.so",
        "openvino/libs/libopenvino_tensorflow_lite_frontend.so.2641",
        "pip/__init__.py",
    ]
    for name in (*kept, *removed):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip3").touch()

    subprocess.run(["sh", str(PROJECT / "deploy" / "slim.sh"), str(tmp_path)], check=True)

    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert left == set(kept)
    assert not list((tmp_path / "bin").iterdir())
