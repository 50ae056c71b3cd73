"""certbot's door: one class that is authenticator, installer, renewal deployer and updater.

The law: here certbot's words are turned into ours and back, and nothing is decided. It is loaded at every certbot
command, so everything that is not certbot's own is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from acme import challenges
from certbot import errors as certbot_errors
from certbot import interfaces
from certbot import util as certbot_util
from certbot.display import util as display_util
from certbot.plugins import common

if TYPE_CHECKING:
    from certbot_seafile.system import challenge
    from certbot_seafile.system.context import Context
    from certbot_seafile.system.lineages import Lineage, Options

logger = logging.getLogger(__name__)

_FOLDERS = {
    "config_dir": "/etc/letsencrypt",
    "work_dir": "/var/lib/letsencrypt",
    "logs_dir": "/var/log/letsencrypt",
}


class Plugin(common.Installer, interfaces.Authenticator, interfaces.RenewDeployer, interfaces.GenericUpdater):
    """Get and serve certificates for Seafile behind nginx."""

    description = "Seafile behind nginx: gets the certificate, edits the site, keeps its OCSP staple fresh"

    def __init__(self, config: Any, name: str) -> None:
        super().__init__(config, name)
        self._challenges: challenge.Challenges | None = None
        self._deployed: set[str] = set()

    @classmethod
    def add_parser_arguments(cls, add: Callable[..., None]) -> None:
        """Declare the options, certbot's way."""
        add("site", default=None, metavar="FILE", help="nginx file that holds the Seafile site (default: found)")
        add("server-root", default=None, metavar="DIR", help="folder of nginx.conf (default: nginx's own)")
        add("ctl", default="nginx", metavar="PATH", help="nginx binary")
        add("reload-cmd", default=None, metavar="CMD", help="how to reload nginx (default: nginx -s reload)")
        add("webroot", default="/var/www/letsencrypt", metavar="DIR", help="where challenges are written")
        add("staple-dir", default="/etc/nginx/OCSP", metavar="DIR", help="where OCSP staples are stored")
        add("stapling", default="auto", choices=["auto", "off"], help="off removes stapling again")
        add("ocsp-url", default=None, metavar="URL", help="OCSP responder (default: the certificate's)")

    # --- certbot.interfaces.Plugin

    def prepare(self) -> None:
        """See that nginx and the site are as they must be, before the CA is asked for anything."""
        _refuse_root_where_handed_over(self.config)
        context = self._context()
        logger.debug("nginx is %s", context.nginx.facts.splitlines()[:1])
        if self.config.verb not in ("certonly", "run", "renew"):
            return
        names = self._requested_names()
        _refuse_wildcards(names)
        if context.renewer is not None and getattr(self.config, "must_staple", False):
            raise certbot_errors.PluginError(
                "--must-staple: the site of such a certificate is edited at renewals, which "
                f"{context.renewer} may not do; leave that out"
            )
        context.nginx.test()
        if names:
            self._suit_key_to_site(context, names)
        if not self.config.dry_run:
            self._add_hook()
            self._move_over(names)
        if self.config.verb == "renew" and not self.config.dry_run:
            self._refresh_before_renewal(names)
        if not self.config.dry_run:
            self._hold_certificates(names)

    def more_info(self) -> str:
        """Say what the plugin does."""
        return (
            "Writes HTTP-01 challenges for a Seafile site served by nginx, lets the site use the certificate, and "
            "keeps a verified OCSP staple beside it."
        )

    def auth_hint(self, failed_achalls: Iterable[Any]) -> str:
        """Say what to look at when the CA could not fetch what nginx served here."""
        names = ", ".join(sorted({_identifier(achall) for achall in failed_achalls}))
        return (
            f"nginx answered the challenge for {names} when asked from this machine, but the CA could not fetch it. "
            f"Check that the DNS records (A and AAAA) of {names} lead to this machine, and that port "
            f"{self.config.http01_port} is open and forwarded to it from the internet."
        )

    # --- certbot.interfaces.Authenticator

    def get_chall_pref(self, identifier: str) -> Iterable[type[challenges.Challenge]]:
        """Return HTTP-01, the one challenge that a web server's files can answer."""
        return [challenges.HTTP01]

    def perform(self, achalls: list[Any]) -> list[Any]:
        """Write the validation files, see that nginx hands them out, and answer.

        Raises errors.ChallengeUnreachable and others; then nothing is left behind.
        """
        from certbot_seafile.system import challenge

        if not self.config.installer and not self.config.dry_run:
            self.config.installer = self.name
        _refuse_wildcards(map(_identifier, achalls))
        responses, expected = [], {}
        for achall in achalls:
            response, validation = achall.response_and_validation()
            responses.append(response)
            expected[_identifier(achall), achall.chall.encode("token")] = validation.encode()
        self._challenges = challenge.Challenges(self._context())
        self._challenges.answer(expected)
        return responses

    def cleanup(self, achalls: Iterable[Any]) -> None:
        """Remove the validation files, and the wiring that was put in for them."""
        if self._challenges is not None:
            self._challenges.clear()

    # --- certbot.interfaces.Installer

    def get_all_names(self) -> set[str]:
        """Return the names of every server block that nginx loads."""
        from certbot_seafile.site import model

        every = model.http_servers(self._context().nginx.statements())
        names = {name for server in every for name in server.names}
        return {name.lstrip(".") for name in names if "." in name and not set("~*") & set(name)}

    def deploy_cert(self, domain: str, cert_path: str, key_path: str, chain_path: str, fullchain_path: str) -> None:
        """Let the site use the lineage that fullchain_path belongs to."""
        from certbot_seafile.usecases import deploy

        lineage = self._lineage_at(fullchain_path)
        if lineage.name not in self._deployed:
            deploy.deploy(self._context(), lineage)
            self._deployed.add(lineage.name)

    def enhance(self, domain: str, enhancement: str, options: Any = None) -> None:
        """Add a redirect, Strict-Transport-Security, or (already part of every deployment) the staple."""
        from certbot_seafile.usecases import enhance

        if enhancement not in self.supported_enhancements():
            raise certbot_errors.NotSupportedError(f"{self.name} has no enhancement {enhancement}")
        enhance.enhance(self._context(), domain, enhancement, options)

    def supported_enhancements(self) -> list[str]:
        """Return the enhancements of `certbot enhance` that this plugin has."""
        return ["redirect", "ensure-http-header", "staple-ocsp"]

    def save(self, title: str | None = None, temporary: bool = False) -> None:
        """Do nothing: every edit is on disk, tested, and in a checkpoint of its own already."""

    def recovery_routine(self) -> None:
        """Put nothing back: a failed run of ours has done so itself, and what is open was left by a killed one."""
        Reverter(self.config).settle()

    def config_test(self) -> None:
        """Run `nginx -t`."""
        self._context().nginx.test()

    def restart(self) -> None:
        """Reload nginx, after a test."""
        context = self._context()
        context.nginx.test()
        context.nginx.reload()

    # --- renewal

    def renew_deploy(self, lineage: Any, *args: Any, **kwargs: Any) -> None:
        """See that the renewed certificate is really served; the deploy hook has run before."""
        self._keep(lineage.lineagename)

    def generic_updates(self, lineage: Any, *args: Any, **kwargs: Any) -> None:
        """Refresh the staple where it is due, and serve the lineage where it is not served: every `certbot renew`."""
        self._keep(lineage.lineagename)

    def _keep(self, name: str) -> None:
        from certbot_seafile.system import lineages
        from certbot_seafile.usecases import deploy

        context = self._context(must_staple_tries=(0,))
        lineage = lineages.load(self.config.config_dir, name)
        context.options = lineage.options
        deploy.keep(context, lineage)

    # --- what stands between certbot and the rest

    def _context(self, **chosen: Any) -> Context:
        return context_for(self.config, self._options(), display_util.notify, **chosen)

    def _options(self) -> Options:
        from certbot_seafile.system import lineages

        given = lineages.Options(
            site=self.conf("site"),
            server_root=self.conf("server-root"),
            ctl=self.conf("ctl"),
            reload_cmd=self.conf("reload-cmd"),
            webroot=self.conf("webroot"),
            staple_dir=self.conf("staple-dir"),
            stapling=self.conf("stapling"),
            ocsp_url=self.conf("ocsp-url"),
            http_port=self.config.http01_port,
            https_port=self.config.https_port,
        )
        if self.config.verb in ("install", "enhance") and self.config.certname:
            # certbot gives these verbs nothing of the renewal file.
            return lineages.merge(lineages.saved_options(self.config.config_dir, self.config.certname), given)
        return given

    def _requested_names(self) -> list[str]:
        return [_identifier(name) for name in (*self.config.domains, *getattr(self.config, "ip_addresses", ()))]

    def _suit_key_to_site(self, context: Context, names: Sequence[str]) -> None:
        from certbot_seafile.system import serving
        from certbot_seafile.usecases import deploy

        found = deploy.rehearse(context, names)
        reason = serving.why_no_ecdsa(context, found)
        if reason is None or self.config.key_type != "ecdsa":
            return
        self._refuse_key_change(names, reason)
        if self._is_chosen("key_type"):
            raise certbot_errors.PluginError(
                f"the site cannot serve an ECDSA certificate: {reason}; leave out --key-type ecdsa, or change that line"
            )
        self.config.key_type = "rsa"
        display_util.notify(f"Asking for an RSA certificate: the site cannot serve an ECDSA one ({reason})")

    def _refuse_key_change(self, names: Sequence[str], reason: str) -> None:
        """Refuse where a lineage for the names has an ECDSA key: certbot changes a key's type only when told twice."""
        from certbot_seafile import errors
        from certbot_seafile.system import lineages

        for name in lineages.all_names(self.config.config_dir):
            with contextlib.suppress(errors.LineageRefused):
                lineage = lineages.load(self.config.config_dir, name)
                asked = name == self.config.certname if self.config.certname else set(lineage.names) == set(names)
                if asked and lineage.key_type == "ecdsa":
                    raise certbot_errors.PluginError(
                        f"the certificate {name} has an ECDSA key, which the site cannot serve: {reason}; "
                        f"run again with --cert-name {name} --key-type rsa"
                    )

    def _is_chosen(self, option: str) -> bool:
        """Tell whether the person chose the option themselves: on the command line or in certbot's own files."""
        if hasattr(self.config, "set_by_user"):
            return bool(self.config.set_by_user(option))
        flag = "--" + option.replace("_", "-")
        if any(word.split("=")[0] == flag for word in sys.argv):
            return True
        return any(_mentions(path, flag[2:]) for path in getattr(self.config, "config_files", None) or ())

    def _add_hook(self) -> None:
        from certbot_seafile.system import lineages

        for attribute in ("deploy_hook", "renew_hook"):
            if hasattr(self.config, attribute):
                joined = lineages.join_hooks(hook_command(self.config), getattr(self.config, attribute))
                setattr(self.config, attribute, joined)

    def _move_over(self, names: Sequence[str]) -> None:
        """Get a lineage anew that another plugin made: certbot would find it not due, and renew it as before."""
        from certbot_seafile.system import lineages

        asked_for = (self.config.authenticator, self.config.configurator)
        if self.config.verb == "renew" or self.config.reinstall or self.name not in asked_for:
            return
        for name in lineages.all_names(self.config.config_dir):
            other = lineages.authenticator_for(self.config.config_dir, name, names)
            if other not in (None, self.name) and not self.config.renew_by_default:
                self.config.renew_by_default = True
                display_util.notify(
                    f"{name} was made with {other}: it is got anew, so that its renewals go by {self.name} from now on"
                )

    def _refresh_before_renewal(self, names: Sequence[str]) -> None:
        """Refresh what is due now: where the CA turns out to be down, certbot calls nobody for this lineage again."""
        from certbot_seafile import errors
        from certbot_seafile.system import lineages
        from certbot_seafile.usecases import refresh

        for name in lineages.names_of_plugin(self.config.config_dir):
            try:
                lineage = lineages.load(self.config.config_dir, name)
                if set(lineage.names) == set(names):
                    context = self._context()
                    context.options = lineage.options
                    refresh.refresh_one(context, lineage).report(context.say)
            except errors.Error as error:
                logger.warning("the staple of %s could not be refreshed before the renewal: %s", name, error)

    def _hold_certificates(self, names: Sequence[str]) -> None:
        """Let sites that must be stapled keep what they serve, whoever reloads nginx before the deploy hook has run."""
        from certbot_seafile import errors
        from certbot_seafile.sealed import pinning

        if self.name not in (self.config.authenticator, self.config.installer, self.config.configurator):
            return  # one of several plugins that certbot offers
        must_staple = bool(self.config.must_staple)
        for found in pinning.to_hold(
            self.config.config_dir, names, self.config.certname, self._options(), must_staple=must_staple
        ):
            certbot_util.atexit_register(self._release_certificate, found)
            try:
                pinning.hold(self._context(), found)
            except errors.FileRefused as refused:
                if os.geteuid() == 0:
                    raise
                # Whoever may not write the site shall still be able to renew.
                logger.warning("%s: a reload before the deploy hook would come too early: %s", found.name, refused)

    def _release_certificate(self, lineage: Lineage) -> None:
        """Take the hold out again where no new certificate came."""
        from certbot_seafile import errors
        from certbot_seafile.sealed import pinning

        try:
            pinning.release(self._context(), lineage)
        except errors.Error as error:
            logger.warning("%s: the next `certbot renew` will mend the site: %s", lineage.name, error)

    def _lineage_at(self, fullchain_path: str) -> Lineage:
        from certbot_seafile.system import lineages

        name = lineages.from_environment(self.config.config_dir, os.path.dirname(os.path.abspath(fullchain_path)))
        return lineages.load(
            self.config.config_dir, name, options=self._options() if self.config.verb != "renew" else None
        )


class Reverter:
    """certbot's checkpoints, for Host."""

    def __init__(self, config: Any) -> None:
        from certbot import reverter

        self._config = config
        self._reverter = reverter.Reverter(config)

    def settle(self) -> None:
        """Close the checkpoint that a killed run left open, or drop it where it cannot be closed.

        Left open, certbot's recovery would one day put its files back over what a person wrote into them since.
        """
        try:
            self._reverter.finalize_checkpoint("certbot-seafile: a run that did not come to its end")
        except certbot_errors.ReverterError as error:
            logger.debug("dropped: %s", error)
            self.drop()

    def add(self, paths: set[str], notes: str) -> None:
        """Keep the files' present bytes for a rollback."""
        self._reverter.add_to_checkpoint(paths, notes)

    def finish(self, title: str) -> None:
        """Close the checkpoint."""
        self._reverter.finalize_checkpoint(title)

    def drop(self) -> None:
        """Forget the open checkpoint: the files were put back already, in one step each."""
        shutil.rmtree(self._config.in_progress_dir, ignore_errors=True)


def context_for(config: Any, options: Options, say: Callable[[str], None], **chosen: Any) -> Context:
    """Return what the use cases work with, for certbot's configuration and our options."""
    import datetime

    from certbot_seafile.sealed import asking, settings
    from certbot_seafile.system import nginx
    from certbot_seafile.system.context import Context

    given = settings.of_user(config.config_dir)
    words = options.ctl, options.server_root, options.reload_cmd
    facts: dict[str, Any] = {
        "nginx": nginx.Nginx(*words) if given is None else asking.Asked(*words, socket=given.socket),
        "renewer": None if given is None else given.user,
        "checkpoints": Reverter(config),
        "now": lambda: datetime.datetime.now(datetime.UTC),
        "hook_command": hook_command(config),
    }
    return Context(options=options, config_dir=config.config_dir, say=say, **facts | chosen)


def _refuse_root_where_handed_over(config: Any) -> None:
    """Refuse to work as root in folders that another user can write: what stands there would be done as root."""
    from certbot_seafile.system import lineages

    if os.geteuid() == 0 and os.path.exists(lineages.handover_path(config.config_dir)):
        user = _owner(config.config_dir)
        raise certbot_errors.PluginError(
            f"{user} runs certbot here, not root: run it as `sudo -u {user} certbot ...`; if this run left files "
            f"that are root's, `certbot-seafile setup --user {user}` hands them over"
        )


def _owner(path: str) -> str:
    import pwd

    uid = os.stat(path).st_uid
    return next((one.pw_name for one in pwd.getpwall() if one.pw_uid == uid), str(uid))


def hook_command(config: Any) -> str:
    """Return the deploy hook for a renewal file: an absolute path, because schedulers have short PATHs."""
    words = [_console_script()]
    for name, usual in _FOLDERS.items():
        if getattr(config, name) != usual:
            words += ["--" + name.replace("_", "-"), getattr(config, name)]
    if config.https_port != 443:
        words += ["--https-port", str(config.https_port)]
    return shlex.join([*words, "deploy"])


def _console_script() -> str:
    name = "certbot-seafile"
    beside = [os.path.dirname(os.path.abspath(sys.argv[0])), os.path.dirname(sys.executable)]
    for folder in beside:
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    return shutil.which(name) or name


def _identifier(challenged: Any) -> str:
    """Return the name or address of an annotated challenge or an entry of certbot's list, for every certbot."""
    if isinstance(challenged, str):
        return challenged
    identifier = getattr(challenged, "identifier", None)
    if identifier is not None:
        return str(identifier.value)
    return str(getattr(challenged, "domain", challenged))


def _refuse_wildcards(names: Iterable[str]) -> None:
    wildcards = [name for name in names if name.startswith("*.")]
    if wildcards:
        raise certbot_errors.PluginError(
            f"{', '.join(wildcards)}: a wildcard certificate needs a DNS challenge, which a web server's plugin cannot "
            "answer; get it with one of certbot's DNS plugins (certbot-dns-...), then `certbot install -i seafile`"
        )


def _mentions(path: str, option: str) -> bool:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        return any(line.split("=")[0].strip() == option for line in stream)
    return False


if hasattr(interfaces, "IPluginFactory"):  # certbot below 2.7 still looks for zope's declarations
    import zope.interface

    zope.interface.implementer(interfaces.IAuthenticator, interfaces.IInstaller)(Plugin)
    zope.interface.provider(interfaces.IPluginFactory)(Plugin)
