"""A photo from a request's body: multipart or raw, and never more of it than is allowed."""

import binascii
import quopri
from collections.abc import AsyncIterator, Awaitable, Callable

from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)
from starlette.requests import ClientDisconnect, Request

from app.containers.signatures import is_text
from app.errors import (
    ClientGone,
    MalformedRequest,
    MissingImage,
    RequestError,
    TooManyBytes,
    UndecodableImage,
    UnsupportedMediaType,
)
from app.settings import Settings

__all__ = ["limited", "read_image"]

_HOW_TO_SEND = (
    "Send a photo: as multipart/form-data in the field `file`, or by itself as image/* or "
    "application/octet-stream."
)

UNSPECIFIC = ("", "application/x-www-form-urlencoded", "text/plain")
"""Content types that clients send by themselves, whatever the body: it decides."""

START = 64
"""Bytes of such a body by which text is told from a photo."""

STRIPS = b"\0\r\n"
"""What `curl -d @photo.jpg` takes out of a file."""

STRIPPED = 4096
"""Bytes of a photo that hold some of these: about one byte in a hundred is one."""

MAX_PARTS = 16
"""Of a multipart body. A request has one; the rest is for the sake of a precise refusal."""

MAX_NAME = 1000
"""Characters of text that may be the name of a file."""

MAX_PART_FIELDS = 16
"""Fields of a part's header."""

MAX_PART_FIELD = 4096
"""Bytes of each."""

MAX_FOLDS = 32
"""Lines of a multipart body that continue a field: each is as much work as all before it."""

_ANY_BYTES = "latin-1"
"""An encoding in which every byte is a character."""


async def read_image(
    request: Request, settings: Settings, take: Callable[[int], Awaitable[None]]
) -> bytes:
    """The image's bytes, from a multipart field `file` or from the body itself.

    Args:
        request: whose body is read.
        settings: for the limits.
        take: awaited with the size of each chunk.

    Raises:
        QueueFull: bodies in work take all the memory there is for them.
        UnsupportedMediaType: a body of another content type, or text where that says nothing.
        TooManyBytes: over the limit, by the header or as counted.
        MissingImage: no body, no `file`, or nothing in it.
        UndecodableImage: `curl -d` has taken bytes out of it.
        ClientGone: the client hung up.
        MalformedRequest: a multipart body that is malformed.
        RequestError: a multipart body that holds more than the photo.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    multipart = content_type == "multipart/form-data"
    named = content_type.startswith("image/") or content_type == "application/octet-stream"
    if not named and not _has_body(request):
        raise MissingImage(f"There is no body. {_HOW_TO_SEND}")
    unspecific = content_type in UNSPECIFIC
    if not (multipart or named or unspecific):
        raise UnsupportedMediaType(
            f"Content type {content_type!r} is not supported. {_HOW_TO_SEND}"
        )
    body = limited(request, settings.max_bytes, take)
    if unspecific:
        body = _unless_text(body)
    data = await (_file_field(request, body) if multipart else _joined(body))
    if not data:
        raise MissingImage("The image is empty: there are no bytes in it.")
    if unspecific and len(data) >= STRIPPED and not any(byte in data for byte in STRIPS):
        raise UndecodableImage(
            "The image has lost its line breaks and zero bytes, as with `curl -d`. Use "
            "`--data-binary` or `-T`."
        )
    return data


def _has_body(request: Request) -> bool:
    """Whether the header announces one, as it has to in HTTP/1.1 (RFC 9112, 6.3)."""
    if "transfer-encoding" in request.headers:
        return True
    return request.headers.get("content-length", "0").strip("0") != ""


async def limited(
    request: Request, max_bytes: int, take: Callable[[int], Awaitable[None]]
) -> AsyncIterator[bytes]:
    """The body's chunks, as long as they are within the limit.

    Args:
        request: whose body it is.
        max_bytes: the limit.
        take: called with the size of a chunk before it is kept.

    Raises:
        QueueFull: `take` finds no memory.
        TooManyBytes: they are not within it, by the header or as counted.
        ClientGone: the client hung up.
    """
    message = f"The upload exceeds the limit of {max_bytes} bytes."
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise TooManyBytes(message)
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > max_bytes:
                raise TooManyBytes(message)
            await take(len(chunk))
            yield chunk
    except ClientDisconnect as error:
        raise ClientGone("The connection was closed before the end of the body.") from error


async def _unless_text(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of a body that does not begin as text does; of its beginning, one chunk.

    Raises:
        UnsupportedMediaType: it is text.
    """
    start = b""
    async for chunk in body:
        start += chunk
        if len(start) >= START:
            break
    if is_text(start[:START]):
        raise UnsupportedMediaType(f"The body is text, not a photo. {_HOW_TO_SEND}")
    yield start
    async for chunk in body:
        yield chunk


async def _joined(body: AsyncIterator[bytes]) -> bytes:
    # In one buffer: a list of the small chunks of a slow client takes many times their bytes.
    data = bytearray()
    async for chunk in body:
        data += chunk
    return bytes(data)


async def _file_field(request: Request, body: AsyncIterator[bytes]) -> bytes:
    """The content of the multipart field `file`."""
    form = _Form(request.headers["content-type"])
    empty = True
    async for chunk in body:
        if chunk:
            empty = False
            form.receive(chunk)
    return b"" if empty else form.file()


class _Parser(PushMultipartParser):  # type: ignore[misc]
    """A parser with bounds on the lines of headers."""

    def __init__(self, boundary: str) -> None:
        super().__init__(
            boundary,
            max_header_size=MAX_PART_FIELD,
            max_header_count=MAX_PART_FIELDS,
            max_segment_count=MAX_PARTS,
            header_charset=_ANY_BYTES,  # a photo is taken whatever its file name is written in
        )
        self._folds = 0

    def _on_segment_headerline(self, line: bytes) -> None:
        self._folds += line.startswith((b" ", b"\t"))
        if self._folds > MAX_FOLDS:
            raise ParserLimitReached("too many folded lines")
        if b"\n" in line or b"\r" in line:  # else it would depend on where chunks end
            raise MultipartError("a line break within a line")
        super()._on_segment_headerline(line)


class _Form:
    """A multipart body as it comes. Of its parts, the photo alone is kept.

    Preambles, epilogues and folded header lines (RFC 2046) are taken, and a photo whose part has no
    filename too.
    """

    def __init__(self, content_type: str) -> None:
        """Start.

        Raises:
            MalformedRequest: the content type has no boundary that can be used.
        """
        parameters = parse_options_header(content_type.replace("\t", " "))[1]
        boundary = parameters.get("boundary", "")
        if not 0 < len(boundary) <= 256 or not boundary.isascii():
            raise MalformedRequest(
                "The multipart body is malformed: its Content-Type has no boundary, or one that "
                "is not ASCII or is longer than 256 characters."
            )
        self._parser = _Parser(boundary)
        self._parts = 0
        self._photo = bytearray()
        self._encoding = ""
        self._photos = 0
        self._filename: str | None = None
        self._in_photo = False
        self._others: set[str] = set()

    def receive(self, chunk: bytes) -> None:
        """Parse the next chunk; an empty one ends the body.

        Raises:
            MalformedRequest: it is malformed.
            RequestError: it has too many parts.
        """
        try:
            for event in self._parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event and self._in_photo:
                    self._photo += event
        except MultipartError as error:
            if isinstance(error, ParserLimitReached) and self._parts == MAX_PARTS:
                raise RequestError(
                    f"The multipart body has more than {MAX_PARTS} parts."
                ) from error
            raise MalformedRequest(
                f"The multipart body is malformed: {self._fault(error, ended=not chunk)}."
            ) from error

    def _begin(self, part: MultipartSegment) -> None:
        """A part's header has come."""
        self._parts += 1
        self._in_photo = part.name == "file"
        if self._in_photo:
            self._photos += 1
            self._encoding = part.header("Content-Transfer-Encoding", "").strip().lower()
            self._filename = part.filename
            self._in_photo = self._photos == 1
        else:
            name = part.name.encode(_ANY_BYTES).decode(errors="replace")
            self._others.add(name[:40] or "one without a name")

    def _fault(self, error: MultipartError, *, ended: bool) -> str:
        """What is wrong."""
        if isinstance(error, ParserLimitReached):
            return (
                f"a part's header exceeds {MAX_PART_FIELDS} fields, one of them "
                f"{MAX_PART_FIELD} bytes, or all {MAX_FOLDS} folded lines"
            )
        if ended and not self._parts:
            return "its boundary does not occur in it, or its first part is cut off"
        if ended:
            return "it ends before its last boundary"
        return (
            "lines have to end with CRLF, and each part needs a `Content-Disposition: form-data` "
            "among fields of the form `Name: value`; a `Content-Length` has to be right"
        )

    def file(self) -> bytes:
        """The photo, once the body has ended.

        Raises:
            MissingImage: there is none.
            UnsupportedMediaType: it is a line of text.
            MalformedRequest: the body is malformed.
            RequestError: it holds more than the photo, or the photo is encoded in a way that is not
                undone.
        """
        self.receive(b"")
        others = ", ".join(sorted(self._others))
        if not self._photos:
            fields = f" Its fields are: {others}." if others else ""
            raise MissingImage(f"The multipart body has no field `file`.{fields}")
        if others:
            raise RequestError(
                f"The multipart body has fields besides `file`: {others}. Parameters go into the "
                "query."
            )
        if self._photos > 1:
            raise RequestError("The multipart body has several files; send one at a time.")
        if not self._filename and 0 < len(self._photo) <= MAX_NAME and is_text(bytes(self._photo)):
            raise UnsupportedMediaType(
                "The field `file` holds text, not a photo. If that is the photo's name, put `@` "
                "before it: `curl -F file=@photo.jpg`."
            )
        return _decoded(self._photo, self._encoding)


def _decoded(data: bytearray, encoding: str) -> bytes:
    """A part's content without its Content-Transfer-Encoding, which RFC 7578 (4.7) deprecates."""
    if encoding in ("", "binary", "8bit", "7bit"):
        return bytes(data)
    if encoding == "quoted-printable":
        return quopri.decodestring(bytes(data))
    if encoding == "base64":
        try:
            return binascii.a2b_base64(data)
        except binascii.Error as error:
            raise MalformedRequest(
                "The part's content is not base64, as its header says."
            ) from error
    raise RequestError(
        f"The part's Content-Transfer-Encoding is {encoding[:40]!r}. Send the bytes as they are."
    )
