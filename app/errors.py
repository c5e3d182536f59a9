"""The error tree. Each error knows its code and its HTTP status; none knows FastAPI.

    BreedCAMError                     500 internal-error
    ├── RequestError                  400 invalid-parameter
    │   ├── MalformedRequest          400 malformed-request
    │   ├── MissingImage              400 missing-image
    │   ├── UnknownTarget             400 unknown-target
    │   ├── BoxOutsideImage           400 box-outside-image
    │   ├── Unauthorized              401 unauthorized
    │   ├── NotAcceptable             406 not-acceptable
    │   ├── RequestTimeout            408 request-timeout
    │   ├── MethodUnavailable         409 method-unavailable
    │   ├── TooManyBytes              413 too-many-bytes
    │   ├── TooManyPixels             413 too-many-pixels
    │   ├── TooCostly                 413 too-costly
    │   ├── UnsupportedMediaType      415 unsupported-media-type
    │   ├── UnknownHost               421 unknown-host
    │   ├── UndecodableImage          422 undecodable-image
    │   ├── HeaderTooLarge            431 header-too-large
    │   └── ClientGone                499 client-gone (in log and metrics: nobody reads the answer)
    ├── QueueFull                     429 queue-full
    ├── EngineFailed                  500 engine-failed
    ├── UnsupportedCoding             501 unsupported-coding
    ├── NotReady                      503 not-ready
    ├── EngineDown                    503 engine-down
    ├── TooManyConnections            503 too-many-connections
    ├── StorageBusy                   503 storage-busy
    ├── DeadlineExceeded              504 deadline-exceeded
    ├── UnsupportedVersion            505 unsupported-version
    ├── StorageFull                   507 storage-full
    └── StartupError                  500 startup-error (never answered: the process ends)
        ├── BundleError               a model version on disk that cannot be served
        └── EngineUnavailable         an engine or precision that this machine does not have

The message of an error is written for the client: it never holds a traceback, a path of the
server or another library's words.
"""

from typing import ClassVar

__all__ = [
    "BoxOutsideImage",
    "BreedCAMError",
    "BundleError",
    "ClientGone",
    "DeadlineExceeded",
    "EngineDown",
    "EngineFailed",
    "EngineUnavailable",
    "HeaderTooLarge",
    "MalformedRequest",
    "MethodUnavailable",
    "MissingImage",
    "NotAcceptable",
    "NotReady",
    "QueueFull",
    "RequestError",
    "RequestTimeout",
    "StartupError",
    "StorageBusy",
    "StorageFull",
    "TooCostly",
    "TooManyBytes",
    "TooManyConnections",
    "TooManyPixels",
    "Unauthorized",
    "UndecodableImage",
    "UnknownHost",
    "UnknownTarget",
    "UnsupportedCoding",
    "UnsupportedMediaType",
    "UnsupportedVersion",
]


class BreedCAMError(Exception):
    """Anything BreedCAM raises on purpose."""

    code: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retry_after_s: ClassVar[int | None] = None
    """Seconds after which another try may succeed."""

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that belong to this error."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class RequestError(BreedCAMError):
    """The client can fix this."""

    code = "invalid-parameter"
    status = 400
    title = "Invalid parameter"


class MalformedRequest(RequestError):
    """The bytes are not a request of HTTP/1.1, or the body is not what its content type says."""

    code = "malformed-request"
    title = "Malformed request"


class MissingImage(RequestError):
    """The body holds no image."""

    code = "missing-image"
    title = "No image"


class UnknownTarget(RequestError):
    """`target` or `versus` names no class of the model."""

    code = "unknown-target"
    title = "Unknown target class"


class BoxOutsideImage(RequestError):
    """A box that shares no area with the image."""

    code = "box-outside-image"
    title = "Box outside the image"


class Unauthorized(RequestError):
    """The service needs an API key, and the request has none or an unknown one."""

    code = "unauthorized"
    status = 401
    title = "Unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        """The scheme to use (RFC 6750)."""
        return {"WWW-Authenticate": "Bearer"}


class NotAcceptable(RequestError):
    """No representation that the `Accept` header allows."""

    code = "not-acceptable"
    status = 406
    title = "Not acceptable"


class RequestTimeout(RequestError):
    """The request does not arrive, or too slowly."""

    code = "request-timeout"
    status = 408
    title = "Request timeout"


class MethodUnavailable(RequestError):
    """The model in use does not carry this method or layer."""

    code = "method-unavailable"
    status = 409
    title = "Method unavailable for this model"


class TooManyBytes(RequestError):
    """The body is over the limit."""

    code = "too-many-bytes"
    status = 413
    title = "Too many bytes"


class TooManyPixels(RequestError):
    """The image is over the pixel limit."""

    code = "too-many-pixels"
    status = 413
    title = "Too many pixels"


class TooCostly(RequestError):
    """Decoding the image takes more work, time or memory than is allowed."""

    code = "too-costly"
    status = 413
    title = "Too costly to decode"


class UnsupportedMediaType(RequestError):
    """Neither an accepted content type nor an allowed image format."""

    code = "unsupported-media-type"
    status = 415
    title = "Unsupported media type"


class UnknownHost(RequestError):
    """`Host` names none of the hosts that the service answers for."""

    code = "unknown-host"
    status = 421
    title = "Unknown host"


class UndecodableImage(RequestError):
    """An allowed format that does not decode."""

    code = "undecodable-image"
    status = 422
    title = "Undecodable image"


class HeaderTooLarge(RequestError):
    """The header is over the limit, in bytes or in lines."""

    code = "header-too-large"
    status = 431
    title = "Header too large"


class ClientGone(RequestError):
    """The client closed the connection before it had its answer."""

    code = "client-gone"
    status = 499
    title = "Client gone"


class UnsupportedCoding(BreedCAMError):
    """A transfer coding other than `chunked`."""

    code = "unsupported-coding"
    status = 501
    title = "Unsupported transfer coding"


class UnsupportedVersion(BreedCAMError):
    """A version of HTTP other than 1.0 and 1.1."""

    code = "unsupported-version"
    status = 505
    title = "Unsupported version of HTTP"


class QueueFull(BreedCAMError):
    """The service is handling as many requests as it allows."""

    code = "queue-full"
    status = 429
    title = "Too many requests"
    retry_after_s = 1
    """The queue drains in well under a second."""


class EngineFailed(BreedCAMError):
    """The model raised on this one input."""

    code = "engine-failed"
    title = "The model failed on this image"


class NotReady(BreedCAMError):
    """The service is starting or stopping, or the system has no memory for the photo."""

    code = "not-ready"
    status = 503
    title = "Not ready"
    retry_after_s = 2
    """Starting takes a few seconds."""


class EngineDown(BreedCAMError):
    """The model hangs, or its thread has died: the process has to be restarted."""

    code = "engine-down"
    status = 503
    title = "The engine is down"
    retry_after_s = 5
    """A restart takes a few seconds."""


class TooManyConnections(BreedCAMError):
    """The service serves as many connections as it allows."""

    code = "too-many-connections"
    status = 503
    title = "Too many connections"
    retry_after_s = 1
    """Connections that have done nothing for a second make way."""


class StorageBusy(BreedCAMError):
    """Another process keeps the file locked."""

    code = "storage-busy"
    status = 503
    title = "Storage busy"
    retry_after_s = 2
    """The writers of ratings are quick."""


class DeadlineExceeded(BreedCAMError):
    """The answer was not ready in time."""

    code = "deadline-exceeded"
    status = 504
    title = "Deadline exceeded"


class StorageFull(BreedCAMError):
    """There is no space for what is to be kept."""

    code = "storage-full"
    status = 507
    title = "Storage full"


class StartupError(BreedCAMError):
    """The service cannot start; the message says what to fix."""

    code = "startup-error"


class BundleError(StartupError):
    """A model version on disk that is missing, malformed or altered."""


class EngineUnavailable(StartupError):
    """An engine, device or precision that was requested and is not available."""
