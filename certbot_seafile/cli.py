"""The console script's door: words in, one command, an exit code out.

The law: exit code 0 is done, 1 is failed (one line on stderr says what and what to do), 2 is wrong usage; nothing
that a person can cause ends in a traceback. What commands use is imported when one is run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from certbot_seafile import __version__, errors
from certbot_seafile.system import progress

logger = logging.getLogger(__name__)

_FAILED = 1

#: What each command does; the first sentence stands in the list of commands.
_COMMANDS = {
    "deploy": (
        "Let the site use a certificate. This is the deploy hook that certbot runs: it fetches the OCSP staple where "
        "the certificate names a responder, edits the site, tests the configuration, reloads nginx, and looks at what "
        "is served. The certificate is the one that RENEWED_LINEAGE or --cert-name names. Where a step fails, the "
        "site is put back as it was."
    ),
    "refresh": ("Refresh the OCSP staples that are due. nginx is reloaded only when something new came."),
    "status": (
        "Print a table of the certificates. It has expiry, renewal, the last `certbot renew`, the staple, and what "
        "nginx really serves."
    ),
    "check": (
        "Say what is wrong and what to do. Each sentence has an id, under which docs/troubleshooting.md tells more. "
        "Nothing is changed. The exit code is 1 if anything hurts people now or will with time."
    ),
    "undo": (
        "Take the plugin's edits and files out again. The site is byte for byte what it was, unless somebody else "
        "changed the same lines. Certificates stay, and so does their renewal, because they are certbot's; renewals "
        "leave the site alone until `deploy`. Keys that were copied for nginx are removed, and what `setup` did is "
        "taken back. Run this before the package is removed."
    ),
    "setup": (
        "Let an ordinary user or another machine renew. Run it as root, once for each certificate. With --user, the "
        "user gets folders of its own, the site is made to answer challenges, and systemd's units are written, or the "
        "lines for cron printed. With --source, the certificate comes from the folder that the machine that renews "
        "writes. What is handed over is served when it is for every name after -d. A second run repairs what has "
        "changed."
    ),
    "apply": (
        "Serve what that user or machine has handed over. This is root's step: it judges certificate, key and staple, "
        "writes them again, tests the configuration, reloads nginx, and looks at what is served. It takes nothing "
        "from the user or the environment."
    ),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever started this has closed it
            setattr(sys, name, io.StringIO())
    try:
        code = _run(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except errors.CertbotError as error:
        logger.debug("failed", exc_info=True)
        print(f"certbot-seafile: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("certbot-seafile: interrupted; the next run goes on from here", file=sys.stderr)
    except OSError as error:
        what = error.filename or "the output"  # of stdout, an error names no file
        if error.filename is None:
            progress.give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            print(f"certbot-seafile: {what}: {error.strerror}; see whether this user may use it", file=sys.stderr)
    return _FAILED


def _run(words: Sequence[str]) -> int:
    parser = _parser()
    if any("\0" in word for word in words):
        parser.error("an argument holds a NUL byte")
    arguments = parser.parse_args(words)
    arguments.refuse_usage = parser.error
    arguments.cert_names = list(dict.fromkeys(getattr(arguments, "cert_names", ())))
    for key in ("config_dir", "work_dir", "logs_dir"):
        setattr(arguments, key, os.path.abspath(getattr(arguments, key)))
    from certbot_seafile import commands

    commands.read_settings(arguments)
    _set_up_logging(arguments)
    if not arguments.quiet and not arguments.verbose:
        progress.show_on(sys.stderr)
    return commands.COMMANDS[arguments.command](arguments)


def _usual_folders() -> dict[str, str]:
    """Return certbot's own folders; for an ordinary user those of the user's cli.ini, as `setup --user` writes it."""
    usual = {"config": "/etc/letsencrypt", "work": "/var/lib/letsencrypt", "logs": "/var/log/letsencrypt"}
    config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if os.geteuid() != 0:
        with contextlib.suppress(OSError), open(f"{config_home}/letsencrypt/cli.ini", encoding="utf-8") as stream:
            lines = (line.partition("=") for line in stream)
            written = {key.strip().removesuffix("-dir"): value.strip() for key, _, value in lines}
            usual |= {name: written[name] for name in usual if written.get(name)}
    return usual


def _parser() -> argparse.ArgumentParser:
    description = "What certbot's seafile plugin does around renewals, and how things stand."
    parser = argparse.ArgumentParser(prog="certbot-seafile", description=description)
    parser.add_argument("--version", action="version", version=f"certbot-seafile {__version__}")
    usual = _usual_folders()
    parser.add_argument("--config-dir", default=usual["config"], metavar="D", help="certbot's configuration folder")
    parser.add_argument("--work-dir", default=usual["work"], metavar="D", help="certbot's work folder")
    parser.add_argument("--logs-dir", default=usual["logs"], metavar="D", help="certbot's log folder")
    for option, field in (("--http-01-port", "http_port"), ("--https-port", "https_port")):
        parser.add_argument(option, dest=field, type=int, metavar="PORT", help="as certbot's option of that name")
    parser.add_argument("--no-redirect", action="store_true", help="as certbot's option of that name")
    _add_seafile(parser, "ctl", "PATH", "nginx binary")
    _add_seafile(parser, "staple_dir", "DIR", "folder of staples")
    parser.add_argument("--settings", default="/etc/certbot-seafile.json", metavar="FILE", help="what `setup` wrote")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="say nothing but failures")
    volume.add_argument("-v", "--verbose", action="store_true", help="say each step, with the site's diff")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument(
        "--cert-name", dest="cert_names", action="append", default=[], type=_cert_name, metavar="NAME",
        help="this certificate only; may be given several times",
    )  # fmt: skip

    parsers = {}
    for name, description in _COMMANDS.items():
        summary = description.partition(".")[0]
        parents = [] if name == "apply" else [named]
        about = summary[0].lower() + summary[1:]
        parsers[name] = commands.add_parser(name, parents=parents, help=about, description=description)
    parsers["refresh"].add_argument("--force", action="store_true", help="refresh them all, due or not")
    form = parsers["status"].add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the same as JSON, for monitoring")
    form.add_argument("--prometheus", metavar="FILE", help="as a textfile for node_exporter; - for stdout")
    form = parsers["check"].add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the same as JSON, for monitoring")
    form.add_argument("--nagios", action="store_true", help="one line with perfdata, and exit codes 0 to 3")
    root_help = "where timers and crontabs are, as in a container"
    parsers["check"].add_argument("--root", default="/", metavar="DIR", help=root_help)
    _add_setup(parsers["setup"])
    return parser


def _cert_name(word: str) -> str:
    if not word:
        raise argparse.ArgumentTypeError("a certificate's name must not be empty")
    return word


def _add_setup(setup: argparse.ArgumentParser) -> None:
    has_systemd = os.path.isdir("/run/systemd/system")
    who = setup.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="USER", help="who is to run certbot here; made where missing")
    who.add_argument("--source", metavar="DIR", help="the handover folder of the machine that renews")
    setup.add_argument(
        "-d", "--domain", action="append", required=True, metavar="NAME", help="a name of the certificate"
    )
    setup.add_argument(
        "--forward-challenges", dest="forward", metavar="URL", help="the machine that renews, as http://ADDRESS"
    )
    setup.add_argument("--home", default="/var/lib/certbot", metavar="DIR", help="the user's folder")
    setup.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    setup.add_argument(
        "--systemd-dir", default="/etc/systemd/system" if has_systemd else None, metavar="DIR",
        help="where systemd's units go (default: its own folder, where systemd runs; empty: nowhere)",
    )  # fmt: skip
    _add_seafile(setup, "server_root", "DIR", "folder of nginx.conf")
    _add_seafile(setup, "reload_cmd", "CMD", "how root's step reloads nginx")
    _add_seafile(setup, "webroot", "DIR", "where challenges are written")


def _add_seafile(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    option = f"--seafile-{name.replace('_', '-')}"
    parser.add_argument(option, dest=name, metavar=metavar, help=f"{text}, where no certificate names one")


def _make_room(record: object) -> bool:
    """Take the line of a wait off the terminal before a record is printed there."""
    progress.erase()
    return True


def _set_up_logging(arguments: argparse.Namespace) -> None:
    import logging.handlers

    root = logging.getLogger("certbot_seafile")
    root.setLevel(logging.DEBUG)
    logging.raiseExceptions = False  # a full disk is no reason for a traceback
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if arguments.verbose else logging.WARNING)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(_make_room)
    root.addHandler(console)
    with contextlib.suppress(OSError):  # a log that cannot be written stops nothing
        path = os.path.join(arguments.logs_dir, "certbot-seafile.log")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        log = logging.handlers.RotatingFileHandler(path, maxBytes=1_000_000, backupCount=5, encoding="utf-8")
        log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(log)
