"""A lineage on disk: its certificates, its renewal file, and the options that are saved there.

The law: what certbot keeps in its configuration folder is read and completed here and nowhere else; a lineage outside
the live folder is refused.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from certbot_seafile import errors
from certbot_seafile.ocsp import pkix
from certbot_seafile.site import syntax
from certbot_seafile.system import files, renewal

PLUGIN_NAME, PLUGIN_COMMAND = renewal.PLUGIN_NAME, renewal.PLUGIN_COMMAND

_START_OVER = (  # certbot passes over a lineage whose files are gone, and does not renew it by force
    "run `certbot-seafile undo --cert-name NAME`, `certbot delete --cert-name NAME`, then get it again with "
    "`certbot certonly -a seafile --cert-name NAME -d NAME`"
)
_BEGIN = b"-----BEGIN CERTIFICATE-----"
# What is written into nginx's files and joined to paths; certbot itself allows any file name, with line ends in it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*(?<!\.conf)")
_certificate = functools.lru_cache(maxsize=64)(x509.load_pem_x509_certificate)  # a CA's lineages have the same chain


@dataclass(frozen=True)
class Options:
    """What a person can choose; saved in a renewal file as seafile_NAME.

    forward: the URL that challenges are passed on to (None: they are answered here). is_users_webroot: an unprivileged
    user writes the validation files. Both come from root's settings (sealed/settings.py). no_redirect: certbot's
    --no-redirect.
    """

    site: str | None = None
    server_root: str | None = None
    ctl: str = "nginx"
    reload_cmd: str | None = None
    webroot: str = "/var/www/letsencrypt"
    staple_dir: str = "/etc/nginx/OCSP"
    stapling: str = "auto"
    ocsp_url: str | None = None
    handover: str | None = None
    http_port: int = 80
    https_port: int = 443
    forward: str | None = None
    is_users_webroot: bool = False
    no_redirect: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            if "\0" in str(getattr(self, each.name)):
                option = f"--seafile-{each.name.replace('_', '-')}"
                raise errors.LineageRefused(
                    f"the value of {option} holds a NUL byte; give that option again without it"
                )
        for name in ("site", "server_root", "webroot", "staple_dir", "handover"):  # nginx has another working folder
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, os.path.abspath(path))

    def chosen(self) -> dict[str, Any]:
        """Return the options that are not at their defaults."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


_UNSAVED = ("http_port", "https_port", "forward", "is_users_webroot", "no_redirect")  # ports are certbot's to save
_SAVED = [each.name for each in fields(Options) if each.name not in _UNSAVED]
#: What certbot calls the options that it saves, in its configuration and in renewal files.
KEYS = {name: f"seafile_{name}" for name in _SAVED} | {"http_port": "http01_port", "https_port": "https_port"}


@dataclass(frozen=True)
class Paths:
    """Where the files of the lineage called name are, whether it exists or not."""

    name: str
    config_dir: str
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
    def renewal_path(self) -> str:
        """Return the path of the renewal file."""
        return os.path.join(self.config_dir, "renewal", f"{self.name}.conf")

    @property
    def response_path(self) -> str:
        """Return the path of the stored staple."""
        return os.path.join(self.own_folder, "ocsp.response")

    @property
    def own_folder(self) -> str:
        """Return the folder of what nginx reads of the lineage beside certbot's own files."""
        return os.path.join(self.options.staple_dir, self.name)

    @property
    def snippet_path(self) -> str:
        """Return the path of the file that the site includes: the lines for stapling, and of a sealed lineage all."""
        return os.path.join(self.options.staple_dir, f"{self.name}.conf")


@dataclass(frozen=True)
class Lineage(Paths):
    """One lineage as it stands on disk at the time of load(); certificates are parsed, keys are never read.

    for_names: those for which it is to be served, where root's settings or other lineages limit them; (): the leaf's.
    """

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    renewal: Mapping[str, str]
    for_names: tuple[str, ...] = ()

    @property
    def is_authenticated(self) -> bool:
        """Tell whether certbot lets this plugin answer the CA's challenges for it."""
        return self.renewal.get("authenticator") == PLUGIN_NAME

    @property
    def names(self) -> tuple[str, ...]:
        """Return for_names, else the leaf's DNS names and IP addresses (RFC 5280 4.2.1.6), in its order."""
        return self.for_names or certificate_names(self.leaf)

    @property
    def leaf_der(self) -> bytes:
        """Return the leaf's DER, as a TLS server hands it out."""
        return self.leaf.public_bytes(Encoding.DER)

    @property
    def not_before(self) -> datetime:
        """Return when the leaf begins to hold, aware, UTC."""
        return pkix.time_of(self.leaf, "not_valid_before")  # type: ignore[no-any-return]

    @property
    def not_after(self) -> datetime:
        """Return when the leaf expires, aware, UTC."""
        return pkix.time_of(self.leaf, "not_valid_after")  # type: ignore[no-any-return]

    @property
    def is_renewed(self) -> bool:
        """Tell whether the lineage has had a certificate before this one, as far as its number in archive/ tells."""
        return os.path.basename(os.path.realpath(os.path.join(self.folder, "cert.pem"))) != "cert1.pem"

    @property
    def key_type(self) -> str:
        """Return "rsa", "ecdsa" or "other"."""
        kinds = {"rsa": rsa.RSAPublicKey, "ecdsa": ec.EllipticCurvePublicKey}
        key = self.leaf.public_key()
        return next((name for name, kind in kinds.items() if isinstance(key, kind)), "other")

    @property
    def responder_url(self) -> str | None:
        """Return the responder that the options name, else the certificate's; None where there is neither."""
        return self.options.ocsp_url or pkix.ocsp_url(self.leaf)

    @property
    def is_must_staple(self) -> bool:
        """Tell whether the leaf demands a staple (RFC 7633)."""
        return pkix.is_must_staple(self.leaf)

    def stored_response(self) -> bytes | None:
        """Return what is stored as the leaf's staple, unverified; None without. Raises errors.FileRefused."""
        return files.read_if_present(self.response_path)

    def contents(self, response: bytes | None) -> list[tuple[str, bytes | None]]:
        """Return what is to be on disk with this staple (None: with none), in the order of writes: path, content.

        The response comes before the snippet that names it. Content None: no file; the response itself is not in the
        list then, because it goes when nginx has reloaded.
        """
        if response is None:
            return [(self.snippet_path, None)]
        lines = [f"# The OCSP staple of {self.name}, {KEPT}: this file comes and goes with it.", *self.stapling_lines]
        return [(self.response_path, response), (self.snippet_path, "\n".join([*lines, ""]).encode())]

    @property
    def stapling_lines(self) -> list[str]:
        """Return the two directives that let nginx staple the stored response."""
        return ["ssl_stapling on;", f"ssl_stapling_file {quoted(self.response_path)};"]


#: In the first line of each snippet.
KEPT = f"kept by {PLUGIN_COMMAND}"


def quoted(path: str) -> str:
    """Return a path as nginx reads it as one word."""
    return os.fsdecode(syntax.quote(os.fsencode(path)))


def check_name(name: str) -> None:
    """Refuse a lineage's name that must not be written into nginx's files or a path. Raises errors.LineageRefused."""
    if not _NAME.fullmatch(name):
        raise errors.LineageRefused(
            f"a certificate must not be called {name!r}: letters, digits and . _ : - may be in its name, a letter or a "
            "digit comes first, and .conf is not its end; choose another with --cert-name NAME"
        )


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names and IP addresses of the certificate's subjectAltName, in order; () where it has none."""
    names = pkix.extension_of(certificate, x509.SubjectAlternativeName) or ()
    return tuple(str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def state_dir(config_dir: str) -> str:
    """Return the folder of ours in certbot's configuration folder."""
    return os.path.join(config_dir, PLUGIN_NAME)


def former_mark(config_dir: str) -> str:
    """Return the mark of version 0.0 that certbot's folders are an ordinary user's."""
    return os.path.join(state_dir(config_dir), "without-root")


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
    entries = files.names_in(os.path.join(config_dir, "renewal"))
    return sorted(entry.removesuffix(".conf") for entry in entries if entry.endswith(".conf"))


def names_of_plugin(config_dir: str) -> list[str]:
    """Return the names of the lineages that are this plugin's, or whose renewal file cannot tell, sorted."""
    names = []
    for name in all_names(config_dir):
        with contextlib.suppress(errors.LineageRefused):
            if not renewal.names_plugin(_parameters(config_dir, name)):
                continue
        names.append(name)
    return names


def at_paths(config_dir: str, paths: Iterable[str], **chosen: Any) -> list[Lineage]:
    """Return the plugin's lineages of which files, or sealed copies, may lie at the paths, by name; chosen: see load().

    Only these are read, however many there are. A damaged one is left out.
    """
    folders = {os.path.dirname(path) for path in paths}
    names = {os.path.basename(folder) for folder in folders | set(map(os.path.dirname, folders))}
    loaded = load_each(config_dir, sorted(names), **chosen)
    return [lineage for lineage in loaded if renewal.names_plugin(lineage.renewal)]


def sharing(config_dir: str, domains: Collection[str], **chosen: Any) -> list[Lineage]:
    """Return the lineages, of any plugin, that are for one of the domains, by name; chosen: see load().

    The certificates of all are read once a process, and again where a lineage came or went: within one run, only the
    lineage that it is about gets other names. A damaged one is left out.
    """
    by_domain = _names_by_domain(config_dir, tuple(all_names(config_dir)))
    names = sorted({name for domain in domains for name in by_domain.get(domain, ())})
    return load_each(config_dir, names, **chosen)


@functools.lru_cache(maxsize=1)
def _names_by_domain(config_dir: str, names: tuple[str, ...]) -> dict[str, list[str]]:
    by_domain: dict[str, list[str]] = {}
    for name in names:
        with contextlib.suppress(errors.LineageRefused):
            leaf, *_ = certificates(os.path.join(config_dir, "live", name, "cert.pem"))
            for domain in certificate_names(leaf):
                by_domain.setdefault(domain, []).append(name)
    return by_domain


def load_each(config_dir: str, names: Iterable[str], **chosen: Any) -> list[Lineage]:
    """Return the lineages of these names that can be read; chosen: see load()."""
    loaded = []
    for name in names:
        with contextlib.suppress(errors.LineageRefused):
            loaded.append(load(config_dir, name, **chosen))
    return loaded


def load(config_dir: str, name: str, *, options: Options | None = None, **chosen: int) -> Lineage:
    """Read the lineage called name; options stand in for the saved ones, chosen ones (https_port) override them.

    Raises errors.LineageRefused where it is missing or damaged.
    """
    check_name(name)
    parameters, folder = _parameters(config_dir, name), os.path.join(config_dir, "live", name)
    leaf, *_ = certificates(os.path.join(folder, "cert.pem"))
    chain = certificates(os.path.join(folder, "chain.pem"), at_least=0)
    return Lineage(name, config_dir, options or _options(parameters, **chosen), leaf, chain, parameters)


def certificates(path: str, at_least: int = 1) -> tuple[x509.Certificate, ...]:
    """Return the PEM certificates of the file at path. Raises errors.LineageRefused."""
    try:
        blocks = files.read(path).split(_BEGIN)[1:]
        parsed = tuple(_certificate(_BEGIN + block) for block in blocks)
    except (errors.FileRefused, ValueError) as error:
        renewal.refuse_forbidden(error, "certificate")
        raise errors.LineageRefused(f"the certificate {path} is missing or damaged ({error}); {_START_OVER}") from error
    if len(parsed) < at_least:
        raise errors.LineageRefused(f"{path} holds no certificate; {_START_OVER}")
    return parsed


def _parameters(config_dir: str, name: str) -> dict[str, str]:
    return renewal.parameters(Paths(name, config_dir, Options()).renewal_path)


def _options(known: Mapping[str, str], **chosen: int) -> Options:
    saved: dict[str, Any] = {name: known.get(key) for name, key in KEYS.items()}
    saved = {name: value for name, value in saved.items() if value not in (None, "", "None")}
    for name in saved.keys() - set(_SAVED):
        port = saved.pop(name)
        saved |= {name: int(port)} if port.isdigit() else {}
    return Options(**{"no_redirect": renewal.is_without_redirect(renewal.hook(known)), **saved, **chosen})


def options_of(config_dir: str, name: str) -> Options:
    """Return the options that the renewal file of the lineage called name has. Raises errors.LineageRefused."""
    return _options(_parameters(config_dir, name))


def refuse_cut_off(lineage: Lineage) -> None:
    """Refuse a lineage whose renewal file may have lost options. Raises errors.LineageRefused."""
    if not renewal.is_whole(lineage.renewal):
        raise errors.LineageRefused(
            f"the renewal file {lineage.renewal_path} is cut off, so the options of {lineage.name} are not known; get "
            "the certificate again with `certbot certonly -a seafile` and the options that it had"
        )


def complete_renewal(lineage: Lineage, hook_command: str) -> bool:
    """Put installer, deploy hook and options into the renewal file where they are missing; return whether it changed.

    Options at their defaults are not written. Raises errors.LineageRefused, errors.FileRefused.
    """
    chosen = lineage.options.chosen()
    wanted = {key: chosen[name] for name, key in KEYS.items() if name in chosen}
    return renewal.complete(lineage.renewal_path, hook_command, wanted)
