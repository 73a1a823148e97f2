"""Everything that anyclaude raises on purpose.

    AnyclaudeError                  a person can act on the message
    ├── UsageError                  the command line asks for something that does not exist
    ├── SettingError                a setting has an unknown name or an impossible value
    ├── UnsafeFolder                a folder of ours belongs to someone else or is open to others
    ├── ClientMissing               no Claude Code on this machine
    ├── NoBackend                   no model server was found, or the chosen one does not answer
    ├── ServerNotReached            the gateway did not start or does not answer
    ├── LedgerFailed                the ledger's file cannot be opened, or is a newer version's
    ├── TraceFailed                 a trace cannot be read, or its folder not be written
    ├── EngineFailed                a command to the engine failed, or the engine does not start
    ├── DownloadFailed              a model could not be fetched from the hub; what came is kept
    ├── ModelRefused                a model's folder is broken, runs code or is of no known kind
    └── ApiError                    an answer in the shape of the Messages API
        ├── InvalidRequest          400  the request holds an impossible value
        │   └── PromptTooLong       400  the client compacts the conversation and tries again
        ├── Unauthenticated         401  no token, or one that is not ours
        ├── Refused                 403  the guard or the backend says no for good
        ├── Missing                 404  no such route or model
        ├── TooLarge                413  the body is over the limit
        ├── RateLimited             429  the backend asks to wait
        ├── BackendFailed           502  the backend broke, or its answer makes no sense
        ├── BackendTimeout          504  the backend was silent for too long
        ├── Overloaded              529  full, starting or stopping: trying again helps
        └── Relayed                      the words of a server that speaks the Messages API itself

Raised close to the cause, mapped once at the edge. A message says what, where and what to do; it
never holds a secret or a prompt.
"""

from typing import ClassVar


class AnyclaudeError(Exception):
    """Something a person can act on; `exit_code` is the command's exit status."""

    exit_code: ClassVar[int] = 1

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class UsageError(AnyclaudeError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class SettingError(AnyclaudeError):
    """A setting has an unknown name or an impossible value."""

    exit_code = 2


class UnsafeFolder(AnyclaudeError):
    """A folder of ours belongs to someone else or is open to others."""


class ClientMissing(AnyclaudeError):
    """No Claude Code was found on this machine."""

    exit_code = 127


class NoBackend(AnyclaudeError):
    """No model server was found, or the chosen one does not answer."""


class ServerNotReached(AnyclaudeError):
    """The gateway did not start or does not answer."""


class LedgerFailed(AnyclaudeError):
    """The ledger's file cannot be opened, or is a newer version's."""


class TraceFailed(AnyclaudeError):
    """A trace cannot be read, or its folder not be written."""


class EngineFailed(AnyclaudeError):
    """A command to the engine failed, or the engine does not start."""


class DownloadFailed(AnyclaudeError):
    """A model could not be fetched from the hub. What had come is kept, and the next try goes on from there."""


class ModelRefused(AnyclaudeError):
    """A model's folder is broken, wants to run code, or is of a kind that the engine does not know."""


class ApiError(AnyclaudeError):
    """An error in the shape of the Messages API.

    `retry` is told to the client as `x-should-retry`; None leaves the choice to it.
    """

    status: int = 500
    kind: str = "api_error"
    retry: ClassVar[bool | None] = None

    def __init__(self, message: str, *, retry_after_s: float | None = None, retry: bool | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.should_retry = type(self).retry if retry is None else retry


class InvalidRequest(ApiError):
    """The request holds an impossible value; the message names the field."""

    status = 400
    kind = "invalid_request_error"


class PromptTooLong(InvalidRequest):
    """The prompt does not fit. The wordings are those the client acts on: it compacts or asks for less."""

    @classmethod
    def by_prompt(cls, n_prompt: int, window: int) -> "PromptTooLong":
        return cls(f"prompt is too long: {n_prompt} tokens > {window} maximum")

    @classmethod
    def by_output(cls, n_prompt: int, max_tokens: int, window: int) -> "PromptTooLong":
        return cls(
            f"input length and `max_tokens` exceed context limit: {n_prompt} + {max_tokens} > {window}, "
            "decrease input length or `max_tokens` and try again"
        )


class Unauthenticated(ApiError):
    """No token, or one that is not ours. The client would try for three minutes: it is told not to."""

    status = 401
    kind = "authentication_error"
    retry = False


class Refused(ApiError):
    """The guard or the backend says no, and asking again will not change it."""

    status = 403
    kind = "permission_error"
    retry = False


class Missing(ApiError):
    """There is no such route or model."""

    status = 404
    kind = "not_found_error"


class TooLarge(ApiError):
    """The body is over the limit."""

    status = 413
    kind = "request_too_large"


class RateLimited(ApiError):
    """The backend asks to wait."""

    status = 429
    kind = "rate_limit_error"


class BackendFailed(ApiError):
    """The backend broke, or its answer makes no sense."""

    status = 502


class BackendTimeout(ApiError):
    """The backend was silent for too long."""

    status = 504
    kind = "timeout_error"


class Overloaded(ApiError):
    """Full, starting or stopping: trying again helps."""

    status = 529
    kind = "overloaded_error"


class Relayed(ApiError):
    """The words of a server that speaks the Messages API itself: the client acts on them, so they stay as they are."""

    def __init__(
        self, message: str, *, status: int, kind: str, retry_after_s: float | None, retry: bool | None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s, retry=retry)
        self.status = status
        self.kind = kind
