from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import EngineUnavailable
from tests import needs

ABSENT: tuple[Callable[[], object], ...] = (
    lambda: needs.shared("no-such-photos"),
    lambda: needs.tool("no-such-program", "nor-this-one"),
)


@pytest.mark.parametrize("need", ABSENT)
def test_what_is_absent_skips_here_and_fails_in_ci(
    need: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^needs .*no-such"):
        need()

    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match=r"^needs .*no-such"):
        need()


def test_what_is_there_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(needs, "SHARED", tmp_path)
    (tmp_path / "photos").mkdir()

    assert needs.shared("photos") == tmp_path / "photos"
    assert Path(needs.tool("no-such-program", "sh")).name == "sh"


def test_a_precision_that_the_cpu_lacks_skips_and_an_engine_that_is_absent_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.skip.Exception), needs.precision():
        raise EngineUnavailable("BREEDCAM_PRECISION=bfloat16, and this CPU has no bfloat16.")
    with pytest.raises(EngineUnavailable), needs.precision():
        raise EngineUnavailable("OpenVINO is not installed.")
