"""A user who writes whatever it likes where it may, while root's commands run: root loses nothing by it."""

from __future__ import annotations

import base64
import datetime
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

import authority
from authority import DAY, HOUR, Identity, Key
from certbot_seafile.sealed.bundle import Bundle
from certbot_seafile.site.plan import CHALLENGE_PATH
from e2e import killing, road
from e2e.processes import DEADLINE_SECONDS, find_tool
from e2e.renewer import Renewer, facts
from e2e.road import NAME
from e2e.world import Run, World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which makes an ordinary user; sudo make test")

CA = authority.make_ca()
ISSUER = authority.make_ca("Test issuer", signed_by=CA)
SECRET = "what root alone may read"
MUST_STAPLE = [x509.TLSFeatureType.status_request]


# --- sets -------------------------------------------------------------------------------------------------------------


def now() -> datetime.datetime:
    """Return the time."""
    return datetime.datetime.now(datetime.UTC)


def staple(leaf: Identity, *, issuer: Identity = ISSUER, hours_ago: float = 1, **how: object) -> bytes:
    """Return a response for a leaf that holds for four days."""
    begin = now() - hours_ago * HOUR
    single = authority.single(authority.cert_id(leaf.certificate, ISSUER.certificate), begin, begin + 4 * DAY)
    return authority.respond(issuer, [single], begin, **how)  # type: ignore[arg-type]


def leaf_of(*names: str, key: Key | None = None, **leaf: object) -> Identity:
    """Make a server's certificate with an RSA key, because the tutorial's site can serve no other."""
    return authority.make_leaf(ISSUER, names or (NAME,), key=key or authority.rsa_key(), **leaf)  # type: ignore[arg-type]


def set_of(leaf: Identity, response: bytes | None = None, *, key: Key | None = None) -> Bundle:
    """Put a set together; by default with the leaf's own key and a good staple."""
    chain = leaf.certificate, ISSUER.certificate
    return Bundle(chain, key or leaf.key, response or staple(leaf))  # type: ignore[arg-type]


# --- the user and root ------------------------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Victim:
    """A machine on which the user has turned bad. secret: a good set in a file that root alone may read."""

    def __init__(self, renewer: Renewer) -> None:
        self.renewer, self.world = renewer, renewer.world
        self.path = renewer.handover / f"{NAME}.pem"
        self.token = renewer.challenges / "token"
        self.secret = self.world.path("/root/secret.pem")
        self.public = self.world.path("/root/public.pem")
        self.outputs: list[str] = []
        self.honest = set_of(leaf_of())

    def hand(self, content: bytes) -> None:
        """Write the handover file, as a user does who needs no certbot for it."""
        temporary = self.path.with_name(".new")
        temporary.write_bytes(content)
        shutil.chown(temporary, self.renewer.user)
        temporary.replace(self.path)

    def run(self, *words: str | Path) -> Run:
        """Run one of root's commands, which is to end by itself and without a traceback; keep what it prints."""
        run = self.renewer.seafile(*words, check=False)
        self.outputs.append(run.output)
        assert "Traceback" not in run.output
        assert "defect" not in run.output
        return run

    def apply(self) -> Run:
        """Run root's step."""
        self.renewer.forget_reload()
        return self.run("apply")

    def run_all(self) -> dict[str, Run]:
        """Run all that root may run on such a machine, but undo."""
        runs = {"apply": self.apply(), "status": self.run("status"), "json": self.run("status", "--json")}
        runs |= {"check": self.run("check"), "setup": self.renewer.setup(has_systemd=False, check=False)}
        self.outputs += [runs["setup"].output, self.renewer.certbot_of_root("certificates").output]
        return runs

    def fetch(self, name: str) -> str:
        """Return what nginx hands out in the challenge folder."""
        output = self.world.fetch(NAME, CHALLENGE_PATH + name).output
        self.outputs.append(output)
        return output

    def serve_honest(self) -> None:
        """See that an honest set is served, whatever was before."""
        self.honest = set_of(leaf_of())
        self.hand(self.honest.pem())
        run = self.apply()
        assert (run.exit_code, run.stderr) == (0, "")
        assert self.serves(self.honest)
        assert len(road.versions(self.world)) <= 2

    def serves(self, bundle: Bundle) -> bool:
        """Tell whether a TLS client is handed the set's certificate and staple."""
        look = self.world.handshake(NAME)
        return (look.certificate, look.staple) == (bundle.leaf, bundle.response)

    def restore(self) -> None:
        """Let the user's places be as setup made them."""
        home = self.renewer.home
        own = [home / name for name in ("handover", "config", "logs", "work", ".config")]
        for path in (*own, *self.renewer.challenges.iterdir(), self.public):
            remove(path)
        self.renewer.setup(has_systemd=False)

    def roots(self) -> dict[str, tuple[int, int, int, bytes]]:
        """Return all of the machine that is root's, but logs and what root's commands remember of each run."""
        world = self.world
        passing = [world.path("/var/log"), world.path("/run"), world.path("/servers"), world.nginx_calls_log]
        passing += [world.config_dir / "seafile" / "lineages", world.config_dir / "seafile" / ".lock"]
        passing += [world.path("/var/lib/nginx"), world.work_dir, self.renewer.home]
        return facts(world.folder, without=[*passing, *self.renewer.challenges.glob("*")])

    def logs(self) -> list[str]:
        """Return the logs of root's commands."""
        return [path.read_text() for path in self.world.logs_dir.glob("certbot-seafile.log*")]

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """See that what is done inside leaves root's files and what is served, and that the next honest set is served.

        No secret comes out, and nothing that is printed or logged steers a terminal.
        """
        before, served = self.roots(), self.world.handshake(NAME)
        self.outputs.clear()
        yield
        assert self.roots() == before
        assert self.world.handshake(NAME) == served
        self.world.run(self.world.nginx_ctl, "-t")
        printed = "".join([*self.outputs, *self.world.logs().values()])
        secrets = [SECRET, *self.secret.read_text().partition("PRIVATE KEY-----\n")[2].splitlines()[:5]]
        assert [secret for secret in secrets if secret in printed] == []
        assert re.findall(r"[^\n -~]", "".join([*self.outputs, *self.logs()])) == []
        self.serve_honest()


@contextmanager
def machine(world: World) -> Iterator[Victim]:
    """Give a machine on which setup has run, and nothing was handed over yet."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    with Renewer(world) as renewer:
        renewer.setup(has_systemd=False)
        yield Victim(renewer)


@pytest.fixture(scope="module")
def prepared(tools: None) -> Iterator[Victim]:
    """Give the tests of this module one machine, on which root has a secret."""
    with World() as world, machine(world) as made:
        made.secret.parent.mkdir(mode=0o700)
        made.secret.write_bytes(f"# {SECRET}\n".encode() + set_of(leaf_of(key=authority.rsa_key(1))).pem())
        made.secret.chmod(0o600)
        made.renewer.certbot_of_root("certificates")
        yield made


@pytest.fixture
def victim(prepared: Victim) -> Victim:
    """Give a machine that serves an honest set."""
    if not prepared.serves(prepared.honest):
        prepared.restore()
        prepared.serve_honest()
    return prepared


# --- sets that are no good --------------------------------------------------------------------------------------------


def encrypted(key: Key) -> bytes:
    """Return a key's PEM behind a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


def large_key() -> bytes:
    """Return the PEM of an RSA key of 8,676 bits (RFC 8017 A.1.2), made of two known primes: others take long."""
    p, q, e = 2**4423 - 1, 2**4253 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = (0, p * q, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return pem("RSA PRIVATE KEY", authority.sequence(*map(authority.integer, numbers)))


def pem(label: str, encoded: bytes) -> bytes:
    """Return a PEM block."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(encoded) + f"-----END {label}-----\n".encode()


def signed_with_sha1() -> Identity:
    """Return a leaf whose signature proves nothing any more."""
    leaf = leaf_of()
    version, serial, _, *rest = authority.elements(leaf.certificate.tbs_certificate_bytes)
    algorithm, _ = authority.sign_with_sha1(ISSUER.key, b"")
    signed = authority.sequence(version, serial, algorithm, *rest)
    signature = authority.tlv(0x03, b"\0" + authority.sign_with_sha1(ISSUER.key, signed)[1])
    encoded = authority.sequence(signed, algorithm, signature)
    return Identity(x509.load_der_x509_certificate(encoded), leaf.key)


def must_staple(response: Callable[[Identity], bytes | None]) -> bytes:
    """Return a set that must be stapled, with this staple."""
    leaf = leaf_of(features=MUST_STAPLE)
    return replace(set_of(leaf), response=response(leaf)).pem()


CHAIN = ISSUER.certificate_pem
STRANGER = authority.make_ca("Test issuer")
CURSES = "\x1b]0;owned\x07\x1b[2J\r\x08"

#: What a set is, and what root's step says of it.
SETS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "it holds 0 certificates"),
    "terminal escapes": (lambda: CURSES.encode() * 1000, "it holds 0 certificates"),
    "text of nginx's": (lambda: b"ssl_engine evil;\nload_module evil.so;\n", "it holds 0 certificates"),
    "a block without an end": (lambda: set_of(leaf_of()).pem()[:-40], "a PEM block in it has no end"),
    "blocks of no DER": (lambda: pem("CERTIFICATE", b"\x30\x80" * 99) + leaf_of().key_pem, "cannot be read"),
    "the key of another": (lambda: set_of(leaf_of(), key=authority.rsa_key(2)).pem(), "does not belong to"),
    "two keys": (lambda: set_of(leaf_of()).pem() + leaf_of().key_pem, "it holds 2 private keys"),
    "RSA-1024": (lambda: set_of(leaf_of(key=rsa.generate_private_key(65537, 1024))).pem(), "RSA with 1024 bits"),
    "RSA of 8,676 bits": (lambda: leaf_of().certificate_pem + CHAIN + large_key(), "larger than 4096 bytes"),
    "secp256k1": (lambda: set_of(leaf_of(key=ec.generate_private_key(ec.SECP256K1()))).pem(), "curve secp256k1"),
    "Ed25519": (lambda: set_of(leaf_of(key=authority.KEYS["Ed25519"]())).pem(), "neither RSA nor ECDSA"),
    "an encrypted key": (lambda: leaf_of().certificate_pem + CHAIN + encrypted(authority.rsa_key()), "is encrypted"),
    "for other names": (lambda: set_of(leaf_of("evil.example.com")).pem(), f"is not for {NAME}"),
    "for names with escapes": (lambda: set_of(leaf_of(f"{CURSES}.example.com")).pem(), f"is not for {NAME}"),
    "expired": (lambda: set_of(leaf_of(now=now() - 100 * DAY)).pem(), "the certificate expired on"),
    "not yet valid": (lambda: set_of(leaf_of(now=now() + 40 * DAY)).pem(), "the certificate holds only from"),
    "signed with SHA-1": (lambda: set_of(signed_with_sha1()).pem(), "is signed with SHA-1"),
    "a chain of 3,000": (lambda: set_of(leaf_of()).pem() + CHAIN * 3000, "it is larger than 65536 bytes"),
    "a chain of 11": (lambda: set_of(leaf_of()).pem() + CHAIN * 9, "it holds 11 certificates"),
    "a stranger's chain": (
        lambda: leaf_of().certificate_pem + STRANGER.certificate_pem + leaf_of().key_pem,
        "is not signed by the next one",
    ),
    "older than what is served": (lambda: set_of(leaf_of(now=now() - DAY)).pem(), "it is older than"),
    "without a staple that it must have": (lambda: must_staple(lambda leaf: None), "handed over without a good staple"),
    "with the staple of another": (lambda: must_staple(lambda leaf: staple(leaf_of())), "without a good staple"),
    "with a forged staple": (
        lambda: must_staple(lambda leaf: staple(leaf, issuer=STRANGER)),
        "without a good staple",
    ),
    "with a damaged staple": (
        lambda: must_staple(lambda leaf: staple(leaf, damage=authority.flip)),
        "without a good staple",
    ),
    "with an expired staple": (lambda: must_staple(lambda leaf: staple(leaf, hours_ago=97)), "without a good staple"),
    "that the site cannot serve": (
        lambda: set_of(leaf_of(key=authority.ecdsa_key())).pem(),
        "",
    ),
}


@pytest.mark.parametrize("case", SETS)
def test_a_set_that_is_no_good_is_not_served(victim: Victim, case: str) -> None:
    """Root's step exits 1 with the reason in one line, and what is served stays."""
    make, reason = SETS[case]
    with victim.unharmed():
        victim.hand(make())
        run = victim.apply()
        assert run.exit_code == 1
        assert run.stderr.startswith(f"certbot-seafile: {NAME}")
        assert reason in run.stderr
        assert len(run.stderr.splitlines()) == 1


def test_check_says_why_nothing_new_is_served(victim: Victim) -> None:
    """HANDOVER-REFUSED: The reason is remembered until a good set comes."""
    with victim.unharmed():
        victim.hand(SETS["expired"][0]())
        victim.apply()
        assert SETS["expired"][1] in victim.run("check").stdout
    assert "expired" not in victim.run("check").stdout


@pytest.mark.parametrize(
    "response",
    [
        lambda leaf: staple(leaf_of()),
        lambda leaf: staple(leaf, issuer=STRANGER),
        lambda leaf: staple(leaf, damage=authority.flip),
        lambda leaf: staple(leaf, hours_ago=97),
        lambda leaf: staple(leaf, hours_ago=2),
        lambda leaf: CURSES.encode(),
    ],
    ids=["another's", "forged", "damaged", "expired", "older", "no response"],
)
def test_a_staple_that_is_no_good_takes_no_place(victim: Victim, response: Callable[[Identity], bytes]) -> None:
    """With the certificate that is served, the staple that is served stays."""
    with victim.unharmed():
        leaf = Identity(victim.honest.leaf, victim.honest.key)
        victim.hand(replace(victim.honest, response=response(leaf)).pem())
        assert victim.apply().exit_code == 0


def test_what_a_good_set_says_reaches_no_terminal(victim: Victim) -> None:
    """Escapes in subject, further names, URL and around the blocks are served to clients, and not printed raw."""
    subject = authority.make_ca(f"CA {CURSES}\x9b31m\u202e", signed_by=CA)
    leaf = authority.make_leaf(
        subject, (NAME, f"{CURSES}.example.com"), key=authority.rsa_key(), ocsp_urls=[f"http://{CURSES}/"]
    )
    content = leaf.certificate_pem + CURSES.encode() + subject.certificate_pem + leaf.key_pem + CURSES.encode()
    victim.hand(content)
    assert victim.apply().exit_code == 0
    assert victim.world.handshake(NAME).certificate == leaf.certificate
    with victim.unharmed():
        victim.run_all()
        victim.run("-v", "apply")


# --- things in the place of files -------------------------------------------------------------------------------------

Plant = Callable[[Victim, Path], None]


def _device(victim: Victim, place: Path) -> None:
    os.mknod(place, 0o20666, os.makedev(1, 5))  # /dev/zero, of whoever could make it


def _folder(victim: Victim, place: Path) -> None:
    place.mkdir()
    (place / "privkey.pem").mkdir()


def _sparse(victim: Victim, place: Path) -> None:
    with place.open("wb") as stream:
        stream.truncate(8 << 30)


def _huge(victim: Victim, place: Path) -> None:
    place.write_bytes(set_of(leaf_of()).pem() + b"\n" * (64 << 20))


def _open_by_nobody(victim: Victim, place: Path) -> None:
    place.write_bytes(set_of(leaf_of()).pem())
    place.chmod(0)


def _roots_public_file(victim: Victim, place: Path) -> None:
    victim.public.write_bytes(set_of(leaf_of()).pem())
    os.link(victim.public, place)


def _socket(victim: Victim, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(place.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{folder}/{place.name}")  # a path that is not too long
        os.close(folder)


PLANTS: dict[str, Plant] = {
    "FIFO": lambda victim, place: os.mkfifo(place),
    "device": _device,
    "socket": _socket,
    "folder": _folder,
    "sparse file": _sparse,
    "huge file": _huge,
    "file for nobody": _open_by_nobody,
    "link to a secret": lambda victim, place: place.symlink_to(victim.secret),
    "link to a device": lambda victim, place: place.symlink_to("/dev/zero"),
    "link to itself": lambda victim, place: place.symlink_to(place),
    "hard link to a secret": lambda victim, place: os.link(victim.secret, place),
    "hard link to a public file": _roots_public_file,
}


@pytest.mark.long
@pytest.mark.parametrize("kind", PLANTS)
def test_things_in_the_place_of_files_stop_and_lead_nobody(victim: Victim, kind: str) -> None:
    """In the place of the handover file, the user's cli.ini, its certbot's folder and a validation file."""
    home, plant = victim.renewer.home, PLANTS[kind]
    places = [victim.path, home / ".config" / "letsencrypt" / "cli.ini", home / "config", victim.token]
    with victim.unharmed():
        for place in places:
            remove(place)
            plant(victim, place)
            if not place.is_symlink() and "hard" not in kind:
                shutil.chown(place, victim.renewer.user)
        runs = victim.run_all()
        assert runs["apply"].exit_code == 1
        assert f"{victim.path} is not read: " in runs["apply"].stderr
        assert "is not read: " in runs["check"].stdout
        assert (runs["setup"].exit_code, runs["setup"].stdout) == (1, "")
        if "file" not in kind and "hard" not in kind:
            assert " 200 OK" not in victim.fetch("token")
        victim.restore()


FOLDERS: dict[str, Plant] = {
    "nothing": lambda victim, place: None,
    "FIFO": lambda victim, place: os.mkfifo(place),
    "folder for nobody": lambda victim, place: place.mkdir(0),
    "link to a folder of root's": lambda victim, place: place.symlink_to(victim.world.path("/root")),
    "link to nginx's folder": lambda victim, place: place.symlink_to(victim.world.server_root),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", FOLDERS)
def test_things_in_the_place_of_folders_stop_and_lead_nobody(victim: Victim, kind: str) -> None:
    """In the place of all that the user has in its home; below the link lies a set that would be served."""
    shutil.copy(victim.secret, victim.secret.with_name(victim.path.name))
    victim.secret.with_name(victim.path.name).chmod(0o600)
    home = victim.renewer.home
    with victim.unharmed():
        for place in (victim.renewer.handover, home / ".config", home / "config", home / "logs", home / "work"):
            remove(place)
            FOLDERS[kind](victim, place)
            if place.exists() and not place.is_symlink():
                shutil.chown(place, victim.renewer.user)
        runs = victim.run_all()
        assert runs["apply"].exit_code == (0 if kind in ("nothing", "link to nginx's folder") else 1)
        victim.restore()


_SWAP = """\
import contextlib, os, sys
places, target, content = sys.argv[1:-2], sys.argv[-2], open(sys.argv[-1], "rb").read()
while True:
    for place in places:
        with contextlib.suppress(OSError):
            with open(place + ".new", "wb") as stream:
                stream.write(content)
            os.replace(place + ".new", place)
            os.symlink(target, place + ".new")
            os.replace(place + ".new", place)
            os.unlink(place)
"""


@pytest.mark.long
def test_links_that_come_and_go_while_root_looks_lead_nobody(victim: Victim) -> None:
    """A file, a link to a secret and nothing take turns as fast as the user can; nginx is asked meanwhile."""
    home = victim.renewer.home
    (home / "content").write_bytes(victim.honest.pem())
    shutil.chown(home / "content", victim.renewer.user)
    with victim.unharmed():
        python = str(Path(sys.executable).resolve())
        places = [victim.path, home / ".config" / "letsencrypt" / "cli.ini", victim.token]
        swapping = subprocess.Popen(
            [*victim.renewer.become_user, python, "-c", _SWAP, *places, victim.secret, home / "content"]
        )
        try:
            for _ in range(8):
                victim.run_all()
                for _ in range(20):
                    victim.fetch("token")
            assert swapping.poll() is None
        finally:
            swapping.kill()
            swapping.wait()
        victim.restore()


def test_undo_in_a_home_full_of_links_follows_none(victim: Victim) -> None:
    """Undo as root removes what is root's; in the home it acts as the user, and follows nothing."""
    world, home = victim.world, victim.renewer.home
    before = {path: fact for path, fact in victim.roots().items() if path.startswith(str(victim.secret.parent))}
    for place in (victim.renewer.handover, home / "config", home / "logs", home / "work", home / ".config"):
        remove(place)
        place.symlink_to(victim.secret.parent)
    victim.token.symlink_to(victim.secret)
    run = victim.run("undo")
    assert run.exit_code == 0
    assert SECRET not in run.output
    assert {path: fact for path, fact in victim.roots().items() if path in before} == before
    assert road.site_bytes(world) == world.adapt(road.TUTORIAL_SITE)
    victim.renewer.setup(has_systemd=False)
    victim.serve_honest()


# --- what the user may not do at all ----------------------------------------------------------------------------------


def test_nginx_reads_nothing_that_the_user_can_write(victim: Victim) -> None:
    """Each path in its configuration, each folder above it, and root's own files belong to root alone."""
    world, configuration = victim.world, victim.world.run(victim.world.nginx_ctl, "-T").output
    words = re.findall(r"^\s*(?:ssl_\w+|include)\s+([^\s;]+);", configuration, re.MULTILINE)
    words += re.findall(r"^# configuration file (\S+):$", configuration, re.MULTILINE)
    paths = [path for word in words for path in world.server_root.glob(os.path.relpath(word, world.server_root))]
    assert world.staple_dir / f"{NAME}.conf" in paths
    assert len([path for path in paths if path.name in ("fullchain.pem", "privkey.pem", "ocsp.response")]) == 3
    own = [victim.renewer.settings, *(world.config_dir / "seafile").rglob("*"), victim.renewer.challenges.parent]
    assert victim.renewer.writable(*paths, *own) == []


def test_the_user_can_write_nothing_of_roots(victim: Victim) -> None:
    """Snippet, version, site, settings, record, challenge folder: none can be written, replaced, removed or linked."""
    world, renewer = victim.world, victim.renewer
    version = world.staple_dir / NAME / road.versions(world)[-1]
    targets = [world.staple_dir / f"{NAME}.conf", version / "privkey.pem", version, world.sites / road.SITE_NAME,
               world.nginx_conf, renewer.settings, world.config_dir / "seafile", victim.secret]  # fmt: skip
    attempts = ['echo x > "$1"', 'chmod 777 "$1"', 'touch "$(dirname "$1")/planted"', 'ln "$1" "$2/hard"',
                'ln "$1" "$3/hard"', 'ln -sfn /etc/passwd "$1"', 'mv "$1" "$1.gone"', 'rm -rf "$1"']  # fmt: skip
    with victim.unharmed():
        for attempt, target in itertools.product(attempts, targets):
            renewer.as_user("sh", "-c", attempt, "sh", target, renewer.home, renewer.challenges, check=False)
        for attempt in ('rmdir "$1"', 'mv "$1" "$1.gone"', 'rm -rf "$1" && ln -s /etc "$1"'):
            renewer.as_user("sh", "-c", attempt, "sh", renewer.challenges, check=False)
        assert [*renewer.home.glob("hard"), *renewer.challenges.iterdir()] == []


def test_nginx_hands_out_no_file_but_the_users_own(victim: Victim) -> None:
    """A link in the challenge folder, to a file or a folder of root's, is not followed."""
    with victim.unharmed():
        victim.token.write_text("the user's own")
        (victim.renewer.challenges / "link").symlink_to(victim.secret)
        (victim.renewer.challenges / "folder").symlink_to(victim.secret.parent)
        assert victim.fetch("token").endswith("the user's own")
        for name in ("link", "folder/secret.pem", "folder/"):
            assert re.match(r"HTTP/1.1 (403|404)", victim.fetch(name))
        victim.restore()


# --- haste ------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_thousand_sets_in_a_minute_are_one_reload(world: World) -> None:
    """Root's step waits its turn, and then serves the newest; nothing of the others is left."""
    with machine(world) as victim:
        victim.serve_honest()
        victim.renewer.setup()
        hand_a_thousand(victim)
        victim.serve_honest()


def hand_a_thousand(victim: Victim) -> None:
    """Hand over more sets than root's step can serve, and see what it does."""
    world, renewer = victim.world, victim.renewer
    reloads, begin = world.reloads(), time.monotonic()
    leaves = [leaf_of() for _ in range(50)]
    sets = [set_of(leaf).pem() for leaf in leaves]
    for number in range(1000):
        victim.hand(sets[number % len(sets)])
        time.sleep(0.02)
    deadline = time.monotonic() + 60 + DEADLINE_SECONDS
    while world.handshake(NAME).certificate != leaves[-1].certificate and time.monotonic() < deadline:
        time.sleep(0.2)
    renewer.stop_path_unit()
    assert world.handshake(NAME).certificate == leaves[-1].certificate
    assert world.reloads() - reloads <= 1 + (time.monotonic() - begin) // 60
    assert len(road.versions(world)) == 2
    assert [path for path in world.staple_dir.rglob(".*") if path.name != ".gitignore"] == []


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.skipif(find_tool("strace") is None, reason="strace kills at a system call of one's choice")
@pytest.mark.parametrize("has_served", [False, True], ids=["first", "renewed"])
def test_root_step_killed_at_every_change(world: World, has_served: bool) -> None:
    """nginx starts from what each kill left and staples; the next step ends as one that was not killed."""
    with machine(world) as victim:
        if has_served:
            victim.hand(set_of(leaf_of(features=MUST_STAPLE)).pem())
            assert victim.apply().exit_code == 0
            victim.renewer.forget_reload()
        old, new = world.handshake(NAME).certificate, set_of(leaf_of(features=MUST_STAPLE))
        victim.hand(new.pem())
        kept, count = killing.Kept(world), 0
        for point in killing.kills(world, kept.restore, victim.renewer.command("apply")):
            count += 1
            world.stop_nginx()
            world.start_nginx()
            look = world.handshake(NAME)
            assert look.certificate in (old, new.leaf), point
            assert look.staple or (look.certificate == old and not has_served), point
            assert victim.apply().exit_code == 0, point
            look = world.handshake(NAME)
            assert (look.certificate, look.staple) == (new.leaf, new.response), point
            assert len(road.versions(world)) == 1 + has_served, point
            assert list(world.server_root.rglob(".*.certbot-seafile")) == [], point
        assert count >= 8


@pytest.mark.long
@pytest.mark.skipif(find_tool("strace") is None, reason="strace kills at a system call of one's choice")
def test_a_killed_step_with_a_set_that_is_no_good_blocks_no_other(world: World) -> None:
    """Killed with a set that TLS clients refuse, root's step serves the next honest one."""
    with machine(world) as victim:
        bad, honest = set_of(leaf_of(key=authority.ecdsa_key())).pem(), set_of(leaf_of())
        victim.hand(bad)
        kept, command = killing.Kept(world), victim.renewer.command("apply")
        for point in [point for point in killing.trace(world, command) if point.call == "rename"]:
            kept.restore()
            victim.hand(bad)
            killing.kill_at(world, command, point)
            world.stop_nginx()
            world.start_nginx()
            victim.hand(honest.pem())
            assert victim.apply().exit_code == 0, point
            assert victim.serves(honest), point
