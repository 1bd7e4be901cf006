"""Relay control and restriction lists, without an SMTP session."""

import re
from pathlib import Path

import pytest

from postillion.address.classes import Class
from postillion.address.destination import Destinations
from postillion.checks.check import ACCEPT, Remember
from postillion.checks.reply import Reply
from postillion.config import Config, ConfigError
from postillion.restrictions.__main__ import page
from postillion.restrictions.access import Access
from postillion.restrictions.language import require_relay_control
from postillion.restrictions.rows import ROWS, SECTIONS, Row
from postillion.tables.lists import DomainList, NetworkList
from support.dialogue import AtRcpt, ClientFacts, answered, site
from support.mta import wait_for
from support.peers import peer

FUNCTIONS_OF_SMTPD = {
    *("check_access", "check_addr_access", "check_address_map", "check_domain_access", "check_mail_access"),
    *("check_namadr_access", "check_server_access", "check_table_result", "permit_dnswl_addr", "permit_dnswl_domain"),
    *("permit_mx_backup_networks", "permit_mx_primary", "reject_invalid_hostaddr", "reject_non_fqdn_address"),
    *("reject_rbl_addr", "reject_rbl_domain", "reject_unknown_mailhost", "reject_unknown_reverse_name"),
    *("reject_unverified_address", "reject_warning"),
}
"""Names of functions in Postfix's smtpd, in the form of restrictions."""
STRICT = ["smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination"]


def access(directory: Path, options: list[str]) -> Access:
    return Access(site(directory, options), lambda _: None)


def at_rcpt(checks: Access, recipient: str, client: ClientFacts | None = None) -> Reply | None:
    """Return the refusal of a recipient, None if it is accepted."""
    return answered(checks.rcpt(client or ClientFacts(), AtRcpt(recipient=recipient))).reply


RELAY_ATTEMPTS = [
    "x@victim.example",
    "x%victim.example@example.org",
    "x%victim.example@[127.0.0.1]",
    "x%victim.example",
    '"x%victim.example"',
    '"x%victim.example"@example.org',
    '"x@victim.example"',
    '"x@victim.example"@example.org',
    '"x@victim.example"@[127.0.0.1]',
    "victim.example!x",
    "victim.example!x@example.org",
    "victim.example!x@[127.0.0.1]",
    "example.org!victim.example!x",
    "x@victim.example%example.org@example.org",
    "x%victim.example%example.org@example.org",
    "x@victim.example.",
    "x@example.org.victim.example",
    "x@victim-example.org",
    "postmaster@victim.example",
    "X@VICTIM.EXAMPLE",
    "x%VICTIM.example@EXAMPLE.org",
    "x+tag%victim.example@example.org",
    "x%victim.example@relay.example",
    '"x@victim.example"@relay.example',
    "victim.example!x@relay.example",
    "x%victim.example@localhost",
    "x%relay.example%victim.example@example.org",
    "x@[192.0.2.9]",
    "x@[IPv6:2001:db8::1]",
    '"x\\@victim.example"@example.org',
    "user%victim.example@example.org",
]


@pytest.mark.parametrize("recipient", RELAY_ATTEMPTS)
def test_no_address_form_relays_for_an_unauthorized_client(recipient: str, tmp_path: Path) -> None:
    refusal = at_rcpt(access(tmp_path, STRICT), recipient)
    assert refusal == (554, "5.7.1", f"<{recipient}>: Relay access denied")


@pytest.mark.parametrize(
    "recipient",
    [
        "user@example.org",
        "USER@Example.ORG",
        "user@localhost",
        "user@[127.0.0.1]",
        "user",
        '"user"@example.org',
        "user@example.org.",
        "anybody@relay.example",
        "anybody@sub.relay.example",
        "postmaster",
        "user%relay.example@example.org",
        "relay.example!user@example.org",
        '"user@relay.example"@localhost',
        "relay.example!user",
        "user%localhost@example.org",
    ],
)
def test_own_addresses_are_accepted_from_any_client(recipient: str, tmp_path: Path) -> None:
    options = [*STRICT, "parent_domain_matches_subdomains = relay_domains", "myorigin = example.org"]
    assert at_rcpt(access(tmp_path, options), recipient) is None


@pytest.mark.parametrize(("allowed", "refused"), [("no", True), ("yes", False)])
def test_address_with_operators_is_relayed_where_the_site_trusts_strangers(
    allowed: str, refused: bool, tmp_path: Path
) -> None:
    checks = access(tmp_path, [*STRICT, f"allow_untrusted_routing = {allowed}"])
    assert (at_rcpt(checks, "x%victim.example@relay.example") is not None) is refused
    assert at_rcpt(checks, "x%victim.example@example.org") is not None


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("gone@relay.example", (550, "5.1.6", "User has moved to there")),
        ("x@error.relay.example", (550, "5.7.1", "not here")),
        ("x@plain.relay.example", (550, "5.1.1", "Address is undeliverable")),
        ("x@retry.relay.example", (450, "4.4.4", "not now")),
        ("user@example.org", None),
        ("renamed@example.org", None),
    ],
)
def test_recipient_whose_mail_would_bounce_is_refused(
    recipient: str, reply: tuple[int, str, str] | None, tmp_path: Path
) -> None:
    options = [
        "parent_domain_matches_subdomains = relay_domains",
        "relocated_maps = inline:{ {gone@relay.example=there}, {renamed@example.org=x} }",
        "recipient_canonical_maps = inline:{ {renamed@example.org=user@example.org} }",
        "transport_maps = inline:{ {error.relay.example=error:4.7.1 not here}, {plain.relay.example=error:}, "
        "{retry.relay.example=retry:5.4.4 not now} }",
    ]
    checks = access(tmp_path, [*STRICT, *options])
    text = None if reply is None else (*reply[:2], f"<{recipient}>: Recipient address rejected: {reply[2]}")
    assert at_rcpt(checks, recipient) == text
    # Its neighbour may have another route, so the acceptance is for one recipient.
    assert checks.accepted_with("y@relay.example") == Remember("y@relay.example")


def test_an_alias_at_a_domain_whose_mail_bounces_is_remembered_for_the_aliases_there(tmp_path: Path) -> None:
    options = [
        "parent_domain_matches_subdomains = relay_domains",
        "virtual_alias_maps = inline:{ {alias@error.relay.example=user@example.org} }",
        "transport_maps = inline:{ {error.relay.example=error:} }",
    ]
    checks = access(tmp_path, [*STRICT, *options])
    alias, unknown = "alias@error.relay.example", "unknown@error.relay.example"
    assert at_rcpt(checks, alias) is None
    assert checks.accepted_with(alias) == Remember("@error.relay.example", "aliases")
    assert [table.lookup(alias) for table in checks.recipient_tables.aliases] == ["user@example.org"]
    refusal = at_rcpt(checks, unknown)
    assert refusal is not None
    assert refusal[0] == 550
    assert checks.accepted_with("y@relay.example") == Remember("@relay.example")


@pytest.mark.parametrize(
    ("options", "recipient", "expected"),
    [
        ([], "user@example.org", Remember("@example.org", "local")),
        ([], "postmaster@example.org", Remember("postmaster@example.org")),
        (["local_recipient_maps ="], "postmaster@example.org", Remember("@example.org")),
        (["local_recipient_maps ="], "user", None),
        (["relay_recipient_maps = inline:{ y@relay.example=x }"],
            "y@relay.example", Remember("@relay.example", "relay")),
        (["relay_recipient_maps = inline:{ y@relay.example=x }"],
            "y@RELAY.example", Remember("y@RELAY.example")),
        (["virtual_mailbox_domains = box.example", "virtual_mailbox_maps = inline:{ y@box.example=y }"],
            "y@box.example", Remember("@box.example", "virtual")),
        (["virtual_alias_domains = alias.example", "virtual_alias_maps = inline:{ y@alias.example=y }"],
            "y@alias.example", Remember("@alias.example", "aliases")),
        (["smtpd_reject_unlisted_recipient = no"], "user@example.org", Remember("@example.org")),
        (["receive_override_options = no_unknown_recipient_checks"], "user@example.org", Remember("@example.org")),
        ([], "user%relay.example@example.org", Remember("user%relay.example@example.org")),
    ],
)  # fmt: skip
def test_an_acceptance_is_remembered_for_the_listed_recipients_of_the_domain(
    options: list[str], recipient: str, expected: Remember | None, tmp_path: Path
) -> None:
    assert access(tmp_path, [*STRICT, *options]).accepted_with(recipient) == expected


def test_nothing_is_remembered_while_routes_depend_on_the_sender(tmp_path: Path) -> None:
    checks = access(tmp_path, [*STRICT, "sender_dependent_default_transport_maps = inline:{ {@a.example=error:no} }"])
    assert checks.accepted_with("y@relay.example") is None


def test_client_in_mynetworks_may_send_anywhere(tmp_path: Path) -> None:
    assert at_rcpt(access(tmp_path, STRICT), "x@victim.example", ClientFacts(trusted=True)) is None


def test_client_in_mynetworks_needs_a_known_local_recipient(tmp_path: Path) -> None:
    refusal = at_rcpt(access(tmp_path, STRICT), "nobody-here@example.org", ClientFacts(trusted=True))
    assert refusal is not None
    assert refusal[:2] == (550, "5.1.1")


@pytest.mark.parametrize(
    ("recipient", "options", "text"),
    [
        ("x@example.org", [], "User unknown in local recipient table"),
        ("x@example.org", ["show_user_unknown_table_name = no"], "User unknown"),
        ("x@relay.example", ["relay_recipient_maps = inline:{ y@relay.example=x }"], "in relay recipient table"),
        ("y@relay.example", ["relay_recipient_maps = inline:{ y@relay.example=x }"], None),
        ("z@relay.example", ["relay_recipient_maps = inline:{ @relay.example=x }"], None),
        ("x@virtual.example", ["virtual_alias_domains = virtual.example"], "in virtual alias table"),
        (
            "x@virtual.example",
            ["virtual_alias_domains = virtual.example", "virtual_alias_maps = inline:{ x@virtual.example=user }"],
            None,
        ),
        (
            "x@box.example",
            ["virtual_mailbox_domains = box.example", "virtual_mailbox_maps = inline:{ y@box.example=y }"],
            "in virtual mailbox table",
        ),
        ("user+tag@example.org", ["recipient_delimiter = +"], None),
        ("user+tag@example.org", [], "User unknown"),
        ("x@example.org", ["local_recipient_maps ="], None),
        ("x@example.org", ["smtpd_reject_unlisted_recipient = no"], None),
    ],
)
def test_unknown_recipients_are_refused(recipient: str, options: list[str], text: str | None, tmp_path: Path) -> None:
    refusal = at_rcpt(access(tmp_path, [*STRICT, *options]), recipient)
    if text is None:
        assert refusal is None
    else:
        assert refusal is not None
        assert refusal[:2] == (550, "5.1.1")
        assert text in refusal[2]


def test_failing_table_is_a_temporary_refusal(tmp_path: Path) -> None:
    for options in (["local_recipient_maps = fail:x"], ["mydestination = fail:x"]):
        refusal = at_rcpt(access(tmp_path, [*STRICT, *options]), "user@example.org")
        assert refusal == (451, "4.3.0", "<user@example.org>: Temporary lookup failure")


def test_new_user_in_table_is_found(tmp_path: Path) -> None:
    table = tmp_path / "users"
    table.write_text("one x\n")
    checks = access(tmp_path, [*STRICT, f"local_recipient_maps = texthash:{table}"])
    assert at_rcpt(checks, "two@example.org") is not None
    table.write_text("one x\ntwo x\n")
    wait_for("the table to be read again", lambda: at_rcpt(checks, "two@example.org") is None)


def test_restriction_lists_end_at_first_result(tmp_path: Path) -> None:
    options = [
        "smtpd_client_restrictions = permit_mynetworks, reject_unknown_client_hostname",
        "smtpd_recipient_restrictions = permit_auth_destination, defer",
    ]
    checks = access(tmp_path, [*STRICT, *options])
    refusal = at_rcpt(checks, "user@example.org")
    assert refusal == (450, "4.7.25", "Client host rejected: cannot find your hostname, [192.0.2.1]")
    assert at_rcpt(checks, "user@example.org", ClientFacts(name="client.example")) is None
    refusal = at_rcpt(checks, "x@victim.example", ClientFacts(trusted=True))
    assert refusal == (450, "4.3.2", "<x@victim.example>: Recipient address rejected: Try again later")


def test_relay_restrictions_come_before_or_after_recipient_restrictions(tmp_path: Path) -> None:
    options = [*STRICT, "smtpd_recipient_restrictions = reject"]
    first = at_rcpt(access(tmp_path, options), "x@victim.example")
    assert first is not None
    assert first.text.endswith("Relay access denied")
    options.append("smtpd_relay_before_recipient_restrictions = no")
    first = at_rcpt(access(tmp_path, options), "x@victim.example")
    assert first is not None
    assert first.text.endswith("Access denied")
    assert first.text.startswith("<x@victim.example>: Recipient")


def test_multi_recipient_bounce_is_refused_at_data(tmp_path: Path) -> None:
    checks = access(tmp_path, [*STRICT, "smtpd_data_restrictions = reject_multi_recipient_bounce"])
    assert "data" in checks.stages
    assert checks.data(ClientFacts(), AtRcpt(sender="", recipient_count=1)) == ACCEPT
    refusal = answered(checks.data(ClientFacts(), AtRcpt(sender="", recipient_count=2))).reply
    assert refusal == (550, "5.5.3", "<DATA>: Data command rejected: Multi-recipient bounce")


def test_second_recipient_of_a_bounce_is_refused_at_rcpt(tmp_path: Path) -> None:
    checks = access(tmp_path, [*STRICT, "smtpd_recipient_restrictions = reject_multi_recipient_bounce"])
    first, second = "user@example.org", "root@example.org"
    assert checks.rcpt(ClientFacts(), AtRcpt(sender="", recipient=first)) == ACCEPT
    refusal = answered(checks.rcpt(ClientFacts(), AtRcpt(sender="", recipient=second, recipient_count=1))).reply
    assert refusal == (550, "5.5.3", "<root@example.org>: Recipient address rejected: Multi-recipient bounce")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("smtpd_recipient_restrictions = reject_unauth_destinations", '"reject_unauth_destinations" is no restriction'),
        ("smtpd_client_restrictions = reject_rbl_client zen.example", '"reject_rbl_client" is not supported yet'),
        ("smtpd_helo_restrictions = hash:/etc/access", '"hash:/etc/access" is not supported yet'),
        ("smtpd_sender_restrictions = check_relay_domains", "use permit_mynetworks, reject_unauth_destination"),
        ("smtpd_relay_restrictions = permit_mynetworks", "would relay mail for everybody"),
        ("mynetworks = 127.0.0.0/8, user@localhost", '"user@localhost" is neither a network nor a host name'),
        ("mynetworks = 127.0.0.1/8", '"127.0.0.1/8" is neither a network nor a host name'),
        ("mynetworks = 127.0.0.300", '"127.0.0.300" is neither a network nor a host name'),
    ],
)
def test_invalid_restriction_list_is_refused_at_start(option: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as stopped:
        access(tmp_path, [option])
    assert message in str(stopped.value)
    assert "main.cf, line" in str(stopped.value)


@pytest.mark.parametrize(
    ("lists", "line"),
    [
        ("smtpd_recipient_restrictions = permit_mynetworks\n", ", line 2: "),
        ("smtpd_recipient_restrictions =\nsmtpd_relay_restrictions = permit_mynetworks\n", ", line 3: "),
        ("", ": "),
    ],
)
def test_missing_relay_control_is_reported_at_the_lists_that_are_set(lists: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"mynetworks = 127.0.0.0/8\n{lists}")
    with pytest.raises(ConfigError) as stopped:
        require_relay_control(Config.load(str(tmp_path)))
    assert str(stopped.value).startswith(f"{tmp_path}/main.cf{line}smtpd_relay_restrictions and smtpd_recipient_restr")


def test_networks_are_matched_in_order(tmp_path: Path) -> None:
    file = tmp_path / "more"
    file.write_text("198.51.100.0/24\n")
    nets = f"mynetworks = !192.0.2.7, 192.0.2.0/24, [2001:db8::]/32, [::1], {file}"
    networks = NetworkList("mynetworks", site(tmp_path, [nets]))
    for address, inside in [
        ("192.0.2.1", True),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.1", True),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("::1", True),
        ("198.51.100.9", True),
        ("203.0.113.1", False),
        ("unknown", False),
    ]:
        assert networks.matches(address, "") is inside, address


@pytest.mark.parametrize(
    ("parents", "inside"),
    [
        ("mynetworks", {"mx.example.com", "a.example.org", "b.a.example.org", "example.org", "t.example"}),
        ("", {"mx.example.com", "example.org", "a.example.net", "t.example"}),
    ],
)
def test_host_names_match_the_name_of_the_client(parents: str, inside: set[str], tmp_path: Path) -> None:
    options = [
        "mynetworks = 192.0.2.0/24, MX.example.com, !c.example.org, example.org, .example.net",
        "    inline:{ { t.example = } }",
        f"parent_domain_matches_subdomains = {parents}",
    ]
    networks = NetworkList("mynetworks", site(tmp_path, options))
    names = {"mx.example.com", "example.com", "example.org", "a.example.org", "b.a.example.org", "c.example.org"}
    names |= {"a.example.net", "example.net", "t.example"}
    assert {name for name in names if networks.matches("203.0.113.1", name)} == inside
    assert networks.matches("203.0.113.1", "") is False
    assert networks.matches("192.0.2.5", "") is True


@pytest.mark.parametrize(
    ("parents", "listed"),
    [("relay_domains", {"example.com", "a.example.com", "table.example"}), ("", {"example.com", "a.example.net"})],
)
def test_parent_domain_matches_subdomains_is_followed(parents: str, listed: set[str], tmp_path: Path) -> None:
    options = [
        "relay_domains = !not.example.com example.com .example.net inline:{ table.example=x }",
        f"parent_domain_matches_subdomains = {parents}",
    ]
    relay = DomainList("relay_domains", site(tmp_path, options))
    domains = {"example.com", "a.example.com", "not.example.com", "example.net", "a.example.net", "example"}
    assert {domain for domain in domains if domain in relay} == listed - {"table.example"}
    assert "table.example" in relay
    assert ("sub.table.example" in relay) is bool(parents)


def test_addresses_are_classified(tmp_path: Path) -> None:
    destinations = Destinations(site(tmp_path, ["virtual_mailbox_domains = box.example"]))
    for address, kind, routed in [
        ("user@example.org", Class.LOCAL, False),
        ("user", Class.DEFAULT, False),
        ("user@mx.example.org", Class.DEFAULT, False),
        ("user@BOX.example", Class.VIRTUAL_MAILBOX, False),
        ("user@relay.example", Class.RELAY, False),
        ("user@far.example", Class.DEFAULT, False),
        ("user%far.example@relay.example", Class.RELAY, True),
        ("user%far.example@example.org", Class.DEFAULT, False),
        ("user%far.example%relay.example@example.org", Class.RELAY, True),
        ("user%relay.example@example.org", Class.RELAY, False),
        ("relay.example!user@example.org", Class.RELAY, False),
        ('"user@relay.example"@example.org', Class.RELAY, False),
        ("%@example.org", Class.DEFAULT, False),
        ("user%example.org@example.org", Class.LOCAL, False),
    ]:
        found = destinations.of(address)
        assert (found.kind, found.routed) == (kind, routed), address
    assert destinations.of("%".join(["x"] * 500) + "@example.org").routed


@pytest.mark.parametrize(("protocols", "kind"), [("ipv4", Class.DEFAULT), ("all", Class.LOCAL), ("ipv6", Class.LOCAL)])
def test_literal_is_local_only_for_a_protocol_in_use(tmp_path: Path, protocols: str, kind: Class) -> None:
    config = site(tmp_path, ["inet_interfaces = [::1]", f"inet_protocols = {protocols}", *STRICT])
    assert Destinations(config).of("user@[IPv6:::1]").kind is kind


@pytest.mark.parametrize(("numeric", "kind"), [("no", Class.DEFAULT), ("yes", Class.LOCAL)])
def test_numeric_domain_is_a_literal_where_the_site_allows_it(tmp_path: Path, numeric: str, kind: Class) -> None:
    options = ["inet_interfaces = 127.0.0.1", f"resolve_numeric_domain = {numeric}", *STRICT]
    assert Destinations(site(tmp_path, options)).of("user@127.0.0.1").kind is kind


def test_the_page_about_restrictions_is_printed_from_the_rows() -> None:
    docs = Path(__file__).parent.parent / "docs" / "restrictions.md"
    assert docs.read_text() == page(), "python -m postillion.restrictions > docs/restrictions.md"


def test_each_restriction_of_postfix_has_one_row() -> None:
    names = [row.name for section in SECTIONS.values() for row in section]
    assert len(names) == len(set(names)) == len(ROWS)
    peer("postfix")
    program = Path("/usr/lib/postfix/sbin/smtpd").read_bytes()
    assert [name for name in names if name.encode() + b"\0" not in program] == []
    texts = set(re.findall(rb"(?<=\0)(?:check|permit|reject|defer|warn)_[a-z_]+(?=\0)", program))
    others = {text.decode() for text in texts if not text.startswith(b"warn_compat_")} - set(names)
    assert others <= FUNCTIONS_OF_SMTPD


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row.function is None], ids=lambda row: row.name)
def test_a_restriction_that_is_not_here_stops_the_start(row: Row, tmp_path: Path) -> None:
    argument = f" {row.argument.value}" if row.argument.value else ""
    with pytest.raises(ConfigError, match=r"is not supported yet|has no more"):
        access(tmp_path, [f"smtpd_recipient_restrictions = {row.name.upper()}{argument}, reject_unauth_destination"])


def test_a_missing_argument_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='"check_client_access" must be followed by a type:table'):
        access(tmp_path, ["smtpd_client_restrictions = check_client_access"])


def test_a_restriction_behind_permit_is_ignored_with_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    options = [*STRICT, "smtpd_recipient_restrictions = permit, reject"]
    asked = Access(site(tmp_path, options), warnings.append)
    assert at_rcpt(asked, "user@example.org") is None
    assert warnings == ['smtpd_recipient_restrictions: restriction "reject" after "permit" is ignored']


@pytest.mark.parametrize(
    ("restriction", "remembers"),
    [
        ("permit_mynetworks", True),
        ("PERMIT_SASL_AUTHENTICATED", True),
        ("reject_unlisted_recipient", True),
        ("reject_non_fqdn_sender", False),
        ("reject_unauth_pipelining", False),
        ("reject_invalid_helo_hostname", False),
    ],
)
def test_an_acceptance_is_remembered_as_the_rows_read(restriction: str, remembers: bool, tmp_path: Path) -> None:
    asked = access(tmp_path, [*STRICT, f"smtpd_recipient_restrictions = {restriction}"])
    assert asked.remembers is remembers


CLASSES = [
    "mydestination = example.org",
    "local_recipient_maps =",
    "smtpd_restriction_classes = Strict, loose, empty",
    "smtpd_reject_unlisted_recipient = no",
]


@pytest.mark.parametrize(
    ("lists", "recipient", "refused"),
    [
        (["smtpd_recipient_restrictions = strict, permit", "Strict = reject_unauth_destination"], "a@b.example", True),
        (
            ["smtpd_recipient_restrictions = strict, reject", "Strict = reject_unauth_destination"],
            "a@example.org",
            True,
        ),
        (
            ["smtpd_recipient_restrictions = STRICT, permit", "Strict = reject_unauth_destination"],
            "a@example.org",
            False,
        ),
        (
            [
                "smtpd_recipient_restrictions = loose, reject",
                "loose = strict, permit",
                "Strict = reject_unauth_destination",
            ],
            "a@example.org",
            False,
        ),
        (
            ["smtpd_recipient_restrictions = empty loose", "loose = $Strict", "Strict = reject_unauth_destination"],
            "a@b.example",
            True,
        ),
    ],
)
def test_class_stands_for_its_restrictions(tmp_path: Path, lists: list[str], recipient: str, refused: bool) -> None:
    checks = access(tmp_path, [*CLASSES, "smtpd_relay_restrictions =", *lists])
    assert (at_rcpt(checks, recipient) is not None) == refused


def test_relay_control_may_stand_in_a_class(tmp_path: Path) -> None:
    own = ["smtpd_relay_restrictions = strict", "Strict = permit_mynetworks, loose"]
    access(tmp_path, [*CLASSES, *own, "loose = reject_unauth_destination"])
    with pytest.raises(ConfigError, match="would relay mail for everybody"):
        access(tmp_path, [*CLASSES, *own, "loose = permit_mynetworks"])


def test_addresses_of_bounces_need_no_table(tmp_path: Path) -> None:
    own = ["mydestination = example.org", "local_recipient_maps = inline:{a=b}", "double_bounce_sender = Gone"]
    checks = access(tmp_path, [*STRICT, *own])
    for local in ("gone", "GONE", "postmaster", "MAILER-DAEMON"):
        assert at_rcpt(checks, f"{local}@example.org") is None, local
    for local in ("double-bounce", "gone+x", "nobody"):
        refusal = at_rcpt(checks, f"{local}@example.org")
        assert refusal is not None, local
        assert refusal[:2] == (550, "5.1.1"), local
