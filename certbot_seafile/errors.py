"""Every failure that this package can name.

The law: a failure that somebody tells apart is named by its fact and carries what it is about as data; for the others,
Error will do. Whatever a person, a CA, a responder or a disk can cause is one of these; anything else that is raised is
a defect of ours. They descend from certbot's own errors, so that certbot prints their text as one line instead of a
traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from certbot import errors as certbot_errors

CertbotError = certbot_errors.Error


class Error(certbot_errors.PluginError):
    """Anything that stops this package; its text says what is wrong and what to do next."""

    def __init__(self, text: str) -> None:
        super().__init__(text.encode("utf-8", "backslashreplace").decode())  # a file's name may be no UTF-8

    def __repr__(self) -> str:
        """Return the text: certbot prints the repr of what prepare() raises, as `The error was: ...`."""
        return str(self)


class SyntaxRefused(Error):
    """nginx's tokenizer would not accept these bytes; line and column count from 1, the column in bytes."""

    def __init__(self, reason: str, line: int, column: int, path: str | None = None) -> None:
        self.reason, self.line, self.column, self.path = reason, line, column, path
        place = f"{path}:{line}:{column}" if path else f"line {line}, column {column}"
        super().__init__(f"nginx would not accept {place}: {reason}")


class SiteRefused(Error):
    """The Seafile site cannot be edited safely, or not by this run, or could be one of several; nothing was changed."""


class SiteNotFound(SiteRefused):
    """No nginx file holds a Seafile site for the name."""


class NginxMissing(Error, certbot_errors.NoInstallationError):
    """The nginx binary cannot be run."""


class NginxRefused(Error, certbot_errors.MisconfigurationError):
    """`nginx -t` or the reload failed; the text quotes nginx."""


class ConfigurationRefused(NginxRefused):
    """`nginx -t` failed; complaint: nginx's own words."""

    def __init__(self, complaint: str) -> None:
        self.complaint = complaint
        super().__init__(f"nginx refuses its configuration: {complaint}; fix that line, and run again")


class NotServed(Error):
    """nginx hands out something else than what was deployed, or nothing: a certificate, a staple, a validation file."""


class FileRefused(Error):
    """A file or folder cannot be read or written, is of another kind than expected, or was changed by someone else."""


class LineageRefused(Error):
    """A lineage is missing, damaged, or outside the live folder."""


class EnhancementPresent(Error, certbot_errors.PluginEnhancementAlreadyPresent):
    """The enhancement that was asked for is there already."""


class ResponderFailed(Error):
    """The responder gave no HTTP answer that can be used; reason: a phrase."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"the OCSP responder {url} gave no answer to use: {reason}")


class ResponseRefused(Error):
    """An OCSP response must not be stapled; reasons: why, as phrases."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("the OCSP response is refused: " + "; ".join(self.reasons))


class BundleRefused(Error):
    """A set of chain, key and staple is not one that nginx may serve; reasons: why, as phrases."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("the certificate with its key is refused: " + "; ".join(self.reasons))


class CertificateRevoked(ResponseRefused):
    """The CA says in an authentic response that the certificate is revoked; times are aware and UTC.

    revocation_reason: RFC 5280 5.3.1's name. this_update: no response of an earlier time undoes the revocation.
    """

    def __init__(self, revoked_at: object, revocation_reason: str | None, this_update: datetime) -> None:
        self.revoked_at, self.revocation_reason, self.this_update = revoked_at, revocation_reason, this_update
        suffix = f" (reason: {revocation_reason})" if revocation_reason else ""
        super().__init__([f"the CA revoked the certificate on {revoked_at}{suffix}"])
