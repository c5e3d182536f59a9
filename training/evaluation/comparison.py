"""LIME, KernelSHAP and RISE beside the CAM family: the same photos, boxes and measures.

photo --model, one run-->          CAM family's heatmaps  }  IoU, pointing, insertion,
      --model, `samples` runs-->   perturbed ones         }  deletion, agreement, cost
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from app import heatmaps, images
from app.bundle import Method, ModelCard, Rule
from app.engines import Batch, Cut, Engine
from app.evidence import CURVE_THRESHOLDS, MethodAtLayers
from app.heatmaps import Heatmap
from app.progress import bar
from training.data.dataset import Example
from training.evaluation.inference import Explained, squashed
from training.evaluation.localization import ious, pointing_hit
from training.evaluation.metrics import Floats, mean, resample
from training.evaluation.perturbation import BATCH, Perturbation, load_packages, perturbed
from training.evaluation.sampled import even_within, insertion_deletion_areas, similarity
from training.evaluation.schema import (
    Baselines,
    Compared,
    Comparison,
    Estimate,
    OnSample,
)
from training.evaluation.scoring import default, main_sets, score_of_guess
from training.evaluation.similarity import rank_correlation, structural_similarity
from training.evaluation.statistics import BASELINES, Statistics, by_method, estimates

__all__ = ["comparison", "middle", "others_threshold"]

Map = npt.NDArray[np.float32]
Point = tuple[float, float]
Key = MethodAtLayers | Perturbation
T = TypeVar("T")


def comparison(
    card: ModelCard,
    engine: Engine,
    examples: Sequence[Example],
    methods: Sequence[Perturbation],
    *,
    samples: int,
    seed: int,
) -> Comparison:
    """Every figure of the methods that perturb photos, and the same ones of the CAM family.

    Boxes and pointing are of the true class (GT-known); insertion, deletion and the agreement with
    Grad-CAM of the model's top-1. Both heatmaps of a method come from the same perturbed photos.
    LIME's and KernelSHAP's are normalised as Grad-CAM's, by `heatmaps.relu_max`, and RISE's, which
    are over zero everywhere, as CAM's, by `heatmaps.min_max`.

    No method's threshold is calibrated for this sample. Each photo's box is drawn at the threshold
    with the best mean IoU over all other photos, the CAM family's too.

    Args:
        card: the model's.
        engine: runs it.
        examples: the sample, two photos or more (`drawn_to_compare`), all with boxes or none.
        methods: those that perturb photos.
        samples: perturbed photos for each heatmap.
        seed: of the perturbed photos, of the order of equal pixels, and of the intervals.

    Raises:
        TrainingError: a package that a method needs is not installed.
    """
    sets, methods = main_sets(card), tuple(dict.fromkeys(methods))
    work = _Work(card, engine, methods, samples, seed)
    work.warm_up()
    keys: list[Key] = [*sets, *methods]
    results: dict[Key, list[_Result]] = {key: [] for key in keys}
    guesses: dict[str, list[_Result]] = {name: [] for name in BASELINES}
    with bar("perturbation", total=len(examples) * (1 + len(methods))) as progress:
        for number, example in enumerate(examples):
            photo = work.photo(number, example)
            for name, share in BASELINES.items():
                guesses[name].append(work.guess(photo, share))
            for key, explained in work.explanations(photo):
                results[key].append(work.result(photo, explained))
                if isinstance(key, Perturbation) or key == sets[-1]:
                    progress.update()
    return _summary(sets, methods, results, guesses, samples, seed)


# -- one photo


@dataclass(frozen=True, slots=True)
class _Explanation:
    """One method's heatmaps of a photo.

    Attributes:
        true: for the true class, `[S, S]`; None without evidence.
        peak: of that heatmap, in photo pixels.
        top1: for the top-1, `[S, S]`; None without evidence.
        calls: photos that the model ran on for one heatmap.
        seconds: for one heatmap.
    """

    true: Map | None
    peak: Point | None
    top1: Map | None
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Result:
    """One photo's figures for one method.

    Attributes:
        curve: IoU with the best true box at each of `CURVE_THRESHOLDS`; None without a box. A
            baseline's is the same at all.
        points: whether the heatmap's peak hits.
        areas: insertion and deletion.
        agreement: rank correlation and SSIM with Grad-CAM; NaN where either heatmap is missing.
        blank: whether its heatmap for the true class, the top-1 or both is missing.
        calls: see `_Explanation`.
        seconds: see `_Explanation`.
    """

    curve: Floats | None
    points: bool
    areas: tuple[float, float]
    agreement: tuple[float, float] = (np.nan, np.nan)
    blank: bool = False
    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Photo:
    """A photo, run through the model.

    Attributes:
        number: its place in the sample.
        true: with the outputs for the true class.
        top1: with the outputs for the top-1.
        gradcam: Grad-CAM's heatmap for the top-1, last layer, `[S, S]`; None without evidence.
        areas: insertion and deletion by heatmap, as methods may agree on one.
        seconds: of one run of `Cut.EXPLAIN` (at the last layer) and of `Cut.EXPLAIN_DEEP`.
    """

    number: int
    true: Explained
    top1: Explained
    gradcam: Map | None
    areas: dict[bytes, tuple[float, float]]
    seconds: dict[Cut, float]


@dataclass(frozen=True, slots=True)
class _Work:
    """What explains photos, and measures it."""

    card: ModelCard
    engine: Engine
    methods: tuple[Perturbation, ...]
    samples: int
    seed: int

    def warm_up(self) -> None:
        """Let the engine compile, and the packages load, what is timed later."""
        size = self.card.input.size
        frames = np.zeros((BATCH, size, size, 3), np.uint8)
        self._predict(frames)
        for cut in (Cut.EXPLAIN, Cut.EXPLAIN_DEEP):
            self.engine.run(cut, Batch.of(frames[:1]))
        load_packages(self.methods)

    def _predict(self, frames: npt.NDArray[np.uint8]) -> Map:
        """Probabilities `[n, classes]`; what is not finite counts as 0."""
        return np.nan_to_num(self.engine.run(Cut.PREDICT, Batch.of(frames))["probabilities"])

    def photo(self, number: int, example: Example) -> _Photo:
        """Decode a photo and explain it for its true class and for the model's top-1."""
        decoded, image = squashed(self.card, example)

        def run(cut: Cut, target: int) -> Explained:
            arrays = self.engine.run(cut, Batch.of(image[None], np.array([target], np.int32)))
            outputs = {name: array[0] for name, array in arrays.items()}
            return Explained(self.card, example, decoded.width, decoded.height, image, outputs)

        true = run(Cut.EXPLAIN_DEEP, example.label)
        top1, deep = _timed(partial(run, Cut.EXPLAIN_DEEP, -1))
        _, last = _timed(partial(run, Cut.EXPLAIN, -1))
        gradcam = top1.evidence(default(self.card, Method.GRADCAM), Rule.HEATMAP).values
        return _Photo(number, true, top1, gradcam, {}, {Cut.EXPLAIN: last, Cut.EXPLAIN_DEEP: deep})

    def explanations(self, photo: _Photo) -> Iterator[tuple[Key, _Explanation]]:
        """Every method's heatmaps, the CAM family's first."""
        for layers in main_sets(self.card):
            yield layers, self._from_within(photo, layers)
        for method in self.methods:
            yield method, self._from_outside(photo, method)

    def _from_within(self, photo: _Photo, layers: MethodAtLayers) -> _Explanation:
        evidence, seconds = _timed(partial(photo.true.evidence, layers, Rule.HEATMAP))
        cut = Cut.EXPLAIN if layers.name == "last" else Cut.EXPLAIN_DEEP
        return _Explanation(
            evidence.values,
            evidence.peak(photo.true.width, photo.true.height),
            photo.top1.evidence(layers, Rule.HEATMAP).values,
            calls=1,
            seconds=photo.seconds[cut] + seconds,
        )

    def _from_outside(self, photo: _Photo, method: Perturbation) -> _Explanation:
        classes, calls = [photo.true.example.label, int(photo.top1.outputs["target_index"])], 0

        def predict(frames: npt.NDArray[np.uint8]) -> Map:
            nonlocal calls
            calls += len(frames)
            return self._predict(frames)[:, classes]  # [n, 2]

        order = list(Perturbation).index(method)
        rng = np.random.default_rng((self.seed, photo.number, order))
        raw, seconds = _timed(
            lambda: perturbed(method, predict, photo.true.image, samples=self.samples, rng=rng)
        )
        normalise = heatmaps.min_max if method is Perturbation.RISE else heatmaps.relu_max
        true, top1 = (_values(normalise(values)) for values in raw)
        size = self.card.input.size
        peak = None
        if true is not None:
            peak = images.scale_point(
                middle(true), (size, size), (photo.true.width, photo.true.height)
            )
        return _Explanation(true, peak, top1, calls, seconds)

    def result(self, photo: _Photo, explanation: _Explanation) -> _Result:
        """The figures of a method's heatmaps."""
        true, top1 = explanation.true, explanation.top1
        agreement = (np.nan, np.nan)
        if top1 is not None and photo.gradcam is not None:
            agreement = (
                rank_correlation(top1, photo.gradcam),
                structural_similarity(top1, photo.gradcam),
            )
        return _Result(
            curve=_curve(true, photo.true.boxes_in_input) if photo.true.boxes else None,
            points=pointing_hit(explanation.peak, photo.true.boxes),
            areas=self._areas(photo, top1),
            agreement=agreement,
            blank=true is None or top1 is None,
            calls=explanation.calls,
            seconds=explanation.seconds,
        )

    def guess(self, photo: _Photo, share: images.Box) -> _Result:
        """The figures of a box that ignores the photo."""
        areas = self._areas(photo, even_within(share, self.card.input.size))
        if not photo.true.boxes:
            return _Result(None, False, areas)
        score = score_of_guess(photo.true, share)
        return _Result(np.full(len(CURVE_THRESHOLDS), score.iou), score.points, areas)

    def _areas(self, photo: _Photo, values: Map | None) -> tuple[float, float]:
        if values is None:
            values = np.zeros((self.card.input.size,) * 2, np.float32)
        content = values.tobytes()
        if content not in photo.areas:
            seed = (self.seed, photo.number)
            photo.areas[content] = insertion_deletion_areas(self.engine, photo.top1, values, seed)
        return photo.areas[content]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result, and the seconds that it took."""
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def _values(heatmap: Heatmap) -> Map | None:
    return heatmap.values if heatmap.status == "ok" else None


def _curve(values: Map | None, boxes: Sequence[images.Box]) -> Floats:
    """IoU of a heatmap's box with the best true one at each of `CURVE_THRESHOLDS`."""
    if values is None:
        return np.zeros(len(CURVE_THRESHOLDS))
    found = heatmaps.boxes_at(values, np.array(CURVE_THRESHOLDS, np.float32) * values.max())
    best: Floats = ious(found, boxes).max(axis=1)  # [thresholds, boxes] -> [thresholds]
    return best


def middle(values: Map) -> Point:
    """The peak of a heatmap whose greatest value may fill a whole superpixel.

    Args:
        values: `[h, w]`.

    Returns:
        x, y of the middle of the pixel, among those of the greatest value, that is nearest to their
        centre of gravity; in pixels of the heatmap.
    """
    places = np.argwhere(values == values.max())  # row, column: [n, 2]
    distances = ((places - places.mean(axis=0)) ** 2).sum(axis=1)
    row, column = places[int(np.argmin(distances))]
    return float(column) + 0.5, float(row) + 0.5


# -- all photos


def others_threshold(curves: Floats) -> npt.NDArray[np.intp]:
    """For each of N photos, the best threshold for the mean IoU of the N - 1 others.

    Args:
        curves: IoU of each photo at each threshold, `[N, thresholds]`.

    Returns:
        Indices of thresholds, `[N]`; the lowest of equally good ones.
    """
    others = curves.sum(axis=0) - curves  # [N, thresholds]
    # Sums that are equal but for rounding are equal.
    best: npt.NDArray[np.intp] = others.round(9).argmax(axis=1)
    return best


def _summary(
    sets: Sequence[MethodAtLayers],
    methods: Sequence[Perturbation],
    results: dict[Key, list[_Result]],
    guesses: dict[str, list[_Result]],
    samples: int,
    seed: int,
) -> Comparison:
    constant = _statistics(guesses["constant_box"])
    count = len(guesses["constant_box"])
    weights = resample(count, seed=seed)

    def compared(key: Key) -> Compared:
        photos = results[key]
        figures = estimates(OnSample, _statistics(photos), weights, constant)
        return Compared(
            **dict(figures),
            **({} if _is_gradcam(key) else _agreement(photos, seed)),
            threshold=_threshold(photos),
            blank=sum(photo.blank for photo in photos),
            model_calls=round(float(np.mean([photo.calls for photo in photos])), 1),
            seconds=round(float(np.mean([photo.seconds for photo in photos])), 4),
        )

    return Comparison(
        photos=count,
        samples=samples,
        perturbation={method: compared(method) for method in methods},
        methods=by_method({layers: compared(layers) for layers in sets}),
        baselines=Baselines[OnSample](
            constant_box=estimates(OnSample, constant, weights),
            full_frame=estimates(OnSample, _statistics(guesses["full_frame"]), weights, constant),
        ),
    )


def _is_gradcam(key: Key) -> bool:
    """Whether the agreement with Grad-CAM at the last layer is one with itself."""
    return isinstance(key, MethodAtLayers) and (key.method, key.name) == (Method.GRADCAM, "last")


def _statistics(photos: Sequence[_Result]) -> Statistics:
    """The fields of `OnSample`."""
    insertion, deletion = np.array([photo.areas for photo in photos]).T  # [N] each
    areas = {"insertion": mean(insertion), "deletion": mean(deletion)}
    curves = _curves(photos)
    if curves is None:
        return areas
    iou = curves[np.arange(len(curves)), others_threshold(curves)]  # [N]
    return {
        "mean_iou": mean(iou),
        "gt_known_localization": mean(iou >= 0.5),
        "pointing_game": mean(np.array([photo.points for photo in photos])),
        **areas,
    }


def _curves(photos: Sequence[_Result]) -> Floats | None:
    """IoU of each photo at each threshold, `[N, thresholds]`; None without boxes."""
    curves = [photo.curve for photo in photos if photo.curve is not None]
    return np.stack(curves) if curves else None


def _threshold(photos: Sequence[_Result]) -> float | None:
    curves = _curves(photos)
    return None if curves is None else CURVE_THRESHOLDS[int(curves.mean(axis=0).argmax())]


def _agreement(photos: Sequence[_Result], seed: int) -> dict[str, Estimate | int | None]:
    """Over the photos where both heatmaps are there, and how many others there are."""
    figures = similarity(np.array([photo.agreement for photo in photos]), seed)
    return {
        "rank_correlation": figures.rank_correlation,
        "structural_similarity": figures.structural_similarity,
        "similarity_blank": figures.blank,
    }
