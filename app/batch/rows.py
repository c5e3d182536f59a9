"""A photo's row in the output: the members of the HTTP answer, or a problem."""

import types
from enum import Enum
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from app.batch.inputs import Photo
from app.errors import BreedCAMError
from app.schemas import ExplainResponse, Explanation, ImageInfo, Prediction, PredictResponse

__all__ = ["OverlayFile", "Row", "RowProblem", "arrow_schema"]


class _Member(BaseModel):
    model_config = ConfigDict(frozen=True)


class OverlayFile(_Member):
    """An overlay in a file of its own."""

    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int
    panel_width: int
    file: str
    """Relative to the output folder."""


class RowProblem(_Member):
    """What HTTP answers in such a case, without the request's id."""

    type: str
    title: str
    status: int
    detail: str


class Row(_Member):
    """One photo.

    Attributes:
        id: of the photo, see `app.batch.inputs`.
        image_id: the number by which COCO results name it.
        problem: why there is no answer; the members between are null then. It is null otherwise.
    """

    id: str
    image_id: int
    image: ImageInfo | None = None
    predictions: list[Prediction] | None = None
    confidence: Literal["ok", "low"] | None = None
    target: Prediction | None = None
    explanation: Explanation | None = None
    overlay: OverlayFile | None = None
    problem: RowProblem | None = None

    @classmethod
    def answered(
        cls,
        photo: Photo,
        response: PredictResponse | ExplainResponse,
        overlay: OverlayFile | None = None,
    ) -> Self:
        """A photo with its answer."""
        members = {
            name: getattr(response, name)
            for name in ("image", "predictions", "confidence", "target", "explanation")
            if name in type(response).model_fields
        }
        return cls(id=photo.id, image_id=photo.image_id, overlay=overlay, **members)

    @classmethod
    def refused(cls, photo: Photo, error: BreedCAMError) -> Self:
        """A photo with its problem."""
        problem = RowProblem(
            type=f"urn:breedcam:error:{error.code}",
            title=error.title,
            status=error.status,
            detail=str(error),
        )
        return cls(id=photo.id, image_id=photo.image_id, problem=problem)


def arrow_schema() -> Any:
    """The rows' `pyarrow.Schema`, the same whatever a part's rows hold."""
    import pyarrow as pa

    return pa.schema(
        [(name, _arrow_type(field.annotation)) for name, field in Row.model_fields.items()]
    )


def _arrow_type(annotation: Any) -> Any:
    import pyarrow as pa

    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow_type(arguments[0])
    if origin in (Union, types.UnionType):
        [kind] = [kind for kind in arguments if kind is not types.NoneType]
        return _arrow_type(kind)
    if origin in (list, tuple):
        return pa.list_(_arrow_type(arguments[0]))
    if origin is Literal or (isinstance(annotation, type) and issubclass(annotation, str | Enum)):
        return pa.string()
    if issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return pa.struct([(name, _arrow_type(field.annotation)) for name, field in fields])
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[annotation]
