import pytest

from benchmarks import variants


def test_each_variant_is_held_against_the_engine_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "VARIANTS", {variants.AS_IS: ("--engine", "openvino")})
    monkeypatch.setenv("BREEDCAM_MAX_BATCH", "2")
    monkeypatch.setattr(variants, "CUTS", ("predict",))

    part = variants.run(1)

    one, two = part.tables
    assert [row[0] for row in one.rows] == [variants.AS_IS]
    assert one.rows[0][1].endswith(": 1.00")
    assert [row[0] for row in two.rows] == [
        variants.AS_IS,
        variants.TWO_STREAMS,
        variants.TWO_BUSY,
    ]


def test_variant_that_is_not_to_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "VARIANTS", {variants.AS_IS: ("--engine", "openvino")})
    monkeypatch.setattr(variants, "STREAMS", ("--precision", "float8"))
    monkeypatch.setenv("BREEDCAM_MAX_BATCH", "2")
    monkeypatch.setattr(variants, "CUTS", ("predict",))

    part = variants.run(1)

    assert len(part.missing) == 1
    assert part.missing[0].startswith(variants.TWO_STREAMS)
