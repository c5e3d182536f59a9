import pytest

from benchmarks import variants

FEW = {
    variants.AS_IS: ("--engine", "openvino"),
    "streams": ("--engine", "openvino", "--streams", "2"),
    "none such": ("--engine", "openvino", "--precision", "float8"),
}


@pytest.mark.slow
def test_each_variant_is_held_against_the_engine_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "VARIANTS", FEW)
    monkeypatch.setattr(variants, "CUTS", ("predict",))
    monkeypatch.setenv("BREEDCAM_MAX_BATCH", "2")

    part = variants.run(1)

    for table in part.tables:
        assert [row[0] for row in table.rows] == [variants.AS_IS, "streams"]
        assert table.rows[0][1].endswith(": 1.00")
    (missing,) = part.missing
    assert missing.startswith("none such")
