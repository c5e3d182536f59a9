"""A photo from a request's body: multipart or raw, and never more of it than is allowed."""

from collections.abc import AsyncGenerator, Callable

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from app.errors import (
    MissingImage,
    RequestError,
    TooManyBytes,
    UnsupportedMediaType,
)
from app.settings import Settings

__all__ = ["read_image"]

_HOW_TO_SEND = (
    "Send a photo: as multipart/form-data in the field `file`, or by itself as image/* or "
    "application/octet-stream."
)


async def read_image(request: Request, settings: Settings, take: Callable[[int], None]) -> bytes:
    """The image's bytes, from a multipart field `file` or from the body itself.

    Args:
        request: whose body is read.
        settings: for the limits.
        take: called with the size of each chunk.

    Raises:
        QueueFull: bodies in work take all the memory there is for them.
        UnsupportedMediaType: a body of another content type.
        TooManyBytes: over the limit, by the header or as counted.
        MissingImage: no body, no `file`, or nothing in it, or the client hung up.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    multipart = content_type == "multipart/form-data"
    if not (
        multipart or content_type.startswith("image/") or content_type == "application/octet-stream"
    ):
        if not _has_body(request):
            raise MissingImage(f"There is no body. {_HOW_TO_SEND}")
        raise UnsupportedMediaType(
            f"Content type {content_type or '(none)'!r} is not supported. {_HOW_TO_SEND}"
        )
    try:
        body = _limited(request, settings.max_bytes, take)
        if multipart:
            data = await _file_field(request, body, settings.max_bytes)
        else:
            data = b"".join([chunk async for chunk in body])
    except ClientDisconnect as error:
        # Nobody reads the answer, but a client that hangs up is not a failure to log.
        raise MissingImage("The connection was closed before the end of the body.") from error
    if not data:
        raise MissingImage("The image is empty: there are no bytes in it.")
    return data


def _has_body(request: Request) -> bool:
    """Whether the header announces one, as it has to in HTTP/1.1 (RFC 9112, 6.3)."""
    if "transfer-encoding" in request.headers:
        return True
    return request.headers.get("content-length", "0").strip("0") != ""


async def _limited(
    request: Request, max_bytes: int, take: Callable[[int], None]
) -> AsyncGenerator[bytes, None]:
    """The body's chunks, as long as they are within the limit."""
    message = f"The upload exceeds the limit of {max_bytes} bytes."
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise TooManyBytes(message)
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise TooManyBytes(message)
        take(len(chunk))
        yield chunk


async def _file_field(request: Request, body: AsyncGenerator[bytes, None], max_bytes: int) -> bytes:
    """The content of the multipart field `file`."""
    parser = MultiPartParser(request.headers, body, max_files=16, max_fields=16)
    parser.spool_max_size = max_bytes  # no photo goes to the disk, which takes time
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(f"The multipart body is malformed: {error.message}") from error
    except UnicodeError as error:  # a `charset` that is none for text
        raise RequestError("The multipart body is malformed: its charset is unknown.") from error
    try:
        fields = form.getlist("file")
        if not fields or not isinstance(fields[0], UploadFile):
            raise MissingImage("The multipart body has no file in its field `file`.")
        unknown = sorted({str(name)[:40] for name in form if name != "file"})
        if unknown:
            raise RequestError(
                f"The multipart body has fields besides `file`: {', '.join(unknown)}. "
                "Parameters go into the query."
            )
        if len(fields) > 1:
            raise RequestError("The multipart body has several files; send one at a time.")
        return await fields[0].read()
    finally:
        await form.close()
