"""A small internet in one folder: a CA, its responder, nginx with a site, and certbot.

The law of this module: nothing is simulated. Pebble is the CA, nginx the server, certbot is run as its users run it,
and all of it lives below one temporary folder that mirrors the system's (`etc/nginx`, `etc/letsencrypt`, `var/log` ...)
and on free ports of 127.0.0.1, so that tests neither need nor touch the machine's own servers and files. A `World`
starts nothing by itself; each test starts what it is about, and leaving the `with` block ends all of it.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from e2e import backends, forks, looks, processes, sites
from e2e.front import Front, validity
from e2e.looks import Look, Verdict
from e2e.processes import LOOPBACK, Child, ProcessFailed, tool

TESTS = Path(__file__).resolve().parent.parent
#: Programs without which no world can be made; the Debian packages that hold them are in tests/setup-environment.
TOOLS = ("pebble", "pebble-challtestsrv", "nginx", "openssl", "curl", "gnutls-cli", "setpriv")
COMMAND_TIMEOUT_SECONDS = 120

# Certificates and proxies that the machine's environment names have no place in this internet.
_FOREIGN = re.compile(
    r"(?i)(.*_proxy|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|XDG_CONFIG_HOME|RENEWED_.*|CERTBOT_.*)\Z"
)

_NGINX_CONF = """\
{user}worker_processes 1;
pid {folder}/run/nginx.pid;
error_log {folder}/var/log/nginx/error.log;

events {{
    worker_connections 256;
}}

http {{
    include mime.types;
    default_type application/octet-stream;
    client_body_temp_path {folder}/var/lib/nginx/body;
    proxy_temp_path {folder}/var/lib/nginx/proxy;
    fastcgi_temp_path {folder}/var/lib/nginx/fastcgi;
    uwsgi_temp_path {folder}/var/lib/nginx/uwsgi;
    scgi_temp_path {folder}/var/lib/nginx/scgi;
    access_log {folder}/var/log/nginx/access.log;
    include {folder}/etc/nginx/conf.d/*.conf;
    include {folder}/etc/nginx/sites-enabled/*;
}}
"""

# `-e` keeps nginx from opening the log it was compiled for before it has read the configuration. A configuration named
# on the command line wins over this one.
_NGINX_CTL = """\
#!/bin/sh
printf '%s\\n' "$*" >> {calls}
if [ "$*" = -V ]; then
    {nginx} -V 2>&1 | sed 's#--prefix=[^ ]*#--prefix={prefix}#; s#--conf-path=[^ ]*#--conf-path={conf}#' >&2
else
    exec {nginx} -e {log} -p {prefix} -c {conf} "$@"
fi
"""

_CERTBOT = """\
#!{python}
import sys
from certbot.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Run:
    """One finished command. log: what certbot's log file says, where the command has one."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    log: str = ""

    @property
    def output(self) -> str:
        """Both streams, stdout first."""
        return self.stdout + self.stderr

    def __str__(self) -> str:
        return f"$ {shlex.join(self.command)}\n{self.output}exit code {self.exit_code}"


class CommandFailed(AssertionError):
    """A command that a test expected to succeed did not. Attribute: run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        super().__init__(f"{run}\n{run.log[-6000:]}")


@dataclass(frozen=True)
class Issuer:
    """An issuing certificate of the CA and its private key, as PEM files, for responders to sign with."""

    certificate: Path
    key: Path


class World:
    """One test's folder, ports and servers; a context manager.

    Ports: http_port and https_port (nginx), other_http_port and other_https_port (spare, for sites with more),
    ocsp_port, acme_port. The folder mirrors a system: `world.path("/etc/nginx")` is where nginx's files are.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="certbot-seafile-")).resolve()
        (self.http_port, self.https_port, self.other_http_port, self.other_https_port, self.ocsp_port,
         self.acme_port, self._pebble_port, self._manage_port, self._dns_port,
         self._dns_manage_port) = processes.free_ports(10)  # fmt: skip
        self._children: dict[str, Child] = {}
        self._front: Front | None = None
        #: A loopback address that no other world has, where Seahub and the file server have their usual ports.
        self.seafile_address = f"127.{self.http_port // 256}.{self.http_port % 256}.1"
        self._seafile: list[backends.Backend] = []
        self.config_dir = self.path("/etc/letsencrypt")
        self.work_dir = self.path("/var/lib/letsencrypt")
        self.logs_dir = self.path("/var/log/letsencrypt")
        self.server_root = self.path("/etc/nginx")
        self.nginx_conf = self.server_root / "nginx.conf"
        self.sites = self.server_root / "sites-enabled"
        self.staple_dir = self.server_root / "OCSP"
        self.webroot = self.path("/var/www/letsencrypt")
        self.nginx_ctl = self.folder / "bin" / "nginx"
        self.nginx_calls_log = self.folder / "bin" / "nginx.calls"
        self.root = self.folder / "pebble" / "root.pem"
        self.ocsp_log = self.folder / "ocsp" / "requests.log"
        self._make_folders()
        self._write_nginx()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every server and remove the folder. Raises ProcessFailed where a process was left that nobody owned."""
        self.stop_pebble()
        self.stop_seafile()
        for name in reversed(list(self._children)):
            self._stop(name)
        strays = processes.processes_in(self.folder)
        processes.end_all(strays)
        shutil.rmtree(self.folder)
        if strays:
            raise ProcessFailed("left running: " + "; ".join(f"{pid} {line}" for pid, line in strays.items()))

    def path(self, absolute: str) -> Path:
        """Return where a path of the mirrored system is in this folder: "/etc/nginx" is FOLDER/etc/nginx."""
        return self.folder / absolute.lstrip("/")

    def logs(self) -> dict[str, str]:
        """Return everything that servers and certbot wrote, by title; for failure reports."""
        found = {child.name: child.text() for child in self._children.values()}
        for path in sorted([*self.path("/var/log").rglob("*.log"), self.nginx_calls_log, self.ocsp_log]):
            if path.exists():
                found[str(path.relative_to(self.folder))] = path.read_text(encoding="utf-8", errors="replace")
        return {title: text for title, text in found.items() if text}

    def _make_folders(self) -> None:
        # 0755 along the way, as on a system: nginx's workers may run as someone else.
        for folder in ("bin", "run", "pebble", "ocsp", "etc/nginx/conf.d", "etc/nginx/sites-enabled",
                       "etc/nginx/snippets", "var/log/nginx", "var/lib/nginx", "var/www/html"):  # fmt: skip
            (self.folder / folder).mkdir(parents=True)

    def _write_nginx(self) -> None:
        user = "user root;\n" if os.geteuid() == 0 else ""
        self.nginx_conf.write_text(_NGINX_CONF.format(user=user, folder=self.folder))
        for name in ("mime.types", "proxy_params", "fastcgi_params", "fastcgi.conf", "uwsgi_params", "scgi_params"):
            shutil.copy(f"/etc/nginx/{name}", self.server_root)
        self.nginx_ctl.write_text(_NGINX_CTL.format(
            calls=self.nginx_calls_log, nginx=tool("nginx"), prefix=self.server_root, conf=self.nginx_conf,
            log=self.path("/var/log/nginx/error.log")))  # fmt: skip
        self.nginx_ctl.chmod(0o755)

    # Children

    def _start(self, name: str, command: list[str | Path], env: Mapping[str, str] | None = None) -> Child:
        if name in self._children:
            raise ProcessFailed(f"{name} runs already")
        child = processes.start(name, command, self.folder / "servers" / f"{name}.log", self.environment(env))
        self._children[name] = child
        return child

    def _stop(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is not None:
            child.stop()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for commands: this process's, without its proxies and trust stores, plus `extra`."""
        kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
        own = {
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "REQUESTS_CA_BUNDLE": str(self.folder / "pebble" / "acme-ca.pem"),
        }
        return kept | own | dict(extra or {})

    def run(self, *command: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run a command to its end, without a terminal. Raises CommandFailed on exit codes other than 0, if `check`."""
        words = tuple(str(word) for word in command)
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, env=self.environment(env), check=False,
            timeout=COMMAND_TIMEOUT_SECONDS, encoding="utf-8", errors="replace", cwd=self.folder,
        )  # fmt: skip
        result = Run(words, done.returncode, done.stdout, done.stderr, self._certbot_log())
        if check and result.exit_code != 0:
            raise CommandFailed(result)
        return result

    def _certbot_log(self) -> str:
        path = self.logs_dir / "letsencrypt.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # The CA

    def start_pebble(
        self,
        ocsp: bool = True,
        authz_reuse: int = 0,
        must_staple: bool = False,
        profiles: Mapping[str, datetime.timedelta] | None = None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        eab: Mapping[str, str] | None = None,
    ) -> None:
        """Start the CA with its DNS server, in which every name is 127.0.0.1.

        ocsp: whether certificates name the responder at ocsp_port. authz_reuse: how often, in percent, a valid
        authorization is used again. must_staple: honour certbot's --must-staple, also where Pebble is too old to;
        profiles: by name, how long their certificates hold from `now` on; see `front`. eab: the keys (base64url), by
        their ids, of which an account must name one; without, accounts need none. Pebble makes its root, intermediate
        and new accounts at each start, on the same ports: what an earlier one issued is a stranger's.
        """
        self._start_dns()
        _write_acme_identity(self.folder / "pebble")
        is_fronted = must_staple or profiles is not None
        port = self._pebble_port if is_fronted else self.acme_port
        config = self.folder / "pebble" / "config.json"
        config.write_text(json.dumps({"pebble": self._pebble_config(port, ocsp, eab or {})}))
        child = self._start(
            "pebble",
            [tool("pebble"), "-config", config, "-dnsserver", f"{LOOPBACK}:{self._dns_port}"],
            {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": str(authz_reuse)},
        )
        child.wait_until(lambda: processes.answers(self._manage_port) and processes.answers(port), "answering")
        self.root.write_bytes(self._manage("roots/0"))
        if is_fronted:
            key = self.issuers()[0].key
            self._front = Front(self.acme_port, port, self._acme_identity, key, profiles or {}, now)

    def _pebble_config(self, port: int, ocsp: bool, eab: Mapping[str, str]) -> dict[str, object]:
        certificate, key, _ = self._acme_identity
        return {
            "listenAddress": f"{LOOPBACK}:{port}",
            "managementListenAddress": f"{LOOPBACK}:{self._manage_port}",
            "certificate": str(certificate),
            "privateKey": str(key),
            "httpPort": self.http_port,
            "tlsPort": self.https_port,
            "ocspResponderURL": self.ocsp_url if ocsp else "",
            "externalAccountBindingRequired": bool(eab),
            "externalAccountMACKeys": dict(eab),
        }

    @property
    def _acme_identity(self) -> tuple[Path, Path, Path]:
        folder = self.folder / "pebble"
        return folder / "acme.pem", folder / "acme.key", folder / "acme-ca.pem"

    @property
    def front(self) -> Front:
        """What stands before the CA, where `start_pebble` was asked for more than Pebble can."""
        assert self._front is not None
        return self._front

    def stop_pebble(self) -> None:
        """End the CA and its DNS server; then requests to it are refused."""
        if self._front is not None:
            self._front.close()
            self._front = None
        self._stop("pebble")
        self._stop("dns")

    def _start_dns(self) -> None:
        manage = f"{LOOPBACK}:{self._dns_manage_port}"
        child = self._start("dns", [
            tool("pebble-challtestsrv"), "-dns01", f"{LOOPBACK}:{self._dns_port}", "-management", manage,
            "-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", LOOPBACK, "-defaultIPv6", "",
        ])  # fmt: skip
        ports = (self._dns_port, self._dns_manage_port)
        child.wait_until(lambda: all(map(processes.answers, ports)), "answering")

    def set_address(self, name: str, address: str) -> None:
        """Let the CA's DNS server answer an IPv4 address for a name, instead of 127.0.0.1."""
        body = json.dumps({"host": f"{name}.", "addresses": [address]}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(f"http://{LOOPBACK}:{self._dns_manage_port}/add-a", body, timeout=10).close()

    @property
    def ocsp_url(self) -> str:
        """The responder's URL, as certificates name it."""
        return f"http://{LOOPBACK}:{self.ocsp_port}/"

    @property
    def acme_url(self) -> str:
        """The CA's directory, for certbot's --server."""
        return f"https://{LOOPBACK}:{self.acme_port}/dir"

    def _manage(self, path: str) -> bytes:
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self._acme_identity[2])))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), trust)
        with opener.open(f"https://{LOOPBACK}:{self._manage_port}/{path}", timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def issuers(self) -> tuple[Issuer, ...]:
        """Return the CA's issuing certificates and keys, in Pebble's order; the first one signs by default."""
        found: list[Issuer] = []
        while True:
            number = len(found)
            stem = self.folder / "pebble" / f"issuer{number}"
            issuer = Issuer(stem.with_suffix(".pem"), stem.with_suffix(".key"))
            try:
                issuer.certificate.write_bytes(self._manage(f"intermediates/{number}"))
                issuer.key.write_bytes(self._manage(f"intermediate-keys/{number}"))
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                return tuple(found)
            found.append(issuer)

    def revoke(self, name: str) -> Run:
        """Revoke a lineage at the CA. The responders of this world are told by `set_responder` and by their index."""
        return self.certbot("revoke", "--cert-name", name, "--no-delete-after-revoke")

    # The responders

    def start_responder(self, issuer: Issuer | None = None, **state: object) -> None:
        """Start tests/ocsp_server.py at ocsp_port, signing for `issuer` (the CA's first).

        state: what `set_responder` takes. The CA must run, since the responder signs with its key.
        """
        issuer = issuer or self.issuers()[0]
        self.set_responder(**state)
        port_file = self.folder / "ocsp" / "port"
        port_file.unlink(missing_ok=True)
        child = self._start("responder", [
            sys.executable, TESTS / "ocsp_server.py", "--port", str(self.ocsp_port), "--port-file", port_file,
            "--log", self.ocsp_log, "--state", self.folder / "ocsp" / "state.json",
            "--issuer", issuer.certificate, "--key", issuer.key,
        ])  # fmt: skip
        child.wait_until(lambda: port_file.exists() and processes.answers(self.ocsp_port), "answering")

    def set_responder(self, **state: object) -> None:
        """Tell tests/ocsp_server.py how to answer from now on: fault, validity_hours, this_update_offset_hours."""
        _write_whole(self.folder / "ocsp" / "state.json", json.dumps(state).encode())

    def stop_responder(self) -> None:
        """End the responder, of either kind; then requests to it are refused."""
        self._stop("responder")

    def start_openssl_responder(
        self, good: Iterable[x509.Certificate], revoked: Iterable[x509.Certificate] = (), days: int = 7
    ) -> None:
        """Start `openssl ocsp` at ocsp_port, signing with the CA's first issuer; unknown are all other certificates.

        days: how far nextUpdate is ahead. OpenSSL listens on all addresses; it knows no other way.
        """
        index, issuer = self.folder / "ocsp" / "index.txt", self.issuers()[0]
        lines = [*(_index_line(leaf, False) for leaf in good), *(_index_line(leaf, True) for leaf in revoked)]
        index.write_text("".join(lines))
        child = self._start("responder", [
            tool("openssl"), "ocsp", "-port", str(self.ocsp_port), "-index", index, "-CA", issuer.certificate,
            "-rsigner", issuer.certificate, "-rkey", issuer.key, "-ndays", str(days),
        ])  # fmt: skip
        # It serves one connection at a time, and one without a request would hold it up: read its log instead.
        child.wait_until(lambda: bool(re.search("ACCEPT|[Ww]aiting for OCSP client", child.text())), "waiting")

    # Seafile

    def start_seafile(
        self, seahub: backends.Answering = backends.seahub, file_server: backends.Answering = backends.file_server
    ) -> None:
        """Start what stands in for Seafile; sites that are adapted from then on are passed on to it."""
        self._seafile = [
            backends.Backend(self.seafile_address, port, answer)
            for port, answer in ((8000, seahub), (8082, file_server))
        ]

    def stop_seafile(self) -> None:
        """End what stands in for Seafile; then nginx answers with 502 in its place."""
        while self._seafile:
            self._seafile.pop().close()

    # nginx

    def write_site(self, name: str, site: bytes) -> Path:
        """Write a site into sites-enabled, as it is, and return its path."""
        path = self.sites / name
        path.write_bytes(site)
        return path

    def adapt(self, site: bytes, ports: Mapping[int, int] | None = None, stand_in_lineages: bool = False) -> bytes:
        """Make a real site run here: its ports and paths become this world's, every other byte stays.

        ports: further ones than 80 and 443. After start_seafile(), requests are passed on to what that started. Files
        that the site needs and that are missing are made: a self-signed certificate and its key, DH parameters, folders
        of logs and roots. Below /etc/letsencrypt that happens only with `stand_in_lineages`, since certbot refuses a
        lineage whose folder exists.
        """
        mapped = sites.adapt(site, self.folder, {80: self.http_port, 443: self.https_port} | dict(ports or {}))
        if self._seafile:
            mapped = re.sub(rb"//127\.0\.0\.1(?=:(?:8000|8082)\b)", b"//" + self.seafile_address.encode(), mapped)
        for directive, paths in sites.named_files(mapped).items():
            for path in paths:
                self._provide(directive, self.server_root / path, stand_in_lineages)
        return mapped

    def _provide(self, directive: str, path: Path, stand_in_lineages: bool) -> None:
        inside = path.is_relative_to(self.folder)
        lineage = path.is_relative_to(self.config_dir) and directive.startswith("ssl_")
        if path.exists() or not inside or (lineage and not stand_in_lineages):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if directive == "root":
            path.mkdir()
        elif directive == "ssl_dhparam":
            path.write_bytes(dh_parameters())
        elif directive.startswith("ssl_"):
            certificate, key = self_signed()
            path.write_bytes(key if directive == "ssl_certificate_key" else certificate)
            path.chmod(0o600 if directive == "ssl_certificate_key" else 0o644)

    def start_nginx(self) -> None:
        """Start nginx with the sites that are there, and wait until it has opened every port that they name."""
        pid_file = self.path("/run/nginx.pid")
        child = self._start("nginx", [
            tool("nginx"), "-e", self.path("/var/log/nginx/error.log"), "-p", self.server_root, "-c", self.nginx_conf,
            "-g", "daemon off;",
        ])  # fmt: skip
        # nginx writes the pid file after it has opened its ports, and before it accepts signals to reload.
        child.wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() == str(child.pid), "running")

    def stop_nginx(self) -> None:
        """End nginx."""
        self._stop("nginx")

    def nginx_calls(self) -> list[str]:
        """Return the arguments of each call of the nginx binary that was made through `nginx_ctl`, in order."""
        return self.nginx_calls_log.read_text().splitlines() if self.nginx_calls_log.exists() else []

    def reloads(self) -> int:
        """Return how often nginx was told to reload through `nginx_ctl`."""
        return sum("-s reload" in call for call in self.nginx_calls())

    def reload_nginx(self) -> None:
        """Reload nginx, and wait until a worker with the new configuration answers instead of the old ones."""
        before = self._workers()
        self.run(self.nginx_ctl, "-s", "reload")
        self._children["nginx"].wait_until(lambda: bool(self._workers()) and not (before & self._workers()), "reloaded")

    def _workers(self) -> set[int]:
        # A worker that only finishes its connections says so in its title.
        pid = self._children["nginx"].pid
        found = set()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            try:
                title = Path(f"/proc/{child}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):  # It ended meanwhile.
                continue
            if b"worker process" in title and b"shutting down" not in title:
                found.add(int(child))
        return found

    # certbot and the package

    @property
    def certbot_script(self) -> Path:
        """certbot beside this Python; where the distribution's is used from a virtual environment, a script like it."""
        beside = Path(sys.executable).parent / "certbot"
        if beside.exists():
            return beside
        script = self.folder / "bin" / "certbot"
        if not script.exists():
            script.write_text(_CERTBOT.format(python=sys.executable))
            script.chmod(0o755)
        return script

    def start_forks(self, clock: Path) -> None:
        """Start what runs `certbot` and `certbot-seafile` of bin/ as forks of one process; see `forks`.

        clock: the file that tells libfaketime how far ahead it is. Files' own times stay real: that saves half of a
        run, and nothing depends on them.
        """
        place = self.folder / "run" / "forks"
        # "MT": in the other one, threads that ask for the time at once may see the real one.
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        # By env, so that nothing but Python itself is preloaded: libfaketime leaves its memory behind at an exec.
        faked = [f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1", "NO_FAKE_STAT=1"]
        child = self._start("forks", [tool("env"), *faked, sys.executable, TESTS / "e2e" / "forks.py", place])
        child.wait_until(place.exists, "listening")
        for name in ("certbot", "certbot-seafile"):
            forks.write_program(self.folder / "bin" / name, place)

    @property
    def folders(self) -> list[str]:
        """The options that name certbot's three folders."""
        return ["--config-dir", str(self.config_dir), "--work-dir", str(self.work_dir),
                "--logs-dir", str(self.logs_dir)]  # fmt: skip

    def certbot(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run certbot against this world's CA, with its folders and ports, asking nothing. See `run` for errors."""
        return self.run(*self.certbot_command(*words), env=env, check=check)

    def certbot_command(self, *words: str | Path) -> list[str]:
        """Return the command line with which `certbot` runs it."""
        return [
            str(self.certbot_script), *map(str, words), *self.folders, "--server", self.acme_url, "--non-interactive",
            "--agree-tos", "--register-unsafely-without-email", "--no-random-sleep-on-renew",
            "--http-01-port", str(self.http_port), "--https-port", str(self.https_port),
        ]  # fmt: skip

    def seafile(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run the console script `certbot-seafile` with this world's folders. See `run` for errors."""
        return self.run(Path(sys.executable).parent / "certbot-seafile", *self.folders, *words, env=env, check=check)

    @property
    def plugin_options(self) -> list[str]:
        """The plugin's options that make it work in this world instead of in the system."""
        return ["--seafile-ctl", str(self.nginx_ctl), "--seafile-webroot", str(self.webroot),
                "--seafile-staple-dir", str(self.staple_dir)]  # fmt: skip

    def lineage(self, name: str) -> Path:
        """Return the live folder of a lineage."""
        return self.config_dir / "live" / name

    def leaf(self, name: str) -> x509.Certificate:
        """Return the certificate that a lineage has on disk now."""
        return x509.load_pem_x509_certificate((self.lineage(name) / "cert.pem").read_bytes())

    # Looks

    def handshake(self, name: str, port: int | None = None, *, only: Literal["rsa", "ecdsa"] | None = None) -> Look:
        """Make one TLS handshake with the site `name`, and return what came. See `looks.handshake`."""
        return looks.handshake(name, port or self.https_port, only)

    def curl_cert_status(self, name: str, port: int | None = None) -> Verdict:
        """Ask `curl --cert-status`, which trusts this world's CA alone."""
        return looks.curl_cert_status(name, port or self.https_port, self.root)

    def gnutls(self, name: str, port: int | None = None) -> Verdict:
        """Ask gnutls-cli, which trusts this world's CA alone."""
        return looks.gnutls(name, port or self.https_port, self.root)

    def fetch(self, name: str, path: str, port: int | None = None) -> Run:
        """Fetch http://NAME/PATH with curl, following no redirect; stdout holds headers and body."""
        port = port or self.http_port
        return self.run(tool("curl"), "--silent", "--show-error", "--include", "--noproxy", "*", "--max-time", "10",
                        "--connect-to", f"::{LOOPBACK}:{port}", f"http://{name}{path}")  # fmt: skip


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and bytes of everything below a folder, by relative path, to assert that nothing changed.

    A link counts with its target, a folder with no bytes.
    """
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content = b"-> " + os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


def _index_line(leaf: x509.Certificate, revoked: bool) -> str:
    """Return a line of `openssl ca`'s index: status, expiry, revocation, serial, file, subject; split by tabs."""
    expiry = f"{validity(leaf)[1]:%y%m%d%H%M%SZ}"
    serial = f"{leaf.serial_number:X}"
    serial = serial.zfill(len(serial) + len(serial) % 2)
    now = f"{datetime.datetime.now(datetime.UTC):%y%m%d%H%M%SZ}"
    return f"{'R' if revoked else 'V'}\t{expiry}\t{now if revoked else ''}\t{serial}\tunknown\t/CN=leaf\n"


@cache
def dh_parameters() -> bytes:
    """Return the group ffdhe2048 (RFC 7919) as PEM; a group of one's own takes openssl minutes."""
    command = [tool("openssl"), "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"]
    return subprocess.run(command, capture_output=True, check=True).stdout


@cache
def self_signed() -> tuple[bytes, bytes]:
    """Return a self-signed RSA certificate and its key as PEM, such as a person makes before there is a real one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "seafile.example.com")])
    certificate = _builder(name, name).public_key(key.public_key()).sign(key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM), _key_pem(key)


def _write_acme_identity(folder: Path) -> None:
    """Mint the certificate of Pebble's own HTTPS endpoint, and the authority that certbot trusts it by."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the ACME endpoint")])
    authority = (
        _builder(authority_name, authority_name)
        .public_key(authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")]
    certificate = (
        _builder(x509.Name([]), authority_name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    (folder / "acme-ca.pem").write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / "acme.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "acme.key").write_bytes(_key_pem(key))


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=800))  # for tests whose clock runs ahead
    )


def _key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
