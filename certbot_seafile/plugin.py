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
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from acme import challenges
from certbot import errors as certbot_errors
from certbot import interfaces
from certbot.display import util as display_util
from certbot.plugins import common

if TYPE_CHECKING:
    from certbot_seafile.site.config import Configuration
    from certbot_seafile.system.context import Context
    from certbot_seafile.system.lineages import Lineage, Options
    from certbot_seafile.usecases import preflight
    from certbot_seafile.usecases.refresh import Refreshed

logger = logging.getLogger(__name__)


class Plugin(common.Installer, interfaces.Authenticator, interfaces.RenewDeployer, interfaces.GenericUpdater):
    """Get and serve certificates for Seafile behind nginx."""

    # certbot makes an object for each lineage: what one has refreshed, the others of this process know.
    _refreshed: ClassVar[dict[str, Refreshed]] = {}
    _runs: ClassVar[list[bool]] = []
    _tested: ClassVar[list[Configuration]] = []

    description = "Seafile behind nginx: gets the certificate, edits the site, keeps its OCSP staple fresh"

    def __init__(self, config: Any, name: str) -> None:
        has_backups = os.path.isdir(config.backup_dir)
        super().__init__(config, name)
        self._answered = contextlib.ExitStack()
        if not has_backups:  # certbot's reverter has made it, and a dry run leaves nothing behind
            with contextlib.suppress(OSError):
                os.rmdir(config.backup_dir)
        self._deployed: set[str] = set()
        self._has_loaded = False
        self._last_context: Context | None = None

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
        add("handover", default=None, metavar="DIR", help="where chain, key and staple are left for root or frontends")

    # --- certbot.interfaces.Plugin

    def prepare(self) -> None:
        """See that nginx and the site are as they must be, before the CA is asked for anything.

        certbot's menu prepares every plugin that is installed: nothing is touched where this one is not asked for.
        """
        from certbot_seafile.usecases import preflight

        preflight.refuse_former(self.config.config_dir)
        context = self._context()
        logger.debug("nginx is %s", context.nginx.facts.splitlines()[:1])
        is_asked_for = self.name in (self.config.authenticator, self.config.installer, self.config.configurator)
        if self.config.verb not in ("certonly", "run", "renew") or not is_asked_for:
            return
        request = self._request()
        if self.config.verb == "renew" and not self.config.dry_run:
            preflight.begin_renewal(context, request)
        if self.name in (self.config.authenticator, self.config.configurator):
            preflight.refuse_wildcards(request.names)
        preflight.refuse_name(request)
        self._test(context)
        if request.names and (reason := preflight.why_rsa(context, request)):
            self.config.key_type = "rsa"
            self._say(f"Asking for an RSA certificate: the site cannot serve an ECDSA one ({reason})")
            request = self._request()
        preflight.refuse_pairs(context, request)
        preflight.refuse_unstaplable(context, request)
        if self.config.dry_run:
            return
        if self.config.verb == "renew":
            if not preflight.is_undone(context, request):
                self._add_hook()
            self._refresh_all()  # where the CA turns out to be down, certbot calls nobody for this lineage again
        else:
            self._carry_over(request)
            self._add_hook()
            self._move_over(request)
        if context.renewer is None:
            preflight.seal_present(context, request)

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
        """Write the validation files, see that nginx hands them out, and answer. Raises errors.NotServed."""
        from certbot_seafile.system import challenge
        from certbot_seafile.usecases import preflight

        if not self.config.dry_run:
            self.config.installer = self.config.installer or self.name
            self._add_hook()
        responses, expected = [], {}
        for achall in achalls:
            response, validation = achall.response_and_validation()
            responses.append(response)
            expected[_identifier(achall), achall.chall.encode("token")] = validation.encode()
        if self.config.allow_subset_of_names:  # certbot drops the names whose challenge fails at the CA
            here = preflight.answered(self._context(), [name for name, _ in expected])
            expected = {key: content for key, content in expected.items() if key[0] in here}
        self._answered.enter_context(challenge.answered(self._context(), expected))
        return responses

    def cleanup(self, achalls: Iterable[Any]) -> None:
        """Remove the validation files, and take out what was edited for them."""
        self._answered.close()

    # --- certbot.interfaces.Installer

    def get_all_names(self) -> set[str]:
        """Return the names of every server block that nginx loads."""
        from certbot_seafile.site import model

        servers = model.http_servers(self._context().nginx.configuration().outline())
        names = {name for server in servers for name in server.names}
        return {name.lstrip(".") for name in names if "." in name and not set("~*") & set(name)}

    def deploy_cert(self, domain: str, cert_path: str, key_path: str, chain_path: str, fullchain_path: str) -> None:
        """Let the site use the lineage that fullchain_path belongs to."""
        from certbot_seafile.system import lineages
        from certbot_seafile.usecases import deploy

        if not fullchain_path:
            raise certbot_errors.PluginError(
                "only a certificate that certbot keeps can be installed: name it with --cert-name, not by its files"
            )
        folder = self.config.config_dir
        name = lineages.from_environment(folder, os.path.dirname(os.path.abspath(fullchain_path)))
        if name not in self._deployed:
            options = None if self.config.verb == "renew" else self._options()
            self._last_context = self._context()
            deploy.deploy(self._last_context, lineages.load(folder, name, options=options))
            self._deployed.add(name)
            self._has_loaded = True

    def enhance(self, domain: str, enhancement: str, options: Any = None) -> None:
        """Add a redirect, Strict-Transport-Security, or (already part of every deployment) the staple."""
        from certbot_seafile.usecases import enhance

        context = self._last_context or self._context()  # what deploy_cert has read, nobody has changed since
        cert_name = self.config.certname or next(iter(self._deployed), None)
        enhance.enhance(context, domain, enhancement, options, cert_name)
        self._has_loaded = True

    def supported_enhancements(self) -> list[str]:
        """Return the enhancements of `certbot enhance` that this plugin has."""
        return ["redirect", "ensure-http-header", "staple-ocsp"]

    def save(self, title: str | None = None, temporary: bool = False) -> None:
        """Do nothing: every edit is on disk, tested, and in a checkpoint of its own already."""

    def rollback_checkpoints(self, rollback: int = 1) -> None:
        """Put back what certbot's checkpoints kept; where nginx could not start from that, leave all as it was."""
        from certbot_seafile.usecases import undo

        os.makedirs(self.config.backup_dir, mode=0o700, exist_ok=True)  # certbot lists what is in it
        undo.roll_back(self._context(), partial(super().rollback_checkpoints, rollback))

    def recovery_routine(self) -> None:
        """Put nothing back: a failed run of ours has done so itself, and what is open was left by a killed one."""
        from certbot_seafile import assembly

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

    def generic_updates(self, lineage: Any, *args: Any, **kwargs: Any) -> None:
        """Refresh the staple where it is due, and serve the lineage where it is not served: every `certbot renew`."""
        from certbot_seafile.system import lineages
        from certbot_seafile.usecases import deploy

        self._refresh_all()
        loaded = lineages.load(self.config.config_dir, lineage.lineagename)
        # All lineages are looked at in one reading of nginx's files; hooks that may change them run for due ones alone.
        context = self._context_for(loaded.options, must_staple_tries=(0,), reads_again=False)
        deploy.keep(context, loaded, self._refreshed.pop(loaded.name, None))
        self._has_loaded = True

    def renew_deploy(self, lineage: Any, *args: Any, **kwargs: Any) -> None:
        """See that the renewed certificate is served; the deploy hook has run before."""
        self._refreshed.pop(lineage.lineagename, None)  # it was about the certificate before
        self._context()  # hooks have run since
        self.generic_updates(lineage)

    def _refresh_all(self) -> None:
        """Refresh what is due of all lineages, side by side: certbot calls for one after the other."""
        from certbot_seafile.system import lineages, records, renewal
        from certbot_seafile.usecases import deploy, refresh

        def load(name: str) -> tuple[Context, Lineage] | None:
            loaded = lineages.load(self.config.config_dir, name)
            context = self._context_for(loaded.options, reads_again=False)
            is_left_alone = records.is_undone(context.state_dir, name) or not renewal.is_whole(loaded.renewal)
            return None if is_left_alone else (context, deploy.subject(context, loaded))

        if not self._runs:
            self._runs.append(True)
            names = [self.config.certname] if self.config.certname else lineages.names_of_plugin(self.config.config_dir)
            for result in refresh.refresh(names, load):
                result.report(self._say)
                about = [result.name] if result.name in names else names  # nginx is all lineages' concern
                self._refreshed.update(dict.fromkeys(about, result))

    # --- what stands between certbot and the rest

    def _context(self) -> Context:
        return self._context_for(self._options())

    def _context_for(self, options: Options, **chosen: Any) -> Context:
        from certbot_seafile import assembly
        from certbot_seafile.system import progress

        if not self.config.quiet:
            progress.show_on(sys.stderr)
        return assembly.context_for(self.config, options, self._say, **chosen)

    def _say(self, text: str) -> None:
        """Let certbot print text; what was closed or is full does not stop the work that is told."""
        with contextlib.suppress(OSError):
            display_util.notify(text)

    def _test(self, context: Context) -> None:
        """Run `nginx -t`, once for each state of nginx's files: certbot prepares for one lineage after the other."""
        if not (self._tested and context.nginx.configuration() is self._tested[0]):
            context.nginx.test()
            self._tested[:] = [context.nginx.configuration()]

    def _options(self) -> Options:
        from certbot_seafile.system import lineages, renewal

        values = {name: getattr(self.config, key) for name, key in lineages.KEYS.items()}
        hook = getattr(self.config, "deploy_hook", None) or getattr(self.config, "renew_hook", None)
        is_kept = self.config.redirect is None and renewal.is_without_redirect(hook)
        values["no_redirect"] = self.config.redirect is False or is_kept
        if self.config.verb == "renew" and not self._is_chosen("https_port"):
            values["https_port"] = renewal.https_port(hook) or values["https_port"]
        if self.config.certname and self.config.verb in ("install", "enhance"):
            # certbot gives these verbs nothing of the renewal file.
            given = {
                name: value for name, value in values.items() if self._is_chosen(lineages.KEYS.get(name, "redirect"))
            }
            with contextlib.suppress(certbot_errors.PluginError):
                return replace(lineages.options_of(self.config.config_dir, self.config.certname), **given)
        return lineages.Options(**values)

    def _request(self) -> preflight.Request:
        from certbot_seafile.usecases import preflight

        names = tuple(map(_identifier, (*self.config.domains, *getattr(self.config, "ip_addresses", ()))))
        if self.config.allow_subset_of_names and len(names) > 1:
            names = preflight.answered(self._context(), names)
        key_type = self.config.key_type, self._is_chosen("key_type")
        must_staple = bool(getattr(self.config, "must_staple", False))
        return preflight.Request(names, self.config.certname, *key_type, must_staple)

    def _is_chosen(self, name: str) -> bool:
        """Tell whether the person chose an option of this name: on the command line or in certbot's own files."""
        if hasattr(self.config, "set_by_user"):
            return bool(self.config.set_by_user(name))
        words = list(sys.argv)
        for path in getattr(self.config, "config_files", None) or ():
            with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
                words += [f"--{line}" for line in stream]
        option = "--http-01-port" if name == "http01_port" else f"--{name.replace('_', '-')}"
        return any(word.split("=")[0].strip() == option for word in words)

    def _add_hook(self) -> None:
        from certbot_seafile import assembly
        from certbot_seafile.system import renewal

        hook = assembly.hook_command(self.config, self._options())
        for attribute in ("deploy_hook", "renew_hook"):
            if hasattr(self.config, attribute):
                setattr(self.config, attribute, renewal.join_hooks(hook, getattr(self.config, attribute)))

    def _carry_over(self, request: preflight.Request) -> None:
        """Keep what the lineage's renewal file says and the person did not say again: certbot would forget it."""
        from certbot_seafile.usecases import preflight

        for name, value in preflight.saved(self.config.config_dir, request).items():
            if hasattr(self.config, name) and not self._is_chosen(name):
                usual = getattr(self.config, name)
                setattr(self.config, name, value == "True" if isinstance(usual, bool) else type(usual or "")(value))

    def _move_over(self, request: preflight.Request) -> None:
        """Let certbot get a new certificate for a lineage that another plugin made, so that this one renews it."""
        from certbot_seafile.usecases import preflight

        is_authenticator = self.name in (self.config.authenticator, self.config.configurator)
        if self.config.reinstall or self.config.renew_by_default or not is_authenticator:
            return
        if foreign := preflight.find_foreign(self.config.config_dir, request):
            self.config.renew_by_default = True
            self._say(
                f"{foreign.name} was made with {foreign.renewal['authenticator']}: a new certificate is asked for, so "
                f"that its renewals go by {self.name} from now on"
            )


def _identifier(challenged: Any) -> str:
    """Return the name or address of an annotated challenge or an entry of certbot's list, for every certbot."""
    identifier = getattr(challenged, "identifier", None)
    return str(getattr(challenged, "domain", challenged) if identifier is None else identifier.value)


# certbot 2.1 to 2.6 looks for interfaces in zope's way. 5.x has the name IPluginFactory again, a plain class where zope
# was not importable when certbot started.
_factory = getattr(interfaces, "IPluginFactory", None)
if _factory is not None and not isinstance(_factory, type):
    import zope.interface

    zope.interface.implementer(interfaces.IAuthenticator, interfaces.IInstaller)(Plugin)
    zope.interface.provider(_factory)(Plugin)
