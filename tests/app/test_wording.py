from typing import Any

import pytest
from pydantic import ValidationError

from app.schemas import GradcamQuery
from app.settings import Settings
from app.wording import listed, near, sentences

NAMES = list(GradcamQuery.model_fields)


def query_faults(**parameters: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        GradcamQuery.model_validate(parameters)
    repeated = [name for name, value in parameters.items() if isinstance(value, list) and value[1:]]
    return sentences(caught.value.errors(), "`{}`", NAMES, repeated)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"top_k": "many"}, "`top_k` must be a whole number"),
        ({"top_k": "1.5"}, "`top_k` must be a whole number"),
        ({"top_k": "9" * 5000}, "`top_k` must be a whole number of fewer digits"),
        ({"top_k": "0"}, "`top_k` must be at least 1"),
        ({"size": "1025"}, "`size` must be at most 1024"),
        ({"threshold": "0"}, "`threshold` must be more than 0"),
        ({"threshold": "nan"}, "`threshold` must be a finite number"),
        ({"threshold": "half"}, "`threshold` must be a number"),
        ({"overlay": "perhaps"}, "`overlay` must be true or false"),
        ({"target": ""}, "`target` must not be empty"),
        ({"target": "x" * 101}, "`target` must have at most 100 characters"),
        ({"rule": "magic"}, "`rule` must be 'heatmap' or 'fused'"),
        ({"method": "x"}, "`method` must be 'gradcam', 'gradcampp', 'layercam' or 'hirescam'"),
        ({"box": ["1,2,3,4"] * 101}, "`box` may be given 100 times at most"),
        ({"box": ["1,2,3"]}, "`box`: a box is four numbers: xmin,ymin,xmax,ymax"),
        (
            {"box": ["1,2,3,4", "3,2,1,4"]},
            "`box 2`: a box needs xmin < xmax and ymin < ymax",
        ),
        (
            {"box": ["3,2,1,4", "1,2,3,4"]},
            "`box 1`: a box needs xmin < xmax and ymin < ymax",
        ),
        (
            {"box": ["1", "2", "3.5", "4"]},
            "`box`: a box is one parameter: box=xmin,ymin,xmax,ymax",
        ),
    ],
    ids=str,
)
def test_a_parameter_that_is_wrong(parameters: dict[str, Any], sentence: str) -> None:
    assert query_faults(**parameters) == [sentence]


def test_unknown_parameters_are_one_sentence_that_names_those_that_there_are() -> None:
    there = listed("`{}`", NAMES)
    assert "`top_k`, " in there
    assert there.endswith(" and `layers`")
    assert query_faults(topk=3) == [
        f"`topk`: there is no such parameter. Did you mean `top_k`? There are {there}"
    ]
    assert query_faults(xmin=1, ymin=2, size="x") == [
        "`size` must be a whole number",
        f"`xmin` and `ymin`: there are no such parameters. There are {there}",
    ]


def test_where_there_are_no_parameters() -> None:
    fault = {"type": "extra_forbidden", "loc": ("topk",)}
    assert sentences([fault], "`{}`") == ["`topk`: there is no such parameter"]


def test_of_many_unknown_parameters_a_few_are_named() -> None:
    [sentence] = query_faults(**{f"{number}{'x' * 100}": 1 for number in range(1_000)})
    assert sentence.startswith(f"`0{'x' * 39}`, ")
    assert " and 995 more: there are no such parameters. There are `top_k`" in sentence
    assert len(sentence) < 1_000


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("batch_wait_ms", "soon", "batch_wait_ms must be a number, or 'auto'"),
        ("batch_wait_ms", "1001", "batch_wait_ms must be at most 1000, or 'auto'"),
        ("port", "http", "port must be a whole number"),
        ("docs", "perhaps", "docs must be true or false"),
        ("deadline_s", "0", "deadline_s must be more than 0"),
        ("engine", "magic", "engine must be 'auto', 'openvino' or 'tensorflow'"),
        (
            "max_pending_bytes",
            "5",
            "max_pending_bytes: 5 is less than BREEDCAM_MAX_BYTES, 20000000: no photo of that size "
            "fits in",
        ),
        (
            "api_keys",
            "abcd" * 9,
            "api_keys: key 1 is weak: it repeats 4 character(s); choose it at "
            "random, as `openssl rand -hex 32` does",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"BREEDCAM_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert sentences(caught.value.errors()) == [sentence]


def test_no_words_of_pydantic_are_left() -> None:
    wrong = {name: "" for name in NAMES} | {"box": [""]}
    wrong_sentences = query_faults(**wrong)
    assert len(wrong_sentences) == len(NAMES)
    for sentence in wrong_sentences:
        assert " should" not in sentence
        assert "parse" not in sentence


def test_near_names() -> None:
    assert near("predcit", ["predict", "compare"]) == ["predict"]
    assert near("nothing", ["predict", "compare"]) == []


@pytest.mark.parametrize(("names", "text"), [([], ""), (["a"], "'a'"), (["a", "b"], "'a' or 'b'")])
def test_names_in_a_row(names: list[str], text: str) -> None:
    assert listed("'{}'", names, "or") == text
