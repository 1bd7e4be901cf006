"""The checker: a configuration that stops a program, loses mail or skips a check is refused, in one line."""

import contextlib
import importlib
import os
import pwd
import re
from pathlib import Path

import pytest

import postillion
from postillion.checker.check import Check, program_module
from postillion.config import ConfigError, effect, parameters
from postillion.master.programs import PROGRAMS
from support.mta import MASTER_CF

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}
mail_owner = {owner}
myhostname = mx.example.org
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
"""
LINES = MAIN_CF.count("\n")
OWNER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
SERVICES = MASTER_CF + "lmtp unix - - n - - lmtp\n"
SUBMISSION = "127.0.0.1:587 inet n - n - - smtpd "
VIRTUAL = "virtual unix - n n - - virtual\nmaildrop unix - n n - - pipe flags=R user=nobody argv=/bin/cat\n"


class Site:
    """A configuration directory; `services` are added to a whole master.cf."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, parameters: str, services: str = "", master_cf: str = SERVICES) -> "Site":
        """Write both files; return the site."""
        text = MAIN_CF.format(directory=self.directory, owner=OWNER) + parameters
        (self.directory / "main.cf").write_text(text.replace("@", str(self.directory)))
        (self.directory / "master.cf").write_text(
            (master_cf.format(port=25) + services).replace("@", str(self.directory))
        )
        return self

    def warnings(self) -> list[str]:
        """Return what is doubtful about a configuration that may start; raises `ConfigError` for another one."""
        check = Check(str(self.directory))
        with contextlib.chdir("/"):
            check.run()
        return check.warnings

    def refusal(self) -> str:
        """Return why the configuration may not start."""
        with pytest.raises(ConfigError) as refused:
            self.warnings()
        assert "\n" not in str(refused.value)
        return str(refused.value).replace(f"{self.directory}/", "")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_checker_calls_the_prepare_function_of_each_program(program: str) -> None:
    prepare = program_module(PROGRAMS[program]).prepare
    package = (Path(postillion.__file__).parent.parent / PROGRAMS[program].replace(".", "/")).is_dir()
    started = importlib.import_module(f"{PROGRAMS[program]}.__main__" if package else PROGRAMS[program])
    assert started.prepare is prepare


def test_complete_site_without_problems_may_start(site: Site) -> None:
    assert site.write("").warnings() == []


STOCK_DEBIAN = """\
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
readme_directory = no
smtpd_tls_cert_file=/etc/ssl/certs/ssl-cert-snakeoil.pem
smtpd_tls_key_file=/etc/ssl/private/ssl-cert-snakeoil.key
smtpd_tls_security_level=may
smtp_tls_CApath=/etc/ssl/certs
smtp_tls_security_level=may
smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache
relayhost =
mailbox_size_limit = 0
recipient_delimiter = +
inet_interfaces = loopback-only
"""
STOCK_RHEL = """\
command_directory = /usr/sbin
data_directory = /var/lib/postfix
mail_owner = postfix
unknown_local_recipient_reject_code = 550
debug_peer_level = 2
debugger_command = PATH=/bin:/usr/bin ddd $daemon_directory/$process_name $process_id & sleep 5
sendmail_path = /usr/sbin/sendmail.postfix
html_directory = no
smtpd_tls_cert_file = /etc/pki/tls/certs/postfix.pem
smtpd_tls_security_level = may
smtp_tls_CAfile = /etc/pki/tls/cert.pem
smtp_tls_security_level = may
meta_directory = /etc/postfix
shlib_directory = /usr/lib64/postfix
inet_interfaces = localhost
inet_protocols = ipv4
"""


@pytest.mark.parametrize("stock", [STOCK_DEBIAN, STOCK_RHEL], ids=["Debian", "RHEL"])
def test_configuration_of_a_distribution_may_start(site: Site, stock: str) -> None:
    warnings = site.write(stock, VIRTUAL).warnings()
    assert not any("smtp_tls_security_level" in warning for warning in warnings)
    assert any("not started: virtual (virtual), maildrop (pipe)" in warning for warning in warnings)


FIRST = f"main.cf, line {LINES + 1}: "
NEXT = f"master.cf, line {SERVICES.count(chr(10)) + 1}: "
UNSAFE = [
    ("smtpd_milters = inet:localhost:11332", "", "smtpd_milters"),
    ("smtpd_milters = { inet:localhost:11332, default_action=accept }", "", "smtpd_milters"),
    ("non_smtpd_milters = inet:localhost:11332", "", "non_smtpd_milters"),
    ("content_filter = smtp-amavis:[127.0.0.1]:10024", "", "content_filter"),
    ("smtpd_proxy_filter = 127.0.0.1:10024", "", "smtpd_proxy_filter"),
    ("smtpd_command_filter = pcre:/x", "", "smtpd_command_filter"),
    ("cleanup_service_name = subcleanup", "", "cleanup_service_name"),
    ("smtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes", "", "smtpd_tls_auth_only"),
    ("smtpd_end_of_data_restrictions = check_policy_service unix:x", "", "smtpd_end_of_data_restrictions"),
    ("smtpd_reject_unlisted_sender = yes", "", "smtpd_reject_unlisted_sender"),
    ("mailbox_transport = lmtp:unix:private/dovecot-lmtp", "", "mailbox_transport"),
    ("fallback_transport = smtp:next.example", "", "fallback_transport"),
    ("smtpd_upstream_proxy_protocol = haproxy", "", "smtpd_upstream_proxy_protocol"),
    ("smtpd_authorized_xclient_hosts = 127.0.0.1", "", "smtpd_authorized_xclient_hosts"),
    ("", SUBMISSION + "-o smtpd_authorized_xclient_hosts=127.0.0.1", "smtpd_authorized_xclient_hosts = 127.0.0.1"),
    ("", SUBMISSION + "-o content_filter=scan:x", "content_filter = scan:x"),
    (
        "",
        SUBMISSION + "-o cleanup_service_name=subcleanup",
        "cleanup_service_name = subcleanup: master.cf has no cleanup service with this name",
    ),
    ("smtpd_sasl_auth_enable = yes", SUBMISSION + "-o smtpd_tls_auth_only=yes", "smtpd_tls_auth_only = yes"),
    ("", "cleanup unix n - n - 0 cleanup -o non_smtpd_milters=unix:/x", "non_smtpd_milters = unix:/x"),
    ("", "sub unix n - n - 0 cleanup -o non_smtpd_milters=unix:/x", "non_smtpd_milters = unix:/x"),
    (
        "header_checks = inline:{ { a = filter x:y } }",
        "",
        "header_checks: inline:{ { a = filter x:y } } has the action",
    ),
    (
        "",
        "2525 inet n - n - 1 postscreen",
        "the program postscreen is not supported yet, and no program would answer on its",
    ),
    ("", "policy unix - n n - 0 spawn user=nobody argv=/bin/cat", "the program spawn is not supported yet"),
    ("", "628 inet n - n - - qmqpd", "the program qmqpd is not supported yet"),
    ("", "qmgr unix n - n 300 1 oqmgr", "the program oqmgr is not supported yet, and no mail would be delivered"),
]


@pytest.mark.parametrize(("parameters", "service", "said"), UNSAFE)
def test_unsafe_parameter_without_effect_is_refused(site: Site, parameters: str, service: str, said: str) -> None:
    refusal = site.write(parameters + "\n", service + "\n").refusal()
    assert refusal.startswith((NEXT if service else FIRST) + said)
    assert re.search(r": (remove|let|name|set|add) ", refusal), "what to do"


ASKS_FOR_NOTHING = [
    "virtual_alias_maps =",
    "header_checks = ${nothing}",
    "header_checks =\nmime_header_checks = $header_checks",
    "smtpd_tls_security_level = none",
    "smtp_tls_security_level = may",
    "smtpd_enforce_tls = no",
    "smtpd_tls_auth_only = yes",
    "cleanup_service_name = cleanup",
    "receive_override_options =",
    "local_login_sender_maps = static:*",
    "virtual_transport = dovecot\nmail_spool_directory = /var/mail",
    "postscreen_dnsbl_allowlist_threshold = -1",
    "virtual_mailbox_base =",
    "inet_protocols = ipv4\npostscreen_greet_wait = soon",
    "mydestination =\nrelay_domains = inline:{ { example.net = } }",
]


@pytest.mark.parametrize("parameters", ASKS_FOR_NOTHING)
def test_value_that_needs_no_missing_feature_is_accepted(site: Site, parameters: str) -> None:
    site.write(parameters + "\n").warnings()


def test_only_parameters_of_started_programs_count(site: Site) -> None:
    relay = "smtp unix - - n - - smtp\nqmgr unix n - n 300 1 qmgr\n"
    parameters = "smtpd_command_filter = pcre:/x\ncontent_filter = x:y\nlmtp_reply_filter = static:x\n"
    warnings = site.write(parameters, "", relay).warnings()
    assert [re.sub(r".*line \d+: (\w+)=.*", r"\1", warning) for warning in warnings] == [
        "smtpd_command_filter",
        "content_filter",
        "lmtp_reply_filter",
    ]
    submission = SUBMISSION.replace("smtpd", "smtpd -o smtpd_command_filter=")
    site.write(parameters + "mydestination =\n", submission, relay)
    assert "content_filter" in site.refusal()


def test_every_unsafe_parameter_is_refused_by_the_programs_that_read_it(site: Site) -> None:
    for rule in effect.rules():
        _, kind, *_ = parameters.PARAMETERS[rule.name]
        value = "yes" if kind == "flag" else "1" if kind.startswith("number") else "encrypt"
        assert rule.name in site.write(f"{rule.name} = {value}\n").refusal(), rule


LAYOUT = "25 inet n - n - - smtpd\npickup unix n - n 60 1 pickup\nbounce unix - - n - 0 bounce\n"
QMGR = "qmgr unix n - n 300 1 qmgr\n"
LOCAL = "local unix - n n - - local\n"
SMTP = "smtp unix - - n - - smtp\n"


@pytest.mark.parametrize(
    ("parameters", "master_cf", "said"),
    [
        (
            "",
            LAYOUT + LOCAL + SMTP,
            "master.cf, line 1: smtpd accepts mail, and no service runs qmgr, which delivers it",
        ),
        (
            "mydestination = mx.example.org",
            LAYOUT + QMGR + SMTP,
            'main.cf, line 4: local_transport: "local:mx.example.org" gives mail to "local", a service that master.cf',
        ),
        (
            "mydestination =\nvirtual_mailbox_domains = box.example",
            LAYOUT + QMGR + SMTP,
            'main.cf: virtual_transport: "virtual" gives mail to "virtual", a service that master.cf does not have',
        ),
        (
            "mydestination =\nrelay_domains = relay.example",
            LAYOUT + QMGR + SMTP,
            'relay_transport: "relay" gives mail to "relay", a service that master.cf does not have: add the service',
        ),
    ],
)
def test_site_without_the_service_that_delivers_its_mail_is_refused(
    site: Site, parameters: str, master_cf: str, said: str
) -> None:
    assert said in site.write(parameters + "\n", "", master_cf).refusal()


@pytest.mark.parametrize(
    ("parameters", "master_cf", "warned"),
    [
        # A null client, a relay host, a server without outgoing mail, and a site whose table names each way.
        ("mydestination =", LAYOUT + QMGR + SMTP, []),
        ("local_transport = smtp:[mx.example.org]", LAYOUT + QMGR + SMTP, []),
        ("", LAYOUT + QMGR + LOCAL, ["default_transport"]),
        ("", LAYOUT + QMGR + SMTP, ["local_transport"]),
        ("transport_maps = static:smtp:[mx.example.org]", LAYOUT + QMGR + SMTP, ["local_transport"]),
        ("mydestination =", LAYOUT.replace("bounce", "lost", 1) + QMGR + SMTP, ["undeliverable mail"]),
        (
            "mydestination =\nvirtual_alias_domains = alias.example",
            LAYOUT + QMGR + SMTP,
            ["mail for unknown virtual aliases"],
        ),
        # No program accepts mail.
        ("", QMGR, []),
    ],
)
def test_missing_service_that_some_mail_may_need_gives_a_warning(
    site: Site, parameters: str, master_cf: str, warned: list[str]
) -> None:
    warnings = site.write(parameters + "\n", "", master_cf).warnings()
    assert [name for name in warned if not any(name in warning for warning in warnings)] == []
    assert len(warnings) == len(warned), warnings


BAD_INPUT = [
    ("smtpd_timeout = soon", "", FIRST + 'bad value "soon" for smtpd_timeout: give a time such as 30s'),
    ("smtp_connect_timeout = -1", "", FIRST + 'bad value "-1" for smtp_connect_timeout'),
    ("minimal_backoff_time = x", "", FIRST + 'bad value "x" for minimal_backoff_time'),
    ("relay_destination_concurrency_limit = x", "", FIRST + 'bad value "x" for relay_destination_concurrency_limit'),
    (
        "smtp_destination_concurrency_positive_feedback = 3",
        "",
        FIRST + 'bad value "3" for smtp_destination_concurrency_p',
    ),
    ("mailbox_size_limit = much", "", FIRST + 'bad value "much" for mailbox_size_limit'),
    ("smtpd_recipient_limit = 4294967296", "", FIRST + 'bad value "4294967296" for smtpd_recipient_limit'),
    ("smtpd_banner = ${x", "", FIRST + "smtpd_banner: truncated macro reference"),
    ("", SUBMISSION + "-o smtpd_timeout=soon", NEXT + 'bad value "soon" for smtpd_timeout'),
    (
        "",
        SUBMISSION + "-o { smtpd_helo_required = maybe }",
        NEXT + 'bad value "maybe" for smtpd_helo_required: give yes',
    ),
    ("", "slow unix - - n - 1 smtp -o smtp_helo_timeout=1y", NEXT + 'bad value "1y" for smtp_helo_timeout'),
    ("", "cleanup unix n - n - 0 cleanup -o hopcount_limit=many", NEXT + 'bad value "many" for hopcount_limit'),
    (
        "",
        "rewrite unix - - n - - trivial-rewrite -o resolve_null_domain=x",
        NEXT + 'bad value "x" for resolve_null_dom',
    ),
    ("", "vacation unix - n n - - pipe -o max_idle=long user=nobody argv=/x", NEXT + 'bad value "long" for max_idle'),
    ("", SUBMISSION + "-Q", NEXT + "unknown option -Q"),
    (
        "alias_maps = hash:@/aliases",
        "",
        FIRST + "alias_maps: table hash:aliases: open database aliases.db: No such",
    ),
    ("header_checks = pcre:@/none", "", FIRST + "header_checks: "),
    ("header_checks = pcre:@/filter", "", FIRST + "header_checks: pcre:filter has the action FILTER, which is not"),
    (
        "alias_maps = tcp:127.0.0.1:1",
        "",
        FIRST
        + 'alias_maps: "tcp:127.0.0.1:1": a tcp table is not allowed for security-sensitive data: nobody proves who'
        " answers: use a local table, or one of type ldap, mysql, pgsql or sqlite",
    ),
    (
        "mailbox_command_maps = unionmap:{static:x, proxy:socketmap:unix:@/s:n}",
        "",
        FIRST
        + 'mailbox_command_maps: "unionmap:{static:x, proxy:socketmap:unix:s:n}": a socketmap table is not allowed',
    ),
    (
        "alias_maps = debug:pipemap:{memcache:@/none}\nlocal_recipient_maps =",
        "",
        FIRST + 'alias_maps: "debug:pipemap:{memcache:none}": a memcache table is not allowed',
    ),
    (
        "transport_maps = regexp:@/endless",
        "",
        FIRST + "transport_maps: table regexp:endless: line 2: a back-reference behind unlimited repetition: use {1,9}"
        " instead of * and +, or a pcre table",
    ),
    ("body_checks = regexp", "", FIRST + 'body_checks: "regexp" is not a table'),
    ("smtp_nested_header_checks = pcre:@/none", "", FIRST + "smtp_nested_header_checks: "),
    ("", "sub unix n - n - 0 cleanup -o header_checks=pcre:@/none", NEXT + "header_checks: "),
    (
        "transport_maps = hash:@/t",
        "",
        FIRST + "transport_maps: table hash:t: open database t.db: No such file or directory: cr",
    ),
    (
        "transport_maps = hash:@/ways",
        "",
        FIRST + 'transport_maps: table hash:ways: open database ways.db: No such file or directory: run "postmap hash:',
    ),
    (
        "transport_maps = hash:@/folder",
        "",
        FIRST + "transport_maps: table hash:folder: open folder: Is a directory",
    ),
    (
        "transport_maps = regexp:@/folder",
        "",
        FIRST + "transport_maps: table regexp:folder: open folder: Is a direc",
    ),
    ("transport_maps = regexp:@/fifo", "", FIRST + "transport_maps: table regexp:fifo: open fifo: not a regular file"),
    (
        "transport_maps = mysql:/etc/t.cf",
        "",
        FIRST + "transport_maps: table mysql:/etc/t.cf: cannot read /etc/t.cf: No such file",
    ),
    (
        "transport_maps = proxy:ldap:/etc/t.cf",
        "",
        FIRST + "transport_maps: table proxy:ldap:/etc/t.cf: cannot read /etc/t.cf: ",
    ),
    ("local_recipient_maps = hash:@/r", "", FIRST + "local_recipient_maps: table hash:r: open database r.db"),
    ("relay_recipient_maps = hash:@/r", "", FIRST + "relay_recipient_maps: table"),
    ("virtual_mailbox_maps = hash:@/r", "", FIRST + "virtual_mailbox_maps: table hash:r"),
    ("virtual_mailbox_domains = hash:@/r", "", FIRST + "virtual_mailbox_domains: table"),
    (
        "alias_maps = nosuch:x\nlocal_recipient_maps = unix:passwd.byname $alias_maps",
        "",
        FIRST + 'alias_maps: "nosuch:x": unknown table type "nosuch"',
    ),
    ("myhostname =", "", FIRST + 'bad value "" for myhostname: give a value that is not empty'),
    ("relay_domains = pgsql:/etc/r", "", FIRST + "relay_domains: table pgsql:/etc/r: cannot read /etc/r: No such file"),
    ("mynetworks = cidr:@/n", "", FIRST + "mynetworks: table cidr:n: open n"),
    ("fast_flush_domains = hash:@/f", "", FIRST + "fast_flush_domains: table hash:f"),
    ("", "second unix n - n 300 1 qmgr", NEXT + "qmgr works alone in the queue directory, and "),
    ("", "second unix n - n 60 1 pickup", NEXT + "pickup works alone in the queue directory, and"),
    ("virtual_mailbox_domains = @/d", "", FIRST + "virtual_mailbox_domains: d: the file is missing: correct this file"),
    ("mydestination = !@/d", "", FIRST + "mydestination: d: the file is missing"),
    ("relay_domains = @/folder", "", FIRST + "relay_domains: folder: this is a directory: correct this file or its n"),
    ("", SUBMISSION + "-o mynetworks=@/d", NEXT + "mynetworks: d: the file is missing"),
    ("mailbox_command_maps = hash:@/m", "", FIRST + "mailbox_command_maps: table hash:m"),
    (
        "",
        SUBMISSION + "-o local_recipient_maps=hash:@/r",
        NEXT + "local_recipient_maps: table hash:r: open database r.db",
    ),
    ("smtpd_client_restrictions = trusted", "", FIRST + 'smtpd_client_restrictions: "trusted" is no restriction'),
    (
        "smtpd_restriction_classes = trusted\nsmtpd_client_restrictions = trusted\ntrusted = permit_mynetwork",
        "",
        f'main.cf, line {LINES + 3}: trusted: "permit_mynetwork" is no restriction',
    ),
    (
        "smtpd_restriction_classes = a b\nsmtpd_client_restrictions = a\na = b\nb = A",
        "",
        f'main.cf, line {LINES + 4}: b: restriction class "a" contains itself (a -> b -> a): remove it',
    ),
    (
        "smtpd_restriction_classes = a\nsmtpd_client_restrictions = a\na = ${stress?{nothing}:{permit}}",
        "",
        f'main.cf, line {LINES + 3}: under stress: a: "nothing" is no restriction',
    ),
    (
        "queue_directory = var/spool",
        "",
        FIRST + "queue_directory: var/spool is a relative path: give a path that begins",
    ),
    ("", SUBMISSION + "-o queue_directory=/nope", NEXT + "-o queue_directory: all services have the same queue_dire"),
    ("", SUBMISSION + "-o config_directory=/nope", NEXT + "-o config_directory: all services have the same config_d"),
    (
        "maillog_file_prefixes = /",
        SUBMISSION + "-o maillog_file=/nope/x",
        NEXT + "maillog_file: /nope/x: the directory is missing: create it",
    ),
    (
        "maillog_file = @/nope/x\nmaillog_file_prefixes = /",
        "",
        FIRST + "maillog_file: nope/x: the directory is missing",
    ),
    ("", SUBMISSION + "-vc /tmp", NEXT + "option -c is master's own"),
    ("", SUBMISSION + "-v -n other", NEXT + "option -n is master's own"),
    (
        "",
        SUBMISSION + "-o smtpd_relay_restrictions=permit_mynetworks, reject",
        NEXT + "unexpected argument behind -o smtpd_relay_restrictions",
    ),
    ("", SUBMISSION + "-o smtpd_timeout=5 s -v", NEXT + "unexpected argument behind -o smtpd_timeout"),
    ("", SUBMISSION + "-v word", NEXT + "unexpected argument word"),
    ("", SUBMISSION + "-v -- word", NEXT + "unexpected argument word"),
    (
        "",
        "other unix n - n - 0 cleanup -o header_checks=fail:a, fail:b\n",
        NEXT + "unexpected argument behind -o header_checks",
    ),
    (
        "smtpd_data_restrictions = reject_nothing",
        "",
        FIRST + 'smtpd_data_restrictions: "reject_nothing" is no restriction: known are: ',
    ),
    (
        "smtpd_relay_restrictions = ${stress?{permit}:{reject_unauth_destination}}",
        "",
        FIRST + "under stress: smtpd_relay_restrictions and smtpd_recipient_restrictions would relay mail",
    ),
    (
        "local_recipient_maps = ${stress?{hash:@/r}:{static:x}}",
        "",
        FIRST + "local_recipient_maps: table hash:r: open database r.db",
    ),
    (
        "smtpd_client_connection_rate_limit = ${stress?{many}:{0}}",
        "",
        FIRST + 'under stress: bad value "many" for smtpd_client_connection_rate_limit',
    ),
    (
        "smtpd_proxy_filter = ${stress?{127.0.0.1:10025}}",
        "",
        FIRST + "smtpd_proxy_filter = 127.0.0.1:10025 is not supported yet, and ",
    ),
    (
        "smtpd_data_restrictions = reject_rbl_client x",
        "",
        FIRST + 'smtpd_data_restrictions: "reject_rbl_client" is not',
    ),
    (
        "",
        SUBMISSION + "-o smtpd_sender_restrictions=ours",
        NEXT + 'smtpd_sender_restrictions: "ours" is no restriction',
    ),
    (
        "smtpd_relay_restrictions = permit",
        "",
        FIRST + "smtpd_relay_restrictions and smtpd_recipient_restrictions would",
    ),
    ("smtpd_python_handler = nowhere:Policy", "", FIRST + "smtpd_python_handler: nowhere:Policy: ModuleNotFoundError"),
    (
        "default_transport = dovecot",
        "",
        FIRST + 'default_transport: "dovecot" gives mail to "dovecot", a service that mas',
    ),
    (
        "default_transport = maildrop:x",
        VIRTUAL,
        FIRST + 'default_transport: "maildrop:x" gives mail to "maildrop", and it',
    ),
    (
        "virtual_mailbox_domains = box.example",
        VIRTUAL,
        'main.cf: virtual_transport: "virtual" gives mail to "virtual", an',
    ),
    (
        "local_transport = anvil",
        "",
        FIRST + 'local_transport: "anvil" gives mail to "anvil", and its program anvil deliv',
    ),
    (
        "relay_transport = x\nrelay_domains = example.net",
        "",
        FIRST + 'relay_transport: "x" gives mail to "x", a service',
    ),
    (
        "transport_maps = inline:{ a.example=maildrop: }",
        VIRTUAL,
        FIRST + 'transport_maps: "maildrop:" in inline:{ a.example=maildrop: } gives mail to "mai',
    ),
    (
        "transport_maps = static:far:x",
        "",
        FIRST + 'transport_maps: "far:x" in static:far:x gives mail to "far", a service that master.cf',
    ),
    (
        "transport_maps = regexp:@/ways",
        VIRTUAL,
        FIRST + 'transport_maps: "maildrop:" in regexp:ways gives mail to "maildrop", and its p',
    ),
    (
        "bounce_template_file = @/nosuch",
        "",
        FIRST + "bounce_template_file: nosuch: the file is missing: name a file with templates",
    ),
    ("bounce_template_file = @/ways", "", "ways, line 1: missing '=' after attribute name: \"/^(.*)@b.example/ $1:\""),
    ("bounce_template_file = @/marker", "", 'marker, line 1: bad end marker after "<<": write it as in'),
    ("", "qmgr unix n - n 300 1 qmgr -o default_transport=far", NEXT + 'default_transport: "far" gives mail to "far"'),
]


@pytest.mark.parametrize(("parameters", "service", "said"), BAD_INPUT)
def test_bad_input_is_one_line_with_its_place(site: Site, parameters: str, service: str, said: str) -> None:
    (site.directory / "folder").mkdir()
    os.mkfifo(site.directory / "fifo")
    (site.directory / "ways").write_text("/^(.*)@b.example/ $1:\n/@a.example/ maildrop:\n")
    (site.directory / "marker").write_text("failure_template = <<'EOF'\nx\n'EOF'\n")
    (site.directory / "filter").write_text("/a/ FILTER\tx:y\n")
    (site.directory / "endless").write_text("/a/ smtp:\n/(.*)(.*)(.*)(.*)\\1\\2\\3\\4z/ smtp:\n")
    refusal = site.write(parameters + "\n", service + "\n").refusal()
    assert refusal.startswith(said)
    assert refusal.count(": ") >= 2, "what is wrong, and what to do"


@pytest.mark.parametrize(
    ("parameters", "service", "warning"),
    [
        (
            "master_service_disable = smtpd, 587/inet, !lmtp/unix",
            "",
            FIRST + 'master_service_disable: "smtpd" fits no service: give types such as inet, and name/type',
        ),
        (
            f"message_size_limit = {2**63 - 1}\nmailbox_size_limit = 0",
            "",
            FIRST
            + f"message_size_limit: smtpd accepts mail while {(2**63 - 1) * 3 // 2} octets are free, and the queu",
        ),
        (
            f"queue_minfree = {2**63 - 1}",
            "",
            FIRST + f"queue_minfree: smtpd accepts mail while {2**63 - 1} octets are free, and the queue's file system",
        ),
        (
            "virtual_mailbox_base =",
            "",
            FIRST + 'bad value "" for virtual_mailbox_base: give a value that is not empty; no',
        ),
        (
            "smtp_tls_cert_file = /nowhere\nsmtp_tls_security_level = may",
            "",
            "smtp_tls_cert_file: /nowhere",
        ),
        (
            "smtpd_tls_security_level = may",
            "",
            "main.cf: smtpd_tls_chain_files: no certificate is set",
        ),
        (
            "",
            SUBMISSION + "-o milter_header_checks=inline:{}",
            NEXT + "milter_header_checks=inline:{} has no effect",
        ),
        (
            "",
            "cleanup unix n - n - 0 cleanup -o queue_service_name=other",
            NEXT + "-o queue_service_name of cleanup has no effect: cleanup does not read it",
        ),
        (
            "",
            "sub unix n - n - 0 cleanup -o header_checks=pcre:@/ways",
            NEXT + "-o header_checks of sub has no effect: no cleanup_service_name names this service",
        ),
        ("", SUBMISSION + "-o smtpd_recipient_limits=9", ""),
        ("bounce_template_file = @/template", "", 'template, line 2: failure template: unknown header field "X-Field"'),
        ("bounce_template_file = @/unknown", "", 'unknown, line 1: failure template: undefined $name: "nosuch"'),
        ("mailbox_delivery_lock = maybe", "", 'mailbox_delivery_lock: "maybe" is not known'),
        ("transport_maps = regexp:@/ways", "", "regexp map ways, line 1: ignoring unrecognized request"),
        *(
            (f"{name} = {table}", "", f"{kind} map {place}: regular expression substitution is not allowed: skipping")
            for name in (
                "alias_maps",
                "mailbox_command_maps",
                "sender_dependent_default_transport_maps",
                "sender_dependent_relayhost_maps",
                "transport_maps",
            )
            for kind, place, table in (
                ("pcre", "copied, line 2", "proxy:pcre:@/copied"),
                ("regexp", "copied, line 2", "unionmap:{static:smtp:, proxy:regexp:@/copied}"),
                ("pcre", "copied, line 2", "pipemap:{static:x, debug:pcre:@/copied}"),
            )
        ),
    ],
)
def test_doubtful_setting_gives_warning(site: Site, parameters: str, service: str, warning: str) -> None:
    (site.directory / "ways").write_text("example smtp:\n")
    (site.directory / "copied").write_text("/^fixed$/ smtp:\n/^list-(.*)$/ $1\n")
    (site.directory / "template").write_text("failure_template = <<EOF\nX-Field: x\n\ntext\nEOF\n")
    (site.directory / "unknown").write_text("failure_template = text $nosuch\n")
    warnings = [text.replace(f"{site.directory}/", "") for text in site.write(parameters + "\n", service).warnings()]
    assert [text for text in warnings if text.startswith(warning)] or not warning, warnings


def test_cleanup_service_that_a_listener_names_has_its_own_parameters(site: Site) -> None:
    (site.directory / "private").write_text("/^Received:/ IGNORE\n")
    services = (
        SUBMISSION + "-o cleanup_service_name=sub\n"
        "sub unix n - n - 0 cleanup -o checks=@/private -o header_checks=pcre:$checks -o hopcount_limit=9\n"
    )
    warnings = site.write("", services).warnings()
    assert not [text for text in warnings if "of sub has no effect" in text], warnings


@pytest.mark.parametrize(
    ("parameter", "value", "problem"),
    [
        ("inet_protocols", "ipv5", 'bad value "ipv5" for inet_protocols: give some of all, ipv4, ipv6'),
        ("inet_protocols", "IPv4", 'bad value "IPv4" for inet_protocols: give some of all, ipv4, ipv6'),
        ("inet_interfaces", "127.0.0.1, host.invalid", 'inet_interfaces: host not found: "host.invalid"'),
        ("proxy_interfaces", "host.invalid", 'proxy_interfaces: host not found: "host.invalid"'),
        ("smtp_host_lookup", "natve", 'bad value "natve" for smtp_host_lookup: give some of dns, native'),
        ("smtp_host_lookup", "", 'bad value "" for smtp_host_lookup'),
        ("lmtp_dns_support_level", "disbaled", 'bad value "disbaled" for lmtp_dns_support_level'),
        ("notify_classes", "bounces", 'bad value "bounces" for notify_classes'),
        ("notify_classes", "empty", 'bad value "empty" for notify_classes'),
        ("propagate_unmatched_extensions", "aliases", 'bad value "aliases" for propagate_unmatched_extensions'),
        ("receive_override_options", "no_mappings", 'bad value "no_mappings" for receive_override_options'),
        ("internal_mail_filter_classes", "bounces", 'bad value "bounces" for internal_mail_filter_classes'),
        ("allow_mail_to_commands", "aliases", 'bad value "aliases" for allow_mail_to_commands'),
        ("smtp_bind_address", "mx.example.org", 'smtp_bind_address: "mx.example.org" is no IP address'),
        ("smtp_tcp_port", "smpt", "smtp_tcp_port: unknown service: smpt/tcp"),
        ("default_destination_concurrency_positive_feedback", "0/inf", 'bad value "0/inf" for default_destination_'),
    ],
)
def test_a_value_with_an_unknown_word_is_refused_at_its_line(
    site: Site, parameter: str, value: str, problem: str
) -> None:
    assert site.write(f"{parameter} = {value}\n").refusal().startswith(FIRST + problem)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes mail_owner")
def test_an_unknown_mail_owner_is_refused_at_its_line(site: Site) -> None:
    assert (
        site.write("mail_owner = nosuch.user\n").refusal().startswith(FIRST + 'mail_owner: unknown user "nosuch.user"')
    )


@pytest.mark.parametrize(
    "parameter", ["smtp_tls_security_level", "lmtp_tls_security_level", "smtpd_tls_security_level"]
)
def test_a_value_that_asks_for_nothing_gives_no_warning(site: Site, parameter: str) -> None:
    assert site.write(f"{parameter} = none\n").warnings() == []


def test_a_list_of_words_may_be_empty_where_postfix_allows_it(site: Site) -> None:
    assert site.write("notify_classes =\nallow_mail_to_files =\npropagate_unmatched_extensions =\n").warnings() == []


def test_a_missing_file_of_a_default_is_a_warning(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = site.directory / "aliases"
    name, kind, _, *rest = parameters.PARAMETERS["alias_maps"]
    monkeypatch.setitem(parameters.PARAMETERS, "alias_maps", (name, kind, f"hash:{missing}", *rest))
    site.write("")
    main_cf = site.directory / "main.cf"
    main_cf.write_text(main_cf.read_text().replace("alias_maps =\n", ""))
    assert f"{main_cf}: alias_maps: table hash:{missing}: open database {missing}.db: No such" in site.warnings()[0]


POLICY = """\
import os, sys
print("ok")
if "{end}" == "leaves":
    sys.exit("I leave")
class Policy:
    def __init__(self):
        if "{end}" == "fails":
            raise RuntimeError(f"user {{os.getuid()}}")
    async def handle_RCPT(self, server, session, envelope, address, options):
        return "250 OK"
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("fails", "smtpd_python_handler: policy_that_fails:Policy: RuntimeError: user {uid}: give module:Class"),
        ("leaves", "smtpd could not start: the site's code ended it (exit status 1): see smtpd_python_handler"),
        ("", ""),
    ],
)
def test_the_site_s_code_is_loaded_with_the_rights_of_mail_owner(site: Site, end: str, said: str) -> None:
    for parent in (site.directory, *site.directory.parents[:-1]):
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    site.directory.chmod(0o755)
    name = f"policy_that_{end or 'works'}"
    (site.directory / f"{name}.py").write_text(POLICY.format(end=end))
    site.write(f"smtpd_python_handler = {name}:Policy\n")
    if said:
        assert said.format(uid=pwd.getpwnam(OWNER).pw_uid) in site.refusal()
    else:
        assert site.warnings() == []
