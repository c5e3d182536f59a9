import json
import re
import unicodedata
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from app import bundle
from app.bundle import (
    CARD_PATH,
    DEFAULT_THRESHOLD,
    Confidence,
    Foreground,
    Fused,
    Input,
    Label,
    Layer,
    Method,
    ModelCard,
    Novelty,
    checksums,
    find_version,
    load,
)
from app.errors import BundleError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of `abc`, from FIPS 180-2."""
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "toy",
        "version": 3,
        "architecture": "resnet50",
        "head": "gap_dense",
        "input": Input(size=64),
        "labels": (Label(index=0, synset="n1", name="beagle"), Label(index=1, name="pug")),
        "layers": (Layer(name="early", height=8, width=8), Layer(name="late", height=4, width=4)),
        "foreground": Foreground(rule="ddt", photos=12),
    }
    return ModelCard(**fields | changes)


LIMITS = Confidence(
    temperature=1.5,
    least_probability=0.3,
    least_foreground=-1e9,
    most_novelty=None,
    photos=100,
    ece=0.02,
    ece_before=0.06,
)


EARLY = Foreground(rule="boxes", photos=1, layers=("early",))


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """`models/toy/3`, whole and sealed."""
    path = tmp_path / "models" / "toy" / "3"
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"abc")
    (path / "variables" / "variables.index").write_bytes(b"")
    card(checksums=checksums(path)).write(path)
    return path


class TestChecksums:
    def test_every_file_but_the_card_by_posix_path(self, version: Path) -> None:
        assert checksums(version) == {"saved_model.pb": ABC, "variables/variables.index": EMPTY}

    def test_another_file_beside_the_card_counts(self, version: Path) -> None:
        (version / "assets.extra" / "labels.txt").write_bytes(b"abc")
        assert checksums(version)["assets.extra/labels.txt"] == ABC

    def test_a_model_json_elsewhere_counts(self, version: Path) -> None:
        (version / "model.json").write_bytes(b"abc")
        assert checksums(version)["model.json"] == ABC


class TestLoad:
    def test_what_was_written_is_read(self, version: Path) -> None:
        bundle = load(version)
        assert bundle.path == version
        assert bundle.card == card(checksums=checksums(version))

    def test_the_name_alone_is_enough(self, version: Path) -> None:
        assert load(version.parent) == load(version)

    def test_a_number_other_than_the_cards_is_refused(self, version: Path) -> None:
        version.rename(version.with_name("4"))
        with pytest.raises(BundleError, match=r"/4 has the number 4, and `version` .* is 3"):
            load(version.parent)

    @pytest.mark.parametrize("name", ["model", "003"])
    def test_a_copy_may_have_any_other_name(self, version: Path, name: str) -> None:
        assert load(version.rename(version.with_name(name))).card.version == 3

    @pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
    def test_an_altered_file_is_named(self, version: Path, name: str) -> None:
        with (version / name).open("ab") as file:
            file.write(b"\0")
        with pytest.raises(BundleError, match=f"{name} differs"):
            load(version)

    def test_a_missing_file_is_named(self, version: Path) -> None:
        (version / "variables" / "variables.index").unlink()
        with pytest.raises(BundleError, match=r"variables/variables\.index is missing"):
            load(version)

    def test_an_added_file_is_named(self, version: Path) -> None:
        (version / "variables" / "stowaway").touch()
        with pytest.raises(BundleError, match="variables/stowaway is not listed"):
            load(version)

    def test_a_card_without_checksums_is_refused(self, version: Path) -> None:
        card().write(version)
        with pytest.raises(BundleError, match="not listed"):
            load(version)

    def test_a_missing_card_is_named(self, version: Path) -> None:
        (version / CARD_PATH).unlink()
        with pytest.raises(BundleError, match=r"model\.json is missing"):
            load(version)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "toy"}', "\udcff"])
    def test_a_malformed_card_is_named(self, version: Path, text: str) -> None:
        (version / CARD_PATH).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(BundleError, match=r"model\.json is malformed"):
            load(version)

    @pytest.mark.parametrize(
        "change",
        [
            {"surprise": 1},
            {"version": 0},
            {"head": "transformer"},
            {"labels": [{"index": 0, "name": "beagle"}]},
            {"labels": [{"index": 1, "name": "pug"}, {"index": 0, "name": "beagle"}]},
            {"labels": [{"index": 1, "name": "pug"}, {"index": 2, "name": "beagle"}]},
            {"labels": [{"index": 0, "name": "pug"}, {"index": 1, "name": "pug"}]},
            {"labels": [{"index": 0, "name": "São"}, {"index": 1, "name": "Sa\u0303o"}]},
            {
                "labels": [
                    {"index": 0, "synset": "n1", "name": "pug"},
                    {"index": 1, "synset": "n1", "name": "beagle"},
                ]
            },
            {"layers": []},
            {"layers": [{"name": "late", "height": 4, "width": 4}] * 2},
            {"input": {"size": 0}},
            {"thresholds": {"guesscam": {"last": 0.2}}},
            {"foreground": {"rule": "magic", "photos": 1}},
            {"foreground": {"rule": "boxes", "photos": 1, "layers": ["early", "stem"]}},
            {"novelty": {"dimensions": 0, "photos": 100}},
            {"fused": {"cam": {"last": {"foreground": 0, "threshold": 0.3}}}},
            # Of the foreground alone: then a box would not be of its heatmap.
            {"fused": {"cam": {"last": {"foreground": 1, "threshold": 0.3}}}},
            {"fused": {"cam": {"last": {"foreground": 0.5, "threshold": 0}}}},
            {"confidence": LIMITS.model_dump() | {"temperature": 0}},
            {"confidence": LIMITS.model_dump() | {"most_novelty": 2.0}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_a_card_that_cannot_be_right_is_refused(
        self, version: Path, change: dict[str, Any]
    ) -> None:
        path = version / CARD_PATH
        toy = json.loads(path.read_text())
        path.write_text(json.dumps(toy | change))
        with pytest.raises(BundleError, match=f"malformed(.|\n)*{next(iter(change))}"):
            load(version)

    @pytest.mark.parametrize(
        "name",
        [
            "",
            " pug",
            "pug\n",
            "pug\r\nSet-Cookie: a=b",
            "pug\0",
            "pug\x7f",
            "pug\x85",
            "pug\u2028",
            "pug\u202egup",
            "pug" * 1000,
        ],
        ids=ascii,
    )
    @pytest.mark.parametrize(
        "field", ["name", "architecture", "labels.1.name", "labels.1.synset", "layers.0.name"]
    )
    def test_a_name_that_no_line_may_hold_is_refused(
        self, version: Path, field: str, name: str
    ) -> None:
        path = version / CARD_PATH
        toy = json.loads(path.read_text())
        *outer, last = field.split(".")
        place = toy
        for key in outer:
            place = place[int(key)] if key.isdecimal() else place[key]
        place[last] = name
        path.write_text(json.dumps(toy))
        with pytest.raises(BundleError, match=re.escape(f"malformed: {field}: ")) as error:
            load(version)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 500

    @pytest.mark.parametrize(
        "name", ["Þingeyskur", "柴犬", "🐕\u200d🦺", "<b>pug</b>", "50 % pug", "x" * 200]
    )
    def test_any_other_name_is_taken(self, version: Path, name: str) -> None:
        named = (Label(index=0, name=name), Label(index=1, name="pug"))
        card(labels=named, checksums=checksums(version)).write(version)
        assert load(version).card.labels == named


class TestFindVersion:
    def test_the_newest_is_the_greatest_number(self, tmp_path: Path) -> None:
        for name in ("1", "9", "10", "latest", "11.bak", "-12"):
            (tmp_path / name).mkdir()
        (tmp_path / "99").write_text("a file, not a version")
        assert find_version(tmp_path) == tmp_path / "10"

    def test_a_version_is_left_as_it_is(self, version: Path) -> None:
        # Even where its own directory holds one that looks like a version.
        (version / "4").mkdir()
        assert find_version(version) == version

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"no model at .*absent"):
            find_version(tmp_path / "absent")

    def test_those_that_are_there_are_named(self, tmp_path: Path) -> None:
        for model, version in (("dogs", 1), ("dogs", 2), ("cats", 1)):
            card = tmp_path / model / str(version) / CARD_PATH
            card.parent.mkdir(parents=True)
            card.touch()
        (tmp_path / "empty").mkdir()
        with pytest.raises(BundleError, match=r"no model at .*birds\. .* has cats and dogs\.$"):
            find_version(tmp_path / "birds")
        with pytest.raises(BundleError, match=r"no model at .*dogs.3\. .*dogs has 1 and 2\.$"):
            find_version(tmp_path / "dogs" / "3")

    def test_no_version_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "latest").mkdir()
        with pytest.raises(BundleError, match="no model version"):
            find_version(tmp_path)


class TestCard:
    def test_write_leaves_the_card_and_no_draft(self, tmp_path: Path) -> None:
        card(name="first").write(tmp_path)
        card(name="second").write(tmp_path)
        assert [path.name for path in (tmp_path / "assets.extra").iterdir()] == ["model.json"]
        assert json.loads((tmp_path / CARD_PATH).read_text())["name"] == "second"

    def test_threshold_calibrated_or_default(self) -> None:
        toy = card(thresholds={Method.GRADCAM: {"last": 0.3, "last6": 0.4}})
        assert toy.threshold(Method.GRADCAM, "last") == 0.3
        assert toy.threshold(Method.GRADCAM, "last6") == 0.4
        assert toy.threshold(Method.GRADCAM, "early") == DEFAULT_THRESHOLD
        assert toy.threshold(Method.CAM, "last") == DEFAULT_THRESHOLD

    def test_thresholds_survive_the_disk(self, version: Path) -> None:
        thresholds = {Method.CAM: {"last": 0.55}, Method.LAYERCAM: {"last6": 0.21}}
        card(thresholds=thresholds, checksums=checksums(version)).write(version)
        assert load(version).card.thresholds == thresholds

    def test_what_is_calibrated_survives_the_disk(self, version: Path) -> None:
        fused = Fused(foreground=0.25, threshold=0.4)
        changes: dict[str, Any] = {
            "foreground": Foreground(rule="boxes", photos=7, layers=("early", "late")),
            "fused": {Method.CAM: {"last": fused}, Method.LAYERCAM: {"last6": fused}},
            "novelty": Novelty(dimensions=2, photos=9),
            "confidence": Confidence(**{**dict(LIMITS), "most_novelty": 4.5}),
        }
        card(**changes, checksums=checksums(version)).write(version)
        toy = load(version).card
        assert {name: getattr(toy, name) for name in changes} == changes

    def test_a_card_from_before_has_none_of_it(self) -> None:
        toy = card()
        assert (toy.fused, toy.novelty, toy.confidence) == ({}, None, None)

    def test_the_foreground_is_of_the_last_layer_unless_others_are_named(self) -> None:
        assert card().foreground_layers == ["late"]
        both = Foreground(rule="boxes", photos=7, layers=("early", "late"))
        assert card(foreground=both).foreground_layers == ["early", "late"]

    def test_only_what_boxes_teach_has_a_zero_of_its_own(self) -> None:
        signed = {
            rule: Foreground(rule=rule, photos=0).signed
            for rule in get_args(Foreground.model_fields["rule"].annotation)
        }
        assert signed == {"boxes": False, "ddt": True, "channel_sum": True}

    def test_only_cam_is_signed(self) -> None:
        assert [method for method in Method if method.signed] == [Method.CAM]


class TestReplace:
    def test_other_values_and_the_rest_as_it_was(self) -> None:
        first = card(thresholds={Method.CAM: {"last": 0.5}})
        other = first.replace(
            version=4, fused={"cam": {"last": {"foreground": 0.5, "threshold": 1}}}
        )
        assert (first.version, first.fused) == (3, {})
        assert other.version == 4
        assert other.fused == {Method.CAM: {"last": Fused(foreground=0.5, threshold=1)}}
        assert other == card(version=4, thresholds=first.thresholds, fused=other.fused)

    @pytest.mark.parametrize(
        "changes",
        [
            {"version": 0},
            {"surprise": 1},
            {"labels": (Label(index=1, name="pug"), Label(index=0, name="beagle"))},
            # What only the whole card can tell.
            {"foreground": Foreground(rule="boxes", photos=1, layers=("stem",))},
            {"layers": (Layer(name="late", height=4, width=4),), "foreground": EARLY},
            {"confidence": Confidence(**{**dict(LIMITS), "most_novelty": 4.5})},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_is_validated_as_what_is_read(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            card().replace(**changes)


class TestClassIndex:
    LABELS = (
        Label(index=0, synset="n1", name="old-english sheepdog"),
        Label(index=1, synset="n2", name="n1"),
        Label(index=2, name="0"),
        Label(index=3, synset="n3", name="Pug"),
        Label(index=4, synset="N3", name="pug"),
        Label(index=5, name="cão d'água"),
    )

    @pytest.mark.parametrize(
        ("name", "indexes"),
        [
            ("Old_English Sheepdog", [0]),
            ("n1", [0]),  # a synset comes before a name
            ("N1", [0, 1]),  # in another spelling, it may be either
            ("N2", [1]),
            (" 0 ", [0]),  # an index comes before a name
            ("2", [2]),
            ("Pug", [3]),
            ("pug", [4]),
            ("PUG", [3, 4]),
            ("n3", [3]),
            ("N3", [4]),
            (unicodedata.normalize("NFD", "cão d'água"), [5]),
            (unicodedata.normalize("NFD", "CÃO_D'ÁGUA"), [5]),
            ("-1", []),
            ("6", []),
            ("", []),
        ],
    )
    def test_by_index_synset_or_name(self, name: str, indexes: list[int]) -> None:
        assert card(labels=self.LABELS).classes_named(name) == indexes

    def test_a_card_with_other_labels_has_their_names(self) -> None:
        first = card()
        assert first.classes_named("pug") == [1]
        other = first.replace(labels=self.LABELS)
        assert other.classes_named("beagle") == []
        assert other.classes_named("n2") == [1]

    def test_the_names_are_gone_through_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spelt: list[str] = []

        def spell(name: str) -> str:
            spelt.append(name)
            return name.lower()

        monkeypatch.setattr(bundle, "comparable", spell)
        toy = card(labels=(Label(index=0, name="only here"), Label(index=1, name="and here")))
        for _ in range(3):
            assert toy.classes_named("And here") == [1]
        assert sorted(spelt) == ["And here"] * 3 + ["and here", "only here"]
