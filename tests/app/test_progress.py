import pytest

from app.progress import bar


def test_log_gets_a_line_at_the_end_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in bar("photos", range(500)):
        pass

    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "\r" not in text
    assert text.startswith("photos: 100%")
    assert "500/500" in text


def test_log_gets_a_line_an_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with bar("photos", total=20) as progress:
        progress._time = lambda: now[0]
        for _ in range(20):
            now[0] += 10
            progress.update()

    shares = [line.split("|")[0] for line in capsys.readouterr().err.splitlines()]
    assert shares == [f"photos: {share:3}%" for share in (15, 30, 45, 60, 75, 90, 100)]


def test_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    for _ in bar("photos", range(3)):
        pass

    assert capsys.readouterr().err.count("\r") >= 2
