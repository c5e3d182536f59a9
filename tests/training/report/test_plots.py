"""What is drawn is where the figures are."""

import re
from xml.etree import ElementTree

import pytest

from app.bundle import Rule
from training.evaluation.schema import Curve, Curves, ReliabilityBin
from training.report import plots

SVG = "{http://www.w3.org/2000/svg}"


def _texts(drawn: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


def _bars(drawn: str, axes: int) -> list[tuple[float, float]]:
    """Left edge and height of the bars in the axes of that number, in points."""
    root = ElementTree.fromstring(drawn)
    (group,) = (g for g in root.iter(f"{SVG}g") if g.attrib.get("id") == f"plot-axes_{axes}")
    bars = []
    for path in group.iter(f"{SVG}path"):
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.attrib["d"])]
        if "clip-path" in path.attrib and path.attrib["d"].rstrip().endswith("z"):
            xs, ys = numbers[::2], numbers[1::2]
            bars.append((min(xs), max(ys) - min(ys)))
    return bars


def _bin(low: float, photos: int, confidence: float, accuracy: float) -> ReliabilityBin:
    return ReliabilityBin(
        low=low, high=low + 0.2, photos=photos, confidence=confidence, accuracy=accuracy
    )


@pytest.mark.parametrize(("count", "label"), [(99, "photos"), (100, "photos (log)")])
def test_reliability_has_a_bar_a_bin_and_counts_on_a_log_axis_if_need_be(
    count: int, label: str
) -> None:
    empty = ReliabilityBin(low=0, high=0.2, photos=0)
    bins = [empty, _bin(0.4, 1, 0.5, 0.4), _bin(0.8, count, 0.9, 0.8)]

    drawn = plots.reliability("plot", "A title", bins)

    (first, second) = _bars(drawn, 1)
    assert second[1] == pytest.approx(2 * first[1], rel=1e-4)  # accuracy 0.8 and 0.4
    assert label in _texts(drawn)
    assert ("photos (log)" in _texts(drawn)) is (count == 100)
    ones, many = (height for _, height in _bars(drawn, 2))
    assert 0 < ones < many


def test_histogram_counts_photos_and_names_the_means() -> None:
    ious = {Rule.HEATMAP: [0.11, 0.12, 0.61], Rule.FUSED: [0.9, 0.9, 0.3]}

    drawn = plots.histogram("plot", "A title", ious, 0.5)

    heights = [height for _, height in _bars(drawn, 1) if height > 0]
    assert heights[0] == pytest.approx(2 * heights[1], rel=1e-4)
    texts = _texts(drawn)
    assert "rule heatmap, mean 0.280" in texts
    assert "rule fused, mean 0.700" in texts
    assert "constant box, mean 0.500" in texts


def test_curves_have_a_line_for_each_layer_set_and_rule() -> None:
    curve = Curve(
        mean_iou=[0.2, 0.4],
        best_threshold=0.6,
        best_mean_iou=0.4,
        oracle_mean_iou=0.5,
        threshold=0.4,
        calibrated=True,
    )
    both = Curves(thresholds=[0.2, 0.6], heatmap=curve, fused=curve)
    sets = {"last": both, "last6": Curves(thresholds=[0.2, 0.6], heatmap=curve)}

    texts = _texts(plots.curves("plot", "A title", sets, 0.3))

    assert {"last layer, heatmap", "last layer, fused", "last six layers, heatmap"} <= set(texts)
    assert "last six layers, fused" not in texts
    assert "constant box" in texts
