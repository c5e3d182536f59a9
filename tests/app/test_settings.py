from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import PROJECT, Settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BREEDCAM_{name.upper()}", raising=False)


def made(name: str, value: float) -> Settings:
    others = {"max_bytes": {"max_pending_bytes": 10**12}, "max_pending_bytes": {"max_bytes": 1024}}
    return Settings.model_validate({name: value, **others.get(name, {})})


BOUNDS: list[tuple[str, float, float, float | None, float | None]] = [
    # name, least, most, just under, just over
    ("port", 0, 65535, -1, 65536),
    ("threads", 0, 1024, -1, 1025),
    ("max_bytes", 1024, 10**12, 1023, None),
    ("max_pixels", 1, 10**12, 0, None),
    ("max_pending", 1, 100_000, 0, 100_001),
    ("max_pending_bytes", 1024, 10**12, 1023, None),
    ("max_batch", 1, 64, 0, 65),
    ("batch_wait_ms", 0, 1000, -0.001, 1000.001),
    ("deadline_s", 0.001, 3600, 0, 3600.001),
    ("stuck_s", 0.001, 3600, 0, 3600.001),
    ("decoders", 1, 64, 0, 65),
    ("decode_s", 0.001, 3600, 0, 3600.001),
    ("max_pending_pixels", 1, 10**12, 0, None),
    ("max_connections", 1, 100_000, 0, 100_001),
    ("header_timeout_s", 0.001, 3600, 0, 3600.001),
    ("read_timeout_s", 0.001, 3600, 0, 3600.001),
    ("write_timeout_s", 0.001, 3600, 0, 3600.001),
    ("keep_alive_s", 0.001, 3600, 0, 3600.001),
    ("image_threads", 1, 64, 0, 65),
    ("model_poll_s", 0, 3600, -0.001, 3600.001),
    ("overlay_size", 16, 1024, 15, 1025),
]


@pytest.mark.parametrize(("name", "least", "most", "under", "over"), BOUNDS)
def test_bounds(
    name: str, least: float, most: float, under: float | None, over: float | None
) -> None:
    for good in (least, most):
        assert getattr(made(name, good), name) == good
    for bad in (under, over):
        if bad is not None:
            with pytest.raises(ValidationError, match=name):
                made(name, bad)


def test_one_photo_of_the_largest_size_has_to_fit() -> None:
    assert Settings(max_bytes=5000, max_pending_bytes=5000).max_pending_bytes == 5000
    for wrong in ({"max_pending_bytes": 19_999_999}, {"max_bytes": 256_000_001}):
        with pytest.raises(ValidationError, match="is less than BREEDCAM_MAX_BYTES") as caught:
            Settings.model_validate(wrong)
        assert caught.value.errors()[0]["loc"] == ("max_pending_bytes",)


def test_a_file_of_keys_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREEDCAM_API_KEYS_FILE", "")
    with pytest.raises(ValidationError, match="it names no file; unset it"):
        Settings()


def test_every_number_has_its_bounds_tested() -> None:
    kinds = (int, float)
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in kinds}
    assert numbers | {"batch_wait_ms"} == {name for name, *_ in BOUNDS}


def test_defaults_are_within_their_own_bounds() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert Settings.model_validate(defaults) == Settings()


def test_every_setting_has_a_line_of_help() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("engine", "onnx"),
        ("device", "tpu"),
        ("precision", "int4"),
        ("log_level", "verbose"),
        ("port", "http"),
        ("port", ""),
        ("max_batch", "8.5"),
        ("deadline_s", "nan"),
        ("deadline_s", "inf"),
        ("batch_wait_ms", "nan"),
    ],
)
def test_an_environment_that_cannot_be_right_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"BREEDCAM_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "9000", 9000),
        ("deadline_s", "2.5", 2.5),
        ("engine", "tensorflow", "tensorflow"),
        ("host", "0.0.0.0", "0.0.0.0"),
        ("model", "models/other/4", Path("models/other/4")),
    ],
)
def test_the_environment_is_read_with_its_prefix(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(f"BREEDCAM_{name.upper()}", text)
    assert getattr(Settings(), name) == value


def test_without_the_prefix_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9")
    monkeypatch.setenv("HOST", "example.org")
    settings = Settings()
    assert (settings.port, settings.host) == (8000, "127.0.0.1")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_batches"):
        Settings(max_batches=8)  # type: ignore[call-arg]


def test_it_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


class TestModelPath:
    def test_a_relative_path_starts_at_the_project(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert Settings(model=Path("models/x")).model_path == PROJECT / "models" / "x"

    def test_an_absolute_path_is_left_as_it_is(self, tmp_path: Path) -> None:
        assert Settings(model=tmp_path).model_path == tmp_path

    def test_the_project_holds_the_app(self) -> None:
        assert PROJECT.is_absolute()
        assert (PROJECT / "app" / "settings.py").is_file()
        assert (PROJECT / "pyproject.toml").is_file()


def test_waiting_for_company_is_for_gpus_unless_told() -> None:
    assert [Settings().batch_wait_s(on_gpu=on_gpu) for on_gpu in (False, True)] == [0, 0.003]
    settings = Settings(batch_wait_ms=20)
    assert [settings.batch_wait_s(on_gpu=on_gpu) for on_gpu in (False, True)] == [0.02, 0.02]


def test_variables_that_are_no_setting_are_found() -> None:
    names = ["BREEDCAM_PROT", "breedcam_port", "BREEDCAM_MODEL", "PATH", "XBREEDCAM_Y"]
    assert Settings.unknown(names) == ["BREEDCAM_PROT"]


KEY = "correct-horse-battery-staple"


class TestKeys:
    @pytest.mark.parametrize(
        ("text", "keys"),
        [
            (KEY, [KEY]),
            (f" {KEY} ,{KEY}2,", [KEY, f"{KEY}2"]),
            ("Q0FNIGFuZCBHcmFkLUNBTQ==", ["Q0FNIGFuZCBHcmFkLUNBTQ=="]),
            ("0123456789abcdef", ["0123456789abcdef"]),
        ],
    )
    def test_they_are_separated_by_commas(
        self, monkeypatch: pytest.MonkeyPatch, text: str, keys: list[str]
    ) -> None:
        monkeypatch.setenv("BREEDCAM_API_KEYS", text)
        assert [key.get_secret_value() for key in Settings().keys] == keys

    def test_those_of_a_file_are_added(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        file = tmp_path / "keys"
        file.write_text(f"# since May\n{KEY}1\n\n  {KEY}2\t\r\n", encoding="utf-8")
        monkeypatch.setenv("BREEDCAM_API_KEYS", f"{KEY}0")
        monkeypatch.setenv("BREEDCAM_API_KEYS_FILE", str(file))
        keys = [key.get_secret_value() for key in Settings().keys]
        assert keys == [f"{KEY}0", f"{KEY}1", f"{KEY}2"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "there is no key"),
            (" , ", "there is no key"),
            ("0123456789abcde", "key 1 is weak: it has 15 characters; 16 are needed"),
            ("abcd" * 9, "key 1 is weak: it repeats 4 character"),
            (f"{KEY},swordfish", "key 2 is weak"),
            (f"{KEY} {KEY}", "key 1 has characters"),
            (f"{KEY}é", "key 1 has characters"),
            (f"{KEY}==x", "key 1 has characters"),
        ],
    )
    def test_none_and_weak_ones_are_refused_without_their_text(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
    ) -> None:
        file = tmp_path / "keys"
        file.write_text(text.replace(",", "\n"), encoding="utf-8")
        for name, value in (("API_KEYS", text), ("API_KEYS_FILE", str(file))):
            with monkeypatch.context() as patch:
                patch.setenv(f"BREEDCAM_{name}", value)
                with pytest.raises(ValidationError, match=message) as caught:
                    Settings()
            for word in ("swordfish", KEY, "abcdabcd", "0123456789abcde"):
                assert word not in str(caught.value)
            assert caught.value.errors()[0]["loc"] == (name.lower(),)

    @pytest.mark.parametrize(
        ("content", "message"),
        [(None, "No such file"), (b"\xff\xfe\x00", "not UTF-8"), (b"# none\n", "no key")],
    )
    def test_a_file_without_keys_is_refused(
        self, tmp_path: Path, content: bytes | None, message: str
    ) -> None:
        file = tmp_path / "keys"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ValidationError, match=message):
            Settings.model_validate({"api_keys_file": file})
        with pytest.raises(ValidationError, match="Is a directory"):
            Settings.model_validate({"api_keys_file": tmp_path})

    def test_they_are_hidden(self) -> None:
        settings = Settings.model_validate({"api_keys": KEY})
        assert settings.keys[0].get_secret_value() == KEY
        for text in (repr(settings), str(settings), settings.model_dump_json()):
            assert KEY not in text


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("cors_origins", "", ()),
        ("cors_origins", "*", ("*",)),
        (
            "cors_origins",
            "https://Dogs.example, http://localhost:3000,http://[::1]:80",
            ("https://dogs.example", "http://localhost:3000", "http://[::1]:80"),
        ),
        ("trusted_hosts", "Dogs.example,*.pets.example", ("dogs.example", "*.pets.example")),
        ("trusted_hosts", "[::1], 10.0.0.7", ("[::1]", "10.0.0.7")),
        ("trusted_proxies", "", ()),
        ("trusted_proxies", "10.0.0.0/8, fd00::1", ("10.0.0.0/8", "fd00::1")),
        ("trusted_proxies", "*", ("*",)),
        ("root_path", "/", ""),
        ("root_path", "", ""),
        ("root_path", "/pets/dogs/", "/pets/dogs"),
    ],
)
def test_lists_and_paths_are_read(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, values: Any
) -> None:
    monkeypatch.setenv(f"BREEDCAM_{name.upper()}", text)
    assert getattr(Settings(), name) == values


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cors_origins", "https://dogs.example/"),
        ("cors_origins", "dogs.example"),
        ("cors_origins", "null"),
        ("cors_origins", "https://*.dogs.example"),
        ("cors_origins", "https://me@dogs.example"),
        ("trusted_hosts", ""),
        ("trusted_hosts", "dogs.example:80"),
        ("trusted_hosts", "https://dogs.example"),
        ("trusted_hosts", "dogs.*"),
        ("trusted_hosts", "*dogs.example"),
        ("trusted_proxies", "localhost"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("root_path", "pets"),
        ("root_path", "//pets"),
        ("root_path", "/pets/../dogs"),
        ("root_path", "/pets?x"),
        ("root_path", "https://dogs.example/pets"),
        ("docs", "maybe"),
    ],
)
def test_lists_and_paths_that_cannot_be_right_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"BREEDCAM_{name.upper()}", text)
    with pytest.raises(ValidationError, match=name):
        Settings()
