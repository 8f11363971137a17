"""Every error this project raises on purpose.

    TTCLError                       500 server_error
    ├── ConfigurationError          stops the start; one sentence that says what to mend
    ├── InvalidRequest              400 invalid_request_error     (param names the field)
    │   ├── PayloadTooLarge         413
    │   ├── ClientTooSlow           408
    │   └── UnsupportedEncoding     415
    ├── AuthenticationFailed        401 authentication_error
    ├── NotAllowed                  403 permission_error
    ├── NotFound                    404 not_found_error
    │   └── ModelNotFound           404 model_not_found
    ├── Conflict                    409 conflict_error
    │   └── StaleVersion            409 version_conflict          (current is the version now)
    ├── TooManyRequests             429 rate_limit_error          (retry_after in seconds)
    ├── Overloaded                  503 overloaded                (retry_after in seconds)
    └── UpstreamError               the model server failed
        ├── UpstreamFailed          its own 5xx and error
        │   └── UpstreamRejected    its own 4xx and error
        ├── UpstreamUnavailable     502, or 503 while it starts
        └── UpstreamTimeout         504

A failed *sample* is no exception: it is a `Trajectory` with a `failure` reason.
"""

from __future__ import annotations

from typing import Any


class TTCLError(Exception):
    """Base of the tree. One handler (`app.api.errors`) renders it as the OpenAI error envelope."""

    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.retry_after = retry_after

    def envelope(self) -> dict[str, Any]:
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class ConfigurationError(TTCLError):
    code = "configuration_error"


class InvalidRequest(TTCLError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class PayloadTooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class ClientTooSlow(InvalidRequest):
    status = 408
    code = "request_timeout"


class UnsupportedEncoding(InvalidRequest):
    status = 415
    code = "unsupported_encoding"


class AuthenticationFailed(TTCLError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotAllowed(TTCLError):
    status = 403
    type = "permission_error"
    code = "not_allowed"


class NotFound(TTCLError):
    status = 404
    type = "not_found_error"
    code = "not_found"


class ModelNotFound(NotFound):
    type = "invalid_request_error"
    code = "model_not_found"


class Conflict(TTCLError):
    status = 409
    type = "conflict_error"
    code = "conflict"


class StaleVersion(Conflict):
    """Somebody else was first. `current` is told in the message and in a header."""

    code = "version_conflict"

    def __init__(self, message: str, *, current: int) -> None:
        super().__init__(message, param="expected_version")
        self.current = current


class TooManyRequests(TTCLError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Overloaded(TTCLError):
    status = 503
    type = "overloaded_error"
    code = "overloaded"


class UpstreamError(TTCLError):
    status = 502
    type = "upstream_error"
    code = "upstream_error"


class UpstreamFailed(UpstreamError):
    """The upstream answered with an error of its own, which is the client's to see."""

    def __init__(
        self,
        message: str,
        *,
        body: dict[str, Any] | None = None,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.body = body

    def envelope(self) -> dict[str, Any]:
        if self.body is not None and isinstance(self.body.get("error"), dict):
            error = self.body["error"]
            return {
                "error": {
                    "message": str(error.get("message") or self.message),
                    "type": error.get("type") or self.type,
                    "param": error.get("param"),
                    "code": error.get("code"),
                }
            }
        return super().envelope()


class UpstreamRejected(UpstreamFailed):
    """The upstream answered with a 4xx."""

    def __init__(self, message: str, *, status: int, **said: Any) -> None:
        """`said`: as `UpstreamFailed` takes it."""
        super().__init__(message, **said)
        self.status = status


class UpstreamUnavailable(UpstreamError):
    code = "upstream_unavailable"

    def __init__(
        self, message: str, *, status: int = 502, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
