"""A lineage on disk: its certificates, its renewal file, and the options that are saved there.

The law: what certbot keeps in its configuration folder is read and completed here and nowhere else; a lineage outside
the live folder is refused.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import configobj
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certbot_seafile import errors
from certbot_seafile.ocsp import verify
from certbot_seafile.system import files

PLUGIN_NAME = "seafile"
PLUGIN_COMMAND = "certbot-seafile"

_WORD = r"(?:'[^']*'|[^\s';|&])+"
_PROGRAM = rf"(?:'[^']*{PLUGIN_COMMAND}'|[^\s';|&]*{PLUGIN_COMMAND})"
_OUR_HOOK = re.compile(rf"{_PROGRAM}(?: --[a-z0-9-]+ {_WORD})* deploy\b")


@dataclass(frozen=True)
class Options:
    """What a person can choose; saved in a renewal file as seafile_NAME.

    outbox: where an ordinary user leaves responses for root's step to store; None where this run stores them itself.
    """

    site: str | None = None
    server_root: str | None = None
    ctl: str = "nginx"
    reload_cmd: str | None = None
    webroot: str = "/var/www/letsencrypt"
    staple_dir: str = "/etc/nginx/OCSP"
    stapling: str = "auto"
    ocsp_url: str | None = None
    http_port: int = 80
    https_port: int = 443
    outbox: str | None = None


#: What a renewal file says nothing of: ports are certbot's to save, and who may write where is found out at each run.
_UNSAVED = {"http_port", "https_port", "outbox"}


@dataclass(frozen=True)
class Lineage:
    """One lineage as it stands on disk at the time of load(); certificates are parsed, keys are never read."""

    name: str
    config_dir: str
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    renewal: dict[str, str]
    options: Options

    @property
    def folder(self) -> str:
        """Return the lineage's folder below live/."""
        return os.path.join(self.config_dir, "live", self.name)

    @property
    def fullchain_path(self) -> str:
        """Return the path that goes into ssl_certificate."""
        return os.path.join(self.folder, "fullchain.pem")

    @property
    def key_path(self) -> str:
        """Return the path that goes into ssl_certificate_key."""
        return os.path.join(self.folder, "privkey.pem")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the leaf's DNS names and IP addresses (RFC 5280 4.2.1.6), in its order."""
        return certificate_names(self.leaf)

    @property
    def fingerprint(self) -> bytes:
        """Return the leaf's SHA-256."""
        return self.leaf.fingerprint(hashes.SHA256())

    @property
    def leaf_der(self) -> bytes:
        """Return the leaf's DER, as a TLS server hands it out."""
        return self.leaf.public_bytes(Encoding.DER)

    @property
    def not_before(self) -> datetime.datetime:
        """Return when the leaf begins to hold, aware, UTC."""
        if hasattr(self.leaf, "not_valid_before_utc"):
            return self.leaf.not_valid_before_utc
        return self.leaf.not_valid_before.replace(tzinfo=datetime.UTC)  # cryptography below 42

    @property
    def not_after(self) -> datetime.datetime:
        """Return when the leaf expires, aware, UTC."""
        if hasattr(self.leaf, "not_valid_after_utc"):
            return self.leaf.not_valid_after_utc
        return self.leaf.not_valid_after.replace(tzinfo=datetime.UTC)  # cryptography below 42

    @property
    def hooks(self) -> str:
        """Return the deploy hook of the renewal file, under the name that this certbot gives it; "" without."""
        said = (self.renewal.get("deploy_hook"), self.renewal.get("renew_hook"))
        return next((hook for hook in said if hook and hook != "None"), "")

    @property
    def key_type(self) -> str:
        """Return "rsa", "ecdsa" or "other"."""
        return key_type(self.leaf)

    @property
    def responder_url(self) -> str | None:
        """Return the responder that the options name, else the certificate's; None where there is neither."""
        return self.options.ocsp_url or verify.ocsp_url(self.leaf)

    @property
    def is_must_staple(self) -> bool:
        """Tell whether the leaf demands a staple (RFC 7633)."""
        return verify.is_must_staple(self.leaf)

    @property
    def response_path(self) -> str:
        """Return the path of the stored staple."""
        return response_path(self.options, self.name)

    @property
    def snippet_path(self) -> str:
        """Return the path of the file with the two stapling directives."""
        return snippet_path(self.options, self.name)

    @property
    def renewal_path(self) -> str:
        """Return the path of the renewal file."""
        return renewal_path(self.config_dir, self.name)


def renewal_path(config_dir: str, name: str) -> str:
    """Return the path of the renewal file of the lineage called name."""
    return os.path.join(config_dir, "renewal", f"{name}.conf")


def response_path(options: Options, name: str) -> str:
    """Return the path of the stored staple of the lineage called name, or of what is left for root's step to store."""
    return os.path.join(options.outbox or options.staple_dir, name, "ocsp.response")


def snippet_path(options: Options, name: str) -> str:
    """Return the path of the file with the stapling directives of the lineage called name."""
    return os.path.join(options.staple_dir, f"{name}.conf")


def key_type(certificate: x509.Certificate) -> str:
    """Return "rsa", "ecdsa" or "other" for the certificate's public key."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return "rsa"
    return "ecdsa" if isinstance(key, ec.EllipticCurvePublicKey) else "other"


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and IP addresses of the certificate's subjectAltName, in order; () where it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def state_dir(config_dir: str) -> str:
    """Return the folder of ours in certbot's configuration folder."""
    return os.path.join(config_dir, PLUGIN_NAME)


def handover_path(config_dir: str) -> str:
    """Return the mark that certbot's folders are an ordinary user's; it holds the path of the settings."""
    return os.path.join(state_dir(config_dir), "without-root")


def outbox_path(config_dir: str) -> str:
    """Return where an ordinary user who renews leaves responses for root's step."""
    return os.path.join(state_dir(config_dir), "staples")


def outbox(config_dir: str) -> str | None:
    """Return where this run leaves responses for root's step; None where it stores them itself."""
    is_other = os.geteuid() != 0 and os.path.exists(handover_path(config_dir))
    return outbox_path(config_dir) if is_other else None


def from_environment(config_dir: str, renewed_lineage: str) -> str:
    """Return the lineage's name for certbot's RENEWED_LINEAGE. Raises errors.LineageRefused outside the live folder."""
    live = os.path.join(os.path.realpath(config_dir), "live")
    folder = os.path.normpath(os.path.abspath(renewed_lineage))
    name = os.path.basename(folder)
    if os.path.realpath(os.path.dirname(folder)) != live or os.path.islink(folder) or not os.path.isdir(folder):
        raise errors.LineageRefused(
            f"RENEWED_LINEAGE is {renewed_lineage!r}, which is no lineage below {live}; "
            "give --config-dir the folder that certbot uses"
        )
    return name


def all_names(config_dir: str) -> list[str]:
    """Return the names of all lineages, sorted."""
    folder = os.path.join(config_dir, "renewal")
    if not os.path.isdir(folder):
        return []
    return sorted(entry[: -len(".conf")] for entry in os.listdir(folder) if entry.endswith(".conf"))


def names_of_plugin(config_dir: str) -> list[str]:
    """Return the names of the lineages whose renewal file names this plugin, sorted."""
    return [name for name in all_names(config_dir) if is_of_plugin(config_dir, name)]


def is_of_plugin(config_dir: str, name: str) -> bool:
    """Tell whether the lineage's renewal file names this plugin as authenticator or installer."""
    try:
        parameters = _parameters(read_renewal(renewal_path(config_dir, name)))
    except errors.LineageRefused:
        return False
    return names_plugin(parameters)


def names_plugin(parameters: Mapping[str, str]) -> bool:
    """Tell whether a renewal file's parameters name this plugin as authenticator or installer."""
    return PLUGIN_NAME in (parameters.get("authenticator"), parameters.get("installer"))


def authenticator_for(config_dir: str, name: str, names: Sequence[str]) -> str | None:
    """Return who authenticates the lineage called name, where its certificate is for exactly these names; else None."""
    try:
        found = load(config_dir, name)
    except errors.LineageRefused:
        return None
    return found.renewal.get("authenticator") if set(found.names) == set(names) else None


@dataclass(frozen=True)
class Sibling:
    """What is kept in mind of each lineage of this plugin: enough to see which ones share a server block."""

    name: str
    names: tuple[str, ...]
    key_type: str
    fullchain_path: str
    key_path: str


class Catalog:
    """The lineages of this plugin in one configuration folder, each read once, when it is first asked for."""

    def __init__(self, config_dir: str) -> None:
        self._config_dir = config_dir

    def sharing(self, lineage: Lineage) -> list[Sibling]:
        """Return the other lineages that are for one of the lineage's names; those that cannot be read are left out."""
        siblings = {sibling for name in lineage.names for sibling in self._by_domain.get(name, ())}
        return sorted((one for one in siblings if one.name != lineage.name), key=lambda one: one.name)

    @functools.cached_property
    def _by_domain(self) -> dict[str, list[Sibling]]:
        by_domain: dict[str, list[Sibling]] = {}
        for name in names_of_plugin(self._config_dir):
            with contextlib.suppress(errors.LineageRefused):
                one = load(self._config_dir, name)
                sibling = Sibling(name, one.names, one.key_type, one.fullchain_path, one.key_path)
                for domain in one.names:
                    by_domain.setdefault(domain, []).append(sibling)
        return by_domain


def load(config_dir: str, name: str, *, options: Options | None = None, **ports: int) -> Lineage:
    """Read the lineage called name; options stand in for the saved ones, ports (http_port, https_port) override them.

    Raises errors.LineageRefused where it is missing or damaged.
    """
    parameters = _parameters(read_renewal(renewal_path(config_dir, name)))
    folder = os.path.join(config_dir, "live", name)
    leaf = certificates(os.path.join(folder, "cert.pem"))
    chain = certificates(os.path.join(folder, "chain.pem"), at_least=0)
    chosen = replace(options or _options(parameters, **ports), outbox=outbox(config_dir))
    return Lineage(name, config_dir, leaf[0], tuple(chain), parameters, chosen)


def certificates(path: str, at_least: int = 1) -> list[x509.Certificate]:
    """Return the PEM certificates of the file at path. Raises errors.LineageRefused."""
    try:
        content = files.read(path)
    except errors.FileRefused as error:
        raise _damaged(path, error) from error
    return parse_certificates(content, path, at_least)


def _damaged(path: str, error: Exception) -> errors.LineageRefused:
    return errors.LineageRefused(
        f"the certificate {path} is missing or damaged ({error}); get it anew with `certbot renew --force-renewal`"
    )


def parse_certificates(content: bytes, path: str, at_least: int = 1) -> list[x509.Certificate]:
    """Return the PEM certificates in the content of the file at path. Raises errors.LineageRefused."""
    try:
        blocks = [b"-----BEGIN CERTIFICATE-----" + rest for rest in content.split(b"-----BEGIN CERTIFICATE-----")[1:]]
        found = [_certificate(block) for block in blocks]
    except ValueError as error:
        raise _damaged(path, error) from error
    if len(found) < at_least:
        raise errors.LineageRefused(f"{path} holds no certificate; get it anew with `certbot renew --force-renewal`")
    return found


#: Lineages of one CA have the same chain.
_certificate = functools.lru_cache(maxsize=64)(x509.load_pem_x509_certificate)


def read_renewal(path: str) -> configobj.ConfigObj:
    """Return the parsed renewal file. Raises errors.LineageRefused."""
    try:
        content = files.read(path)
        return configobj.ConfigObj(io.BytesIO(content), encoding="utf-8", default_encoding="utf-8", interpolation=False)
    except (errors.FileRefused, configobj.ConfigObjError, UnicodeDecodeError) as error:
        raise errors.LineageRefused(
            f"the renewal file {path} cannot be read ({error}); `certbot certificates` lists the lineages"
        ) from error


def complete_renewal(lineage: Lineage, hook_command: str) -> bool:
    """Put installer, deploy hook and options into the renewal file where they are missing; return whether it changed.

    Options at their defaults are not written. A person's own deploy hook is kept behind ours.
    Raises errors.LineageRefused, errors.FileRefused.
    """
    before = files.read(lineage.renewal_path)
    renewal = read_renewal(lineage.renewal_path)
    parameters = renewal.setdefault("renewalparams", {})
    wanted = {"installer": PLUGIN_NAME, **_chosen(lineage.options)}
    # certbot <= 5.x keeps the deploy hook under its old name, renew_hook; a file has one of the two.
    hook_key = "deploy_hook" if "deploy_hook" in parameters else "renew_hook"
    wanted[hook_key] = join_hooks(hook_command, parameters.get(hook_key))
    if all(parameters.get(key) == value for key, value in wanted.items()):
        return False
    parameters.update(wanted)
    after = io.BytesIO()
    renewal.write(after)
    files.replace(lineage.renewal_path, after.getvalue(), expected=before)
    return True


def _chosen(options: Options) -> dict[str, str]:
    """Return the options that are not at their defaults, as a renewal file has them."""
    chosen = {one.name: getattr(options, one.name) for one in fields(Options) if one.name not in _UNSAVED}
    return {f"seafile_{name}": value for name, value in chosen.items() if value != getattr(Options(), name)}


def merge(saved: Options, given: Options) -> Options:
    """Return the saved options, with those given instead that are not at their defaults."""
    return replace(saved, **{
        one.name: value for one in fields(Options) if (value := getattr(given, one.name)) != one.default
    })  # fmt: skip


def saved_options(config_dir: str, name: str) -> Options:
    """Return the options in the renewal file of the lineage called name. Raises errors.LineageRefused."""
    return _options(_parameters(read_renewal(renewal_path(config_dir, name))))


def join_hooks(ours: str, theirs: str | None) -> str:
    """Return one shell command that runs our deploy hook, then the person's own; it fails where either fails.

    theirs: None or "" where there is none, or a command that may hold ours already, as an earlier run wrote it: then
    only that part is brought up to date.
    """
    if not theirs or theirs == "None":
        return ours
    if _OUR_HOOK.search(theirs):
        return _OUR_HOOK.sub(lambda _: ours, theirs, count=1)
    return f"{ours} || trap 'exit 1' EXIT; {theirs}"


def _parameters(renewal: configobj.ConfigObj) -> dict[str, str]:
    section = renewal.get("renewalparams", {})
    return {key: value for key, value in section.items() if isinstance(value, str)}


def _options(parameters: dict[str, str], **ports: int) -> Options:
    saved: dict[str, object] = {}
    for field in fields(Options):
        value = parameters.get(f"seafile_{field.name}")
        if field.name not in _UNSAVED and value not in (None, "", "None"):
            saved[field.name] = value
    if parameters.get("http01_port", "").isdigit():
        saved["http_port"] = int(parameters["http01_port"])
    if parameters.get("https_port", "").isdigit():
        saved["https_port"] = int(parameters["https_port"])
    saved.update(ports)
    return Options(**saved)  # type: ignore[arg-type]
