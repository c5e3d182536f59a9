import pytest

from app.bundle import Label, ModelCard
from app.classes import classes_of
from app.errors import RequestError, UnknownTarget
from app.model import NO_CLASS, Classes
from app.schemas import CamQuery, CompareQuery


def labels(*names: tuple[str, str | None]) -> tuple[Label, ...]:
    return tuple(
        Label(index=index, name=name, synset=synset) for index, (name, synset) in enumerate(names)
    )


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("0", 0),
        ("n01", 0),
        ("N01", 0),
        ("Old English Sheepdog", 0),
        ("old_english_sheepdog", 0),
        ("  OLD  english_Sheepdog ", 0),
        ("shih-tzu", 1),
        ("Shih_Tzu", 1),
        ("shih tzu", 1),
        ("straße", 2),
        ("STRASSE", 2),
        # A label that looks like another's index: the index wins.
        ("1", 1),
        ("3", 3),
        ("-1", None),
        ("- 1", None),
        ("4", None),
        ("01", None),
        ("n", None),
        ("shih", None),
        ("_", None),
    ],
)
def test_class_names(card: ModelCard, target: str, index: int | None) -> None:
    named = labels(
        ("Old_English_sheepdog", "n01"), ("shih-tzu", None), ("Straße", None), ("1", "n04")
    )
    toy = card.replace(labels=named)
    if index is None:
        with pytest.raises(UnknownTarget):
            classes_of(toy, CamQuery(target=target))
    else:
        assert classes_of(toy, CamQuery(target=target)) == [Classes(index)]


def test_a_target_that_may_mean_two_classes_is_refused(card: ModelCard) -> None:
    toy = card.replace(labels=labels(("Pug", None), ("pug", None), ("beagle", None)))
    with pytest.raises(UnknownTarget, match=r"`target`: 'PUG' .* 0 \(Pug\), 1 \(pug\)\."):
        classes_of(toy, CamQuery(target="PUG"))
    assert classes_of(toy, CamQuery(target="pug")) == [Classes(1)]


class TestSeveral:
    def test_in_the_order_of_the_request_each_against_the_same(self, card: ModelCard) -> None:
        query = CompareQuery(target=["7", "0", card.labels[3].name], versus="5")
        assert classes_of(card, query) == [Classes(7, 5), Classes(0, 5), Classes(3, 5)]

    def test_without_a_name_it_is_the_likeliest(self, card: ModelCard) -> None:
        assert classes_of(card, CompareQuery()) == [Classes(NO_CLASS, NO_CLASS)]
        assert classes_of(card, CompareQuery(versus="5")) == [Classes(NO_CLASS, 5)]

    def test_one_class_by_two_names_is_refused(self, card: ModelCard) -> None:
        name = card.labels[2].name.upper()
        with pytest.raises(RequestError, match=f"`target`: '2' and '{name}' name the same class"):
            classes_of(card, CompareQuery(target=["2", "1", name]))

    def test_none_may_be_the_class_explained_against(self, card: ModelCard) -> None:
        with pytest.raises(RequestError, match="`target` and `versus` name the same class"):
            classes_of(card, CompareQuery(target=["2", "1"], versus="1"))
