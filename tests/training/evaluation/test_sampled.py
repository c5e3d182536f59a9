"""What the sample's figures say of photos without a heatmap."""

import numpy as np

from training.evaluation.sampled import similarity
from training.evaluation.schema import Estimate, Similarity

BLANK, CONSTANT = (np.nan, np.nan), (np.nan, 0.9)


def test_blank_and_constant_heatmaps_are_counted_and_left_out() -> None:
    values = np.array([(0.25, 0.5), BLANK, (0.25, 0.5), BLANK, CONSTANT])

    figures = similarity(values, seed=0)

    assert figures == Similarity(
        rank_correlation=Estimate(value=0.25, interval=(0.25, 0.25)),
        structural_similarity=Estimate(value=0.5, interval=(0.5, 0.5)),
        blank=3,
    )


def test_without_any_heatmap_there_is_no_similarity() -> None:
    assert similarity(np.array([BLANK, CONSTANT]), seed=0) == Similarity(blank=2)


def test_all_photos_count_where_all_have_heatmaps() -> None:
    figures = similarity(np.array([(0.0, 0.1), (0.5, 0.3)]), seed=0)

    assert figures.blank == 0
    assert figures.rank_correlation is not None
    assert figures.rank_correlation.value == 0.25
