"""The service keeps to its OpenAPI document, whatever is sent: schemathesis makes the requests.

Its checks: no 5xx, only documented statuses, content types and headers, bodies as their schemas
say, what the document forbids is refused and what it allows is taken, other verbs are 405.
"""

import os
from collections.abc import Callable
from email import message_from_bytes
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import JPEG
from tests.app.services import LONG, Service

Check = Callable[..., bool | None]

PHOTOS = st.just(JPEG)
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, PHOTOS)
schemathesis.openapi.format("binary", PHOTOS)

with pytest.MonkeyPatch.context() as patch:
    for variable in [name for name in os.environ if name.startswith("BREEDCAM_")]:
        patch.delenv(variable)
    DOCUMENT = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = {
    result.ok().label: result.ok()
    for result in DOCUMENT.get_all_operations()
    if isinstance(result, Ok)
}


# What a document cannot say, so that a request which keeps to it may still be refused.
BEYOND_SCHEMAS = {
    "unknown-target": "which classes there are is the model's",
    "box-outside-image": "it depends on the photo",
    "invalid-parameter": "for the reasons below",
}
REASONS = {
    "a box needs xmin < xmax and ymin < ymax": "two values compared",
    "a box is four numbers": "an edge beyond float's range",
    "name the same class": "two values compared",
    "names the class that is explained": "the likeliest class is known only then",
    "The model does not expose '": "which layers there are is the model's",
    "CAM has the last layer alone": "two parts of a value that belong together",
    "an overlay shows 6 explanations at most": "two parameters that belong together",
    "explanations, and 12 are the most": "two parameters that belong together",
    "`mask` asks for a picture, and `overlay=false` for none": "two parameters that contradict",
    "`space=photo` is for heatmaps as numbers and for masks": "two parameters that contradict",
    "`space=photo`: ": "the photo's size is known only then",
}


def is_right_as_sent(request: requests.PreparedRequest) -> bool:
    """Whether a request's body is the photo, as the document wants it.

    What makes a body wrong may be lost on its way: of `{"more": [], "file": photo}`, a multipart
    body has the photo alone.
    """
    content_type, body = request.headers.get("Content-Type", ""), request.body
    assert isinstance(content_type, str)
    assert isinstance(body, bytes | None)
    if not content_type.startswith("multipart/form-data"):
        is_named = content_type.startswith("image/") or content_type == "application/octet-stream"
        return is_named and body == JPEG
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + (body or b""))
    if not message.is_multipart():
        return False
    parts = [
        (part.get_param("name", header="Content-Disposition"), part.get_payload(decode=True))
        for part in message.walk()
        if not part.is_multipart()
    ]
    return parts == [("file", JPEG)]


def only_body_is_wrong(case: schemathesis.Case[Any]) -> bool:
    assert case.meta is not None
    return {
        location for location, part in case.meta.components.items() if part.mode.is_negative
    } == {ParameterLocation.BODY}


def conform(case: schemathesis.Case[Any], service: Service, mode: GenerationMode) -> None:
    answer = case.call(base_url=service.url, timeout=LONG)
    excluded: list[Check] = []
    if mode is GenerationMode.POSITIVE and answer.status_code == 400:
        problem = answer.json()
        code = problem["type"].rpartition(":")[2]
        assert code in BEYOND_SCHEMAS, problem
        if code == "invalid-parameter":
            assert any(words in problem["detail"] for words in REASONS), problem
        excluded = [positive_data_acceptance]
    if answer.status_code == 200 and only_body_is_wrong(case) and is_right_as_sent(answer.request):
        excluded = [negative_data_rejection]
    case.validate_response(answer, excluded_checks=excluded)


FILE = ("photo.jpg", JPEG)


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        ({"files": {"file": FILE}}, True),
        ({"files": {"file": JPEG}, "data": {"more": []}}, True),
        ({"data": JPEG, "headers": {"Content-Type": "image/png"}}, True),
        ({"files": {"photo": FILE}}, False),
        ({"files": {"file": ("photo.jpg", b"no photo")}}, False),
        ({"files": {"file": FILE}, "data": {"more": "x"}}, False),
        ({"files": [("file", FILE), ("file", FILE)]}, False),
        ({"data": JPEG, "headers": {"Content-Type": "text/html"}}, False),
        ({"data": b"no photo", "headers": {"Content-Type": "image/png"}}, False),
        ({"headers": {"Content-Type": "multipart/form-data"}}, False),
        ({}, False),
    ],
)
def test_what_is_sent_is_judged_as_the_service_does(
    plain_service: Service, body: dict[str, Any], is_right: bool
) -> None:
    url = f"{plain_service.url}/predict"
    request = requests.Request("POST", url, **body).prepare()
    with requests.Session() as session:
        answer = session.send(request, timeout=LONG)
    assert is_right_as_sent(request) == is_right
    assert answer.status_code == 200 if is_right else answer.status_code >= 400


PAIRS = [
    (label, mode)
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    # A GET has no parameters that could be wrong.
    if operation.method != "get" or mode is GenerationMode.POSITIVE
]


@pytest.mark.parametrize(("label", "mode"), PAIRS)
@pytest.mark.parametrize("examples", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_requests_made_from_the_document(
    plain_service: Service, label: str, mode: GenerationMode, examples: int
) -> None:
    operation = OPERATIONS[label]

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,  # the same requests each time
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case[Any]) -> None:
        conform(case, plain_service, mode)

    conforms()
