"""What can go wrong for a caller, in the shape that OpenAI's interface gives errors."""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """An error that a caller is told.

    Args:
        message: what is wrong, and what was expected.
        param: the field of the request, if it is one's fault.
        code: a name for programs.
        headers: of the response.
    """

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.headers = message, param, headers or {}
        self.code = code or self.code

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadValueError(ServiceError):
    """A value that cannot be used; `param` names its field."""

    status, type, code = 422, "invalid_request_error", "invalid_value"


class TooLongError(ServiceError):
    """More than is taken at once."""

    status, type, code = 413, "invalid_request_error", "too_long"


class NotFoundError(ServiceError):
    """There is no such thing."""

    status, type, code = 404, "invalid_request_error", "not_found"


class NotAllowedError(ServiceError):
    """No key, or a wrong one."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class FullError(ServiceError):
    """All places are taken, those of the queue included."""

    status, type, code = 429, "rate_limit_error", "queue_full"


class ClosingError(ServiceError):
    """The service finishes what it has and takes nothing new."""

    status, code = 503, "shutting_down"


class NotReadyError(ServiceError):
    """The model is not warm yet."""

    status, code = 503, "not_ready"


class TookTooLongError(ServiceError):
    """The time of one request is over."""

    status, code = 504, "timeout"


class FailedError(ServiceError):
    """The model failed."""

    status, code = 500, "generation_failed"


def bad_value(errors: Any) -> ServiceError:
    """pydantic's errors -> the first, with the field's name; a body that is no JSON is a 400."""
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    if first["type"] == "json_invalid":
        error = BadValueError("the body is not JSON", code="invalid_json")
        error.status = 400
        return error
    # of the ways that a field may be given, the name of one is no part of its name
    param = next(iter(place), None)
    said = first["msg"][:1].lower() + first["msg"][1:]
    return BadValueError(f"{param or 'the body'}: {said}", param)


class LeftError(Exception):
    """The caller has hung up: nobody is there to be told anything."""
