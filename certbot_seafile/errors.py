"""Every failure this package can name.

The law of this module: each failure is named by its fact and carries what it is about as data. Whatever a person,
a CA, a responder or a disk can cause is one of these; anything else that is raised is a defect of ours. They descend
from certbot's own errors, so that certbot prints their text as one line instead of a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

from certbot import errors as certbot_errors

CertbotError = certbot_errors.Error


class Error(certbot_errors.PluginError):
    """Anything that stops this package; its text says what is wrong and what to do next."""


class SyntaxRefused(Error):
    """nginx's tokenizer would not accept these bytes.

    Attributes: reason (a phrase), line and column (both from 1; the column counts bytes), path (of the file, where
    the caller knew it).
    """

    def __init__(self, reason: str, line: int, column: int, path: str | None = None) -> None:
        self.reason, self.line, self.column, self.path = reason, line, column, path
        where = f"{path}:{line}:{column}" if path else f"line {line}, column {column}"
        super().__init__(f"nginx would not accept {where}: {reason}")


class SiteRefused(Error):
    """The Seafile site has a shape that cannot be edited safely; nothing was changed."""


class RootNeeded(SiteRefused):
    """The site needs an edit, and this run is not root's; nothing was changed."""


class SiteNotFound(SiteRefused):
    """No nginx file holds a Seafile site for the name."""


class SiteAmbiguous(SiteRefused):
    """More than one nginx file could be the Seafile site. Attribute: candidates (paths)."""

    def __init__(self, text: str, candidates: Sequence[str]) -> None:
        self.candidates = tuple(candidates)
        super().__init__(text)


class NginxMissing(Error, certbot_errors.NoInstallationError):
    """The nginx binary cannot be run."""


class NginxRefused(Error, certbot_errors.MisconfigurationError):
    """`nginx -t` or the reload failed; the text quotes nginx."""


class ChallengeUnreachable(Error):
    """A validation file did not come back through nginx; the text says what came instead."""


class NotServed(Error):
    """A TLS look shows something else than what was deployed."""


class FileRefused(Error):
    """A file or folder cannot be read or written, is of another kind than expected, or was changed by someone else."""


class LineageRefused(Error):
    """A lineage is missing, damaged, or outside the live folder."""


class EnhancementPresent(Error, certbot_errors.PluginEnhancementAlreadyPresent):
    """The enhancement that was asked for is there already."""


class EnhancementUnknown(Error, certbot_errors.NotSupportedError):
    """The enhancement that was asked for is none of ours."""


class ResponderFailed(Error):
    """The responder gave no usable HTTP answer. Attributes: url, reason (a phrase)."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"the OCSP responder {url} gave no answer to use: {reason}")


class ResponseRefused(Error):
    """An OCSP response must not be stapled. Attribute: reasons (every one that was found, phrases)."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("the OCSP response is refused: " + "; ".join(self.reasons))


class NotStapled(Error):
    """A lineage has no staple and cannot go without: it is a must-staple one, or revoked."""


class CertificateRevoked(ResponseRefused):
    """The CA says that the certificate is revoked, in a response that is authentic in every other respect.

    Attributes: revoked_at (aware datetime, UTC), revocation_reason (RFC 5280 5.3.1's name, or None).
    """

    def __init__(self, revoked_at: object, revocation_reason: str | None) -> None:
        self.revoked_at, self.revocation_reason = revoked_at, revocation_reason
        why = f" (reason: {revocation_reason})" if revocation_reason else ""
        super().__init__([f"the CA revoked the certificate on {revoked_at}{why}"])
