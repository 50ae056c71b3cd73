"""certbot's door: one class that is authenticator, installer, renewal deployer and updater.

The law: here certbot's words are turned into ours and back, and nothing is decided. It is loaded at every certbot
command, so everything that is not certbot's own is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from acme import challenges
from certbot import errors as certbot_errors
from certbot import interfaces
from certbot import util as certbot_util
from certbot.display import util as display_util
from certbot.plugins import common

from certbot_seafile import assembly

if TYPE_CHECKING:
    from certbot_seafile.system import challenge
    from certbot_seafile.system.context import Context
    from certbot_seafile.system.lineages import Lineage, Options
    from certbot_seafile.usecases import preflight

logger = logging.getLogger(__name__)


class Plugin(common.Installer, interfaces.Authenticator, interfaces.RenewDeployer, interfaces.GenericUpdater):
    """Get and serve certificates for Seafile behind nginx."""

    description = "Seafile behind nginx: gets the certificate, edits the site, keeps its OCSP staple fresh"

    def __init__(self, config: Any, name: str) -> None:
        super().__init__(config, name)
        self._challenges: challenge.Challenges | None = None
        self._deployed: set[str] = set()
        self._has_loaded = False

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
        """See that nginx and the site are as they must be, before the CA is asked for anything.

        certbot's menu prepares every plugin that is installed: nothing is touched where this one is not asked for.
        """
        from certbot_seafile.usecases import preflight

        _refuse_root_where_handed_over(self.config)
        context = self._context()
        logger.debug("nginx is %s", context.nginx.facts.splitlines()[:1])
        if self.config.verb not in ("certonly", "run", "renew") or not self._is_asked_for():
            return
        self._refuse_request(context)
        context.nginx.test()
        if self._requested_names():
            self._suit_key_to_site(context)
        if self.config.dry_run:
            return
        self._add_hook()
        if self.config.verb == "renew":
            preflight.refresh_before_renewal(self.config.config_dir, self._requested_names(), self._context_for)
        else:
            self._move_over()
        preflight.hold(context, self._request(), self._release_at_exit)

    def _is_asked_for(self) -> bool:
        return self.name in (self.config.authenticator, self.config.installer, self.config.configurator)

    def _refuse_request(self, context: Context) -> None:
        from certbot_seafile.usecases import preflight

        preflight.refuse_wildcards(self._requested_names())
        if context.renewer is not None and getattr(self.config, "must_staple", False):
            raise certbot_errors.PluginError(
                "--must-staple: the site of such a certificate is edited at renewals, which "
                f"{context.renewer} may not do; leave that out"
            )

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
        from certbot_seafile.usecases import preflight

        if not self.config.dry_run:
            self.config.installer = self.config.installer or self.name
            self._add_hook()
        preflight.refuse_wildcards([_identifier(achall) for achall in achalls])
        responses, expected = [], {}
        for achall in achalls:
            response, validation = achall.response_and_validation()
            responses.append(response)
            expected[_identifier(achall), achall.chall.encode("token")] = validation.encode()
        self._challenges = challenge.Challenges(self._context())
        self._challenges.answer(expected)
        return responses

    def cleanup(self, achalls: Iterable[Any]) -> None:
        """Remove the validation files, and take out what was edited for them."""
        if self._challenges is not None:
            self._challenges.clear()

    # --- certbot.interfaces.Installer

    def get_all_names(self) -> set[str]:
        """Return the names of every server block that nginx loads."""
        from certbot_seafile.site import model

        every = model.http_servers(self._context().configuration.outline())
        names = {name for server in every for name in server.names}
        return {name.lstrip(".") for name in names if "." in name and not set("~*") & set(name)}

    def deploy_cert(self, domain: str, cert_path: str, key_path: str, chain_path: str, fullchain_path: str) -> None:
        """Let the site use the lineage that fullchain_path belongs to."""
        from certbot_seafile.usecases import deploy

        lineage = self._lineage_at(fullchain_path)
        if lineage.name not in self._deployed:
            deploy.deploy(self._context(), lineage)
            self._deployed.add(lineage.name)
            self._has_loaded = True

    def enhance(self, domain: str, enhancement: str, options: Any = None) -> None:
        """Add a redirect, Strict-Transport-Security, or (already part of every deployment) the staple."""
        from certbot_seafile.usecases import enhance

        if enhancement not in self.supported_enhancements():
            raise certbot_errors.NotSupportedError(f"{self.name} has no enhancement {enhancement}")
        enhance.enhance(self._context(), domain, enhancement, options)
        self._has_loaded = True

    def supported_enhancements(self) -> list[str]:
        """Return the enhancements of `certbot enhance` that this plugin has."""
        return ["redirect", "ensure-http-header", "staple-ocsp"]

    def save(self, title: str | None = None, temporary: bool = False) -> None:
        """Do nothing: every edit is on disk, tested, and in a checkpoint of its own already."""

    def recovery_routine(self) -> None:
        """Put nothing back: a failed run of ours has done so itself, and what is open was left by a killed one."""
        assembly.Reverter(self.config).close()

    def config_test(self) -> None:
        """Run `nginx -t`."""
        self._context().nginx.test()

    def restart(self) -> None:
        """Reload nginx, after a test; nothing is left to load after what this instance has deployed itself."""
        if not self._has_loaded:
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

        lineage = lineages.load(self.config.config_dir, name)
        deploy.keep(self._context_for(lineage.options, must_staple_tries=(0,)), lineage)
        self._has_loaded = True

    # --- what stands between certbot and the rest

    def _context(self) -> Context:
        return self._context_for(self._options())

    def _context_for(self, options: Options, **chosen: Any) -> Context:
        return assembly.context_for(self.config, options, display_util.notify, **chosen)

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

    def _request(self) -> preflight.Request:
        from certbot_seafile.usecases import preflight

        return preflight.Request(
            tuple(self._requested_names()),
            self.config.certname,
            self.config.key_type,
            self._is_chosen("key_type"),
            bool(getattr(self.config, "must_staple", False)),
        )

    def _suit_key_to_site(self, context: Context) -> None:
        from certbot_seafile.usecases import preflight

        if reason := preflight.why_rsa(context, self._request()):
            self.config.key_type = "rsa"
            display_util.notify(f"Asking for an RSA certificate: the site cannot serve an ECDSA one ({reason})")

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
                joined = lineages.join_hooks(assembly.hook_command(self.config), getattr(self.config, attribute))
                setattr(self.config, attribute, joined)

    def _move_over(self) -> None:
        """Let certbot get a new certificate for a lineage that another plugin made, so that this one renews it."""
        from certbot_seafile.usecases import preflight

        is_authenticator = self.name in (self.config.authenticator, self.config.configurator)
        if self.config.reinstall or self.config.renew_by_default or not is_authenticator:
            return
        if foreign := preflight.find_foreign(self.config.config_dir, self._requested_names()):
            self.config.renew_by_default = True
            name, other = foreign
            display_util.notify(
                f"{name} was made with {other}: a new certificate is asked for, so that its renewals go by "
                f"{self.name} from now on"
            )

    def _release_at_exit(self, lineage: Lineage) -> None:
        from certbot_seafile.usecases import preflight

        certbot_util.atexit_register(preflight.release, self._context(), lineage)

    def _lineage_at(self, fullchain_path: str) -> Lineage:
        from certbot_seafile.system import lineages

        name = lineages.from_environment(self.config.config_dir, os.path.dirname(os.path.abspath(fullchain_path)))
        return lineages.load(
            self.config.config_dir, name, options=self._options() if self.config.verb != "renew" else None
        )


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


def _identifier(challenged: Any) -> str:
    """Return the name or address of an annotated challenge or an entry of certbot's list, for every certbot."""
    if isinstance(challenged, str):
        return challenged
    identifier = getattr(challenged, "identifier", None)
    if identifier is not None:
        return str(identifier.value)
    return str(getattr(challenged, "domain", challenged))


def _mentions(path: str, option: str) -> bool:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        return any(line.split("=")[0].strip() == option for line in stream)
    return False


def _declare_for_older_certbots() -> None:
    """Declare the interfaces in zope's way where certbot looks for that: 2.1 to 2.6.

    5.x has a name IPluginFactory again, which is a plain class where zope was not importable when certbot started.
    """
    factory = getattr(interfaces, "IPluginFactory", None)
    if factory is None or isinstance(factory, type):
        return
    import zope.interface

    zope.interface.implementer(interfaces.IAuthenticator, interfaces.IInstaller)(Plugin)
    zope.interface.provider(factory)(Plugin)


_declare_for_older_certbots()
