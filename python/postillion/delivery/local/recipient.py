"""The delivery of one recipient through aliases, .forward files and the mailbox parameters (local(8)).

An alias or .forward file with a single address is expanded repeatedly, up to `DEPTH_MAX`. With several targets, its
commands, files and the user's own mailbox are delivered here, and its other addresses are queued as one new message, so
that each has its own retries. Addresses that are not local are queued as well.

A probe goes the same way, and stops where it would write, run or queue something.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from postillion._core.address import quote
from postillion.address.local import LocalAddress, take_apart
from postillion.delivery import command
from postillion.delivery.account import Account, NoAnswerError, NotPermittedError, acting_as
from postillion.delivery.accounts import Accounts
from postillion.delivery.local.aliases import AliasError, Aliases, Expansion, read_include, rights
from postillion.delivery.local.forward import UndefinedError, expand, find_forward
from postillion.delivery.local.settings import LocalSettings
from postillion.delivery.local.targets import ADDRESS, COMMAND, FILE, INCLUDE, Target
from postillion.delivery.mailbox import mbox
from postillion.delivery.mailbox.letter import Letter, delivery_headers, from_line, normal
from postillion.delivery.mailbox.maildir import Maildirs, prepare_in_spool
from postillion.delivery.verdict import DEFERRED, Verdict, bounced, combined, deferred, sent
from postillion.tables import TableError
from postillion.tables.deferred import decided

DEPTH_MAX = 100
"""Maximum depth of expansions of aliases, lists and .forward files; more are a loop."""
TARGETS_MAX = 1_000_000
"""Maximum number of targets of a recipient at all depths, duplicates included: aliases may all name each other."""
TARGETS_AT_ONCE = 1000
"""Number of targets until other deliveries of the process run."""
CLIENT_VALUES = {
    "client_hostname": "client_name",
    "client_address": "client_address",
    "client_helo": "helo_name",
    "client_protocol": "protocol_name",
}
"""Names in forward_path and similar parameters -> attributes of the envelope."""
REQUIRED_NAMES = ("mailer-daemon", "postmaster")


class TooManyTargetsError(Exception):
    """A recipient whose aliases name each other without end."""


class Message(Protocol):
    """The part of a job that describes its message."""

    @property
    def queue_id(self) -> str:
        """The queue ID."""

    @property
    def sender(self) -> str:
        """The reverse path."""

    @property
    def envid(self) -> str | None:
        """The ENVID of the DSN request (RFC 3461 §4.4)."""

    def attribute(self, name: str) -> str | None:
        """Return a named fact of the envelope, such as client_name."""


class Report(NamedTuple):
    """The verdict of one target of a recipient. `address`: the address in the log.

    `action`: the word in the sender's report of the attempt, where the verdict does not give it.
    """

    address: str
    verdict: Verdict
    action: str | None = None


@dataclass(frozen=True)
class Step:
    """A step of the expansion of a recipient: the current address and its origin.

    `source`: "alias", "forward", "include", or None for the recipient itself. `expanded`: the expanded name. `owner`:
    the owner of the .forward file. `account`: the account of commands and files; None for the default. `apart`: the
    expansion has other targets, so an address is queued as a new message.
    """

    address: str
    sender: str
    depth: int = 0
    source: str | None = None
    expanded: str | None = None
    owner: str | None = None
    account: Account | None = None
    apart: bool = False
    extension: str = ""


@dataclass
class Outcome:
    """The results of one recipient."""

    reports: list[Report] = field(default_factory=list)
    forwards: dict[str, list[str]] = field(default_factory=dict)
    """Recipients of new messages, by sender."""
    earlier: list[Verdict] = field(default_factory=list)
    """Verdicts of earlier attempts."""

    def verdict(self) -> Verdict:
        """Return the combined verdict on the recipient."""
        return combined([*self.earlier, *(report.verdict for report in self.reports)])


class Delivery:
    """Delivers one recipient of one message."""

    def __init__(
        self,
        message: Message,
        letter: Letter,
        address: str,
        original: str,
        tools: Tools,
        done: dict[str, Verdict] | None = None,
        *,
        probes: bool = False,
    ) -> None:
        """`done`: the targets that earlier attempts finished; this attempt adds its own. `probes`: deliver nothing."""
        self._message = message
        self._letter = letter
        self._address = address
        self._original = original
        self._tools = tools
        self._settings = tools.settings
        self._seen: set[tuple[str, ...]] = set()
        self._targets = 0
        self._outcome = Outcome()
        self._done = {} if done is None else done
        self._probes = probes

    async def deliver(self) -> Outcome:
        """Deliver the recipient; return a report for each target, and the addresses to forward to."""
        step = Step(self._address, self._message.sender)
        if self._take_apart(step.address).local.casefold() == self._settings.double_bounce_sender.casefold():
            self._report(step, sent("undeliverable postmaster notification discarded"))
            return self._outcome
        try:
            await self._guarded(step, self._deliver_address(step))
        except TooManyTargetsError:
            self._tools.warn(f"{self._message.queue_id}: {step.address} has more than {TARGETS_MAX} targets")
            self._outcome.forwards.clear()
            self._report(step, deferred("4.3.0", f"the expansion has more than {TARGETS_MAX} targets"))
        if not self._outcome.reports and not self._outcome.forwards:
            self._report(step, deferred("4.3.0", "the expansion of the address has no recipient"))
        return self._outcome

    async def _guarded(self, step: Step, work: Awaitable[None]) -> None:
        """Report the failure of one target, so that the other targets are still delivered."""
        try:
            await work
        except AliasError as error:
            self._report(step, error.verdict)
        except NotPermittedError as error:
            self._report(step, deferred("4.3.5", str(error)))
        except NoAnswerError as error:
            # Not an unknown user: nobody knows (Postfix's text and code).
            self._tools.warn(str(error))
            self._report(step, deferred("4.0.0", "user lookup error"))
        except TableError as error:
            self._report(step, deferred("4.3.0", str(error)))

    async def _deliver_address(self, step: Step) -> None:
        where = self._take_apart(step.address)
        if step.depth > DEPTH_MAX:
            self._tools.warn(f"alias database loop for {where.user}")
            self._report(step, bounced("5.4.6", f"alias database loop for {where.user}"))
        elif normal(step.address) in self._letter.delivered_to():
            self._report(step, bounced("5.4.6", f"mail forwarding loop for {step.address}"))
        elif not where.user:
            self._report(step, bounced("5.1.3", f'null username in "{step.address}"'))
        else:
            await self._switch(step, where)

    async def _switch(self, step: Step, where: LocalAddress) -> None:
        if where.user.startswith("\\"):
            name = where.user.lstrip("\\")
            await self._deliver_user(step, where._replace(user=name, local=name, extension=None))
            return
        if await self._deliver_alias(step, where):
            return
        # Mail that an alias or .forward file sends to another address is queued as a new message. Mail that an alias
        # sends to one user, and mail of users to themselves, is delivered here.
        own = where.user in (step.owner, step.expanded)
        if step.source == "include" or (step.owner is not None and not own) or (step.apart and not own):
            self._forward(step)
            return
        account = await self._tools.accounts.named(where.user)
        if account is not None and self._settings.require_home_directory:
            with acting_as(account):
                # In this thread: no other one acts as the recipient.
                if not os.path.isdir(account.home):  # noqa: ASYNC240
                    self._report(step, deferred("4.3.0", f"cannot access home directory {account.home}"))
                    return
        if account is not None and await self._deliver_forward(step, where, account):
            return
        await self._deliver_user(step, where)

    async def _deliver_alias(self, step: Step, where: LocalAddress) -> bool:
        for name in dict.fromkeys((where.local, where.user)):
            # In an alias, its own name is the user of that name.
            if step.expanded == name:
                continue
            expansion = await self._expand(name, where.domain or self._settings.myorigin)
            if expansion is None:
                continue
            below = replace(
                step,
                depth=step.depth + 1,
                source="alias",
                expanded=name,
                account=await rights(expansion, self._tools.accounts, self._settings.default_privs),
                sender=expansion.owner or step.sender,
                apart=step.apart or len(expansion.targets) > 1 or expansion.owner is not None,
                extension=self._unmatched(where, "alias") if name != where.local else "",
            )
            await self._deliver_targets(expansion.targets, below)
            return True
        return False

    async def _expand(self, name: str, domain: str) -> Expansion | None:
        """Return the expansion of an alias, once its tables have answered. Raises `AliasError`."""
        return await decided(lambda: self._tools.aliases.expand(name, domain))

    async def _deliver_forward(self, step: Step, where: LocalAddress, account: Account) -> bool:
        if step.source == "forward" and step.owner == where.user:
            return False
        path, targets, problem = find_forward(
            self._settings.forward_path,
            self._values(where, account),
            self._settings.forward_expansion_filter,
            account,
        )
        if problem is not None:
            self._tools.warn(f"{self._message.queue_id}: {problem}")
        if path is None or not targets:
            return False
        below = replace(
            step,
            depth=step.depth + 1,
            source="forward",
            expanded=where.user,
            owner=where.user,
            account=account,
            apart=step.apart or len(targets) > 1,
            # The .forward file of an extension consumes the extension.
            extension="" if (where.extension or "/") in path else self._unmatched(where, "forward"),
        )
        await self._deliver_targets(targets, below)
        return True

    async def _deliver_targets(self, targets: list[Target], step: Step) -> None:
        serve = {
            ADDRESS: self._deliver_resolved,
            INCLUDE: self._deliver_include,
            FILE: self._deliver_file,
            COMMAND: self._deliver_command,
        }
        for kind, text in targets:
            self._targets += 1
            if self._targets > TARGETS_MAX:
                raise TooManyTargetsError
            if self._targets % TARGETS_AT_ONCE == 0:
                await asyncio.sleep(0)
            key = (kind, text, str(step.account.uid if step.account else 0), str(step.depth))
            if key not in self._seen:
                self._seen.add(key)
                await self._guarded(step, serve[kind](text, step))

    async def _deliver_resolved(self, address: str, step: Step) -> None:
        local, sign, domain = address.rpartition("@")
        if not sign:
            # `user`, `far!user`, `user%far`.
            address = self._settings.address_rules.complete(address)
            local, sign, domain = address.rpartition("@")
        if not sign:
            local, domain = address, self._settings.myorigin
        if step.extension:
            local += step.extension
        address = self._routed(f"{local}@{domain}")
        below = replace(step, address=address)
        if self._is_local(address.rpartition("@")[2]):
            await self._deliver_address(below)
        else:
            self._forward(below)

    def _routed(self, address: str) -> str:
        """Return a target in its complete form, with what it names behind a domain of ours: `u@far` of `u%far@near`."""
        rules = self._settings.address_rules
        address = rules.complete(address)
        for _ in range(len(address)):
            local, domain = rules.parts(address)
            onward = rules.onward(local) if domain is not None and self._is_local(domain) else None
            if onward is None:
                break
            address = f"{quote(onward[0])}@{domain if onward[1] is None else onward[1]}"
        return address

    async def _deliver_include(self, path: str, step: Step) -> None:
        if step.depth > DEPTH_MAX:
            raise AliasError(bounced("5.4.6", f"include file loop for {path}"))
        account = step.account or await self._unprivileged()
        targets, account = await read_include(path, account, self._tools.accounts, self._settings.default_privs)
        below = replace(step, depth=step.depth + 1, source="include", account=account, apart=True)
        await self._deliver_targets(targets, below)

    async def _deliver_file(self, path: str, step: Step) -> None:
        if step.source not in self._settings.allow_mail_to_files:
            self._report(step, bounced("5.7.1", "mail to file is restricted"))
            return
        account = await self._rights(step)
        if path.startswith("~"):
            if not path.startswith("~/") or step.owner is None:
                self._report(step, bounced("5.3.5", f"mail system configuration error: bad file name {path}"))
                return
            path = account.home.rstrip("/") + path[1:]
        if self._probes:
            self._report(step, sent(f"delivers to file: {path}"))
            return
        head = self._head(step, "file")
        if path.endswith("/"):
            await self._once(step, path, self._tools.maildirs.deliver(path, head, self._letter.text, account))
            return
        file = mbox.MailboxFile(path, account, account, account.gid, None)
        await self._once(step, path, mbox.deliver(file, self._mbox_message(step), self._settings.mbox))

    async def _deliver_command(self, text: str, step: Step) -> None:
        if step.source not in self._settings.allow_mail_to_commands:
            self._report(step, bounced("5.7.1", "mail to command is restricted"))
            return
        if self._probes:
            self._report(step, sent(f"delivers to command: {text}"))
            return
        where = self._take_apart(step.address)
        work = self._run(text, step, where, await self._rights(step), step.owner is not None)
        await self._once(step, f"|{text}", work)

    async def _deliver_user(self, step: Step, where: LocalAddress) -> None:
        key = ("mailbox", where.local)
        if key in self._seen:
            return
        self._seen.add(key)
        account = await self._tools.accounts.named(where.user)
        if account is None:
            await self._deliver_unknown(step, where)
            return
        await self._once(step, f"mailbox {where.user}", self._deliver_mailbox(step, where, account))

    async def _deliver_mailbox(self, step: Step, where: LocalAddress, account: Account) -> Verdict:
        settings, text = self._settings, self._letter.text
        listed = await decided(lambda: settings.mailbox_command_maps.lookup(where.user))
        mailbox_command = listed or settings.mailbox_command
        if mailbox_command and self._probes:
            return sent(f"delivers to command: {mailbox_command}")
        if mailbox_command:
            user = account if account.uid else await self._unprivileged()
            return await self._run(mailbox_command, step, where, user, True, home=account.home)
        if settings.home_mailbox:
            path = f"{account.home}/{settings.home_mailbox}"
            if self._probes:
                return would_write(path)
            if path.endswith("/"):
                return await self._tools.maildirs.deliver(path, self._head(step, "file"), text, account)
            opener, gid = account, account.gid
        else:
            if "/" in where.user or where.user.startswith("."):
                return bounced("5.1.1", f'unknown user: "{where.user}"')
            spool = settings.mail_spool_directory
            if self._probes:
                return would_write(spool)
            opener, gid = mbox.spool_opener(spool, account)
            if spool.endswith("/"):
                path = f"{spool}{where.user}/"
                if problem := prepare_in_spool(path, account, opener, gid):
                    return problem
                return await self._tools.maildirs.deliver(path, self._head(step, "file"), text, account)
            path = f"{spool}/{where.user}"
        file = mbox.MailboxFile(path, account, opener, gid, where.user)
        return await mbox.deliver(file, self._mbox_message(step), settings.mbox)

    async def _once(self, step: Step, target: str, work: Coroutine[None, None, Verdict]) -> None:
        """Deliver to a target, unless an earlier attempt on this recipient finished it."""
        done = self._done.get(target)
        if done is not None:
            work.close()
            self._outcome.earlier.append(done)
            return
        verdict = await work
        if verdict.outcome != DEFERRED:
            self._done[target] = verdict
        self._report(step, verdict)

    async def _deliver_unknown(self, step: Step, where: LocalAddress) -> None:
        relay = self._settings.luser_relay
        if relay:
            address = expand(relay, self._values(where, None), lenient=True)
            if "@" not in address:
                address = f"{address}@{self._settings.myorigin}"
            if not address.startswith("@") and normal(address) != normal(step.address):
                below = replace(step, depth=step.depth + 1, source="alias", expanded=where.user, extension="")
                await self._deliver_resolved(address, below)
                return
        elif where.user in REQUIRED_NAMES:
            self._tools.warn(f"required alias not found: {where.user}")
            self._report(step, sent("discarded"))
            return
        self._report(step, bounced("5.1.1", f'unknown user: "{where.user}"'))

    async def _run(
        self, text: str, step: Step, where: LocalAddress, account: Account, has_user: bool, *, home: str | None = None
    ) -> Verdict:
        settings = self._settings
        values = self._command_values(step, where, account if has_user else None)
        if home is not None:
            values["HOME"] = home
        try:
            directory = expand(
                settings.command_execution_directory,
                self._values(where, account),
                settings.execution_directory_expansion_filter,
            )
        except UndefinedError as error:
            return deferred("4.3.5", f"mail system configuration error: command_execution_directory needs {error}")
        head = from_line(step.sender, time.time()) + self._head(step, "command")
        environment = command.clean_environment(settings.export_environment, values, settings.command_expansion_filter)
        run = command.Command(
            text, account, environment, directory or None, settings.local_command_shell, settings.command_time_limit_s
        )
        return await command.deliver(run, head + self._letter.text)

    def _command_values(self, step: Step, where: LocalAddress, account: Account | None) -> dict[str, str]:
        values = {
            "LOGNAME": where.user,
            "USER": where.user,
            "SENDER": step.sender,
            "RECIPIENT": step.address,
            "LOCAL": where.local,
            "DOMAIN": where.domain,
        }
        optional = {
            "HOME": account.home if account else None,
            "SHELL": account.shell if account else None,
            "EXTENSION": where.extension,
            "ORIGINAL_RECIPIENT": self._original,
            "ENVID": self._message.envid,
            "CLIENT_HOSTNAME": self._message.attribute("client_name"),
            "CLIENT_ADDRESS": self._message.attribute("client_address"),
            "CLIENT_HELO": self._message.attribute("helo_name"),
            "CLIENT_PROTOCOL": self._message.attribute("protocol_name"),
            "SASL_METHOD": self._message.attribute("sasl_method"),
            "SASL_SENDER": self._message.attribute("sasl_sender"),
            "SASL_USERNAME": self._message.attribute("sasl_username"),
        }
        values.update({name: value for name, value in optional.items() if value})
        return values

    def _values(self, where: LocalAddress, account: Account | None) -> dict[str, str]:
        values = {
            "user": where.user,
            "local": where.local,
            "domain": where.domain,
            "extension": where.extension or "",
            "recipient": where.address,
            "recipient_delimiter": where.delimiter,
            "home": account.home if account else "",
            "shell": account.shell if account else "",
        }
        for name, attribute in CLIENT_VALUES.items():
            values[name] = self._message.attribute(attribute) or ""
        return values

    async def _rights(self, step: Step) -> Account:
        """Return the account of commands and files: never root, whose files get the default account."""
        if step.account is None or step.account.uid == 0:
            return await self._unprivileged()
        return step.account

    async def _unprivileged(self) -> Account:
        return await self._tools.accounts.unprivileged(self._settings.default_privs)

    def _head(self, step: Step, kind: str) -> bytes:
        if self._probes:
            # Every way of a delivery comes by here.
            raise RuntimeError("a probe is not delivered")
        delivered = self._address if self._settings.frozen_delivered_to else step.address
        shown = delivered if kind in self._settings.prepend_delivered_header else None
        original = self._original if self._settings.enable_original_recipient else None
        return delivery_headers(step.sender, original, shown)

    def _mbox_message(self, step: Step) -> tuple[bytes, bytes]:
        return from_line(step.sender, time.time()) + self._head(step, "file"), self._letter.quoted()

    def _unmatched(self, where: LocalAddress, kind: str) -> str:
        if not where.extension or kind not in self._settings.propagate_unmatched_extensions:
            return ""
        return where.delimiter + where.extension

    def _take_apart(self, address: str) -> LocalAddress:
        return take_apart(address, self._settings.address_rules)

    def _is_local(self, domain: str) -> bool:
        """Return whether a domain is surely local; the queue manager decides about the others."""
        domain = domain.lower()
        return domain in self._settings.local_domains or domain == self._address.rpartition("@")[2].lower()

    def _forward(self, step: Step) -> None:
        where = self._take_apart(step.address)
        key = ("forward", step.sender, where.local, "" if self._is_local(where.domain) else where.domain)
        if key not in self._seen:
            self._seen.add(key)
            if self._probes:
                self._report(step, sent(f"forwards to {step.address}"))
                return
            self._outcome.forwards.setdefault(step.sender, []).append(step.address)

    def _report(self, step: Step, verdict: Verdict) -> None:
        self._outcome.reports.append(Report(step.address, verdict))


def would_write(path: str) -> Verdict:
    """Return what a probe says of a user's Maildir or mailbox at a path."""
    return sent("delivers to maildir" if path.endswith("/") else "delivers to mailbox")


@dataclass(frozen=True)
class Tools:
    """The objects that all deliveries of a process share."""

    settings: LocalSettings
    aliases: Aliases
    maildirs: Maildirs
    accounts: Accounts
    warn: Callable[[str], None]
