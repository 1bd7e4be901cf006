"""Which parameters have an effect: those that main.cf may set and no program reads are warned of at start.

A test looks for every name in the sources, so `IN_EFFECT` is what the programs read: who teaches a program one more
parameter adds its name here.
"""

from collections.abc import Sequence

from postillion.config import parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postillion.config.master_cf import Entry
    from postillion.config.settings import Config


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IN_EFFECT = _words(
    """
    2bounce_notice_recipient alias_database alias_maps allow_mail_to_commands allow_mail_to_files allow_min_user
    allow_percent_hack
    always_add_missing_headers anvil_rate_time_unit anvil_status_update_time append_at_myorigin append_dot_mydomain
    authorized_flush_users authorized_mailq_users authorized_submit_users bounce_notice_recipient
    bounce_queue_lifetime bounce_service_name bounce_size_limit cleanup_replace_stray_cr_lf
    command_execution_directory command_expansion_filter command_time_limit compatibility_level config_directory
    confirm_delay_cleared daemon_directory data_directory default_database_type default_delivery_slot_cost
    default_delivery_slot_discount default_delivery_slot_loan default_destination_concurrency_failed_cohort_limit
    default_destination_concurrency_limit default_destination_concurrency_negative_feedback
    default_destination_concurrency_positive_feedback default_destination_rate_delay
    default_destination_recipient_limit default_extra_recipient_limit default_minimum_delivery_slots default_privs
    default_process_limit default_recipient_limit default_recipient_refill_delay default_recipient_refill_limit
    default_transport default_transport_rate_delay defer_code defer_transports delay_logging_resolution_limit
    delay_notice_recipient delay_warning_time deliver_lock_attempts deliver_lock_delay disable_dns_lookups
    disable_vrfy_command double_bounce_sender enable_long_queue_ids enable_threaded_bounces
    execution_directory_expansion_filter expand_owner_alias export_environment fallback_relay fallback_transport
    fallback_transport_maps fast_flush_domains forward_expansion_filter forward_path frozen_delivered_to
    header_address_token_limit header_from_format header_size_limit home_mailbox hopcount_limit
    ignore_mx_lookup_error import_environment in_flow_delay inet_interfaces inet_protocols
    initial_destination_concurrency invalid_hostname_reject_code known_tcp_ports line_length_limit
    lmtp_address_preference lmtp_balance_inet_protocols lmtp_bind_address lmtp_bind_address6
    lmtp_bind_address_enforce lmtp_connect_timeout
    lmtp_connection_cache_destinations lmtp_connection_cache_on_demand lmtp_connection_cache_time_limit
    lmtp_connection_reuse_count_limit lmtp_connection_reuse_time_limit lmtp_data_done_timeout lmtp_data_init_timeout
    lmtp_data_xfer_timeout lmtp_defer_if_no_mx_address_found lmtp_destination_concurrency_limit
    lmtp_destination_recipient_limit lmtp_discard_lhlo_keywords lmtp_dns_support_level lmtp_host_lookup
    lmtp_lhlo_name lmtp_lhlo_timeout lmtp_line_length_limit lmtp_mail_timeout lmtp_min_data_rate lmtp_mx_address_limit
    lmtp_mx_session_limit lmtp_per_record_deadline lmtp_per_request_deadline
    lmtp_randomize_addresses lmtp_rcpt_timeout lmtp_rset_timeout lmtp_tcp_port local_command_shell
    local_destination_concurrency_limit local_destination_recipient_limit local_header_rewrite_clients
    local_recipient_maps local_transport luser_relay mail_name mail_owner mail_spool_directory mail_version
    mailbox_command mailbox_command_maps mailbox_delivery_lock mailbox_size_limit mailbox_transport
    mailbox_transport_maps maillog_file maillog_file_permissions maillog_file_prefixes master_service_disable
    maximal_backoff_time maximal_queue_lifetime message_drop_headers message_reject_characters message_size_limit
    message_strip_characters minimal_backoff_time multi_instance_name multi_recipient_bounce_reject_code
    mydestination mydomain myhostname mynetworks mynetworks_style myorigin non_fqdn_reject_code notify_classes
    owner_request_special parent_domain_matches_subdomains prepend_delivered_header process_id
    propagate_unmatched_extensions proxy_interfaces qmgr_clog_warn_time qmgr_ipc_timeout qmgr_message_active_limit
    qmgr_message_recipient_limit qmgr_message_recipient_minimum queue_directory queue_minfree queue_run_delay
    queue_service_name recipient_delimiter reject_code relay_destination_concurrency_limit
    relay_destination_recipient_limit relay_domains relay_domains_reject_code relay_recipient_maps relay_transport
    relayhost remote_header_rewrite_domain require_home_directory resolve_numeric_domain sendmail_fix_line_endings service_name
    setgid_group show_user_unknown_table_name showq_service_name smtp_address_preference smtp_always_send_ehlo
    smtp_balance_inet_protocols smtp_bind_address smtp_bind_address6 smtp_bind_address_enforce
    smtp_connect_timeout
    smtp_connection_cache_destinations smtp_connection_cache_on_demand smtp_connection_cache_time_limit
    smtp_connection_reuse_count_limit smtp_connection_reuse_time_limit smtp_data_done_timeout smtp_data_init_timeout
    smtp_data_xfer_timeout smtp_defer_if_no_mx_address_found smtp_destination_concurrency_limit
    smtp_destination_recipient_limit smtp_discard_ehlo_keywords smtp_dns_support_level smtp_fallback_relay
    smtp_helo_name smtp_helo_timeout smtp_host_lookup smtp_line_length_limit smtp_mail_timeout
    smtp_min_data_rate smtp_mx_address_limit smtp_mx_session_limit smtp_per_record_deadline smtp_per_request_deadline
    smtp_never_send_ehlo smtp_randomize_addresses smtp_rcpt_timeout smtp_rset_timeout smtp_skip_5xx_greeting
    smtp_tcp_port smtpd_banner smtpd_client_connection_count_limit smtpd_client_connection_limit_exceptions
    smtpd_client_connection_rate_limit smtpd_client_event_limit_exceptions smtpd_client_ipv4_prefix_length
    smtpd_client_ipv6_prefix_length smtpd_client_message_rate_limit smtpd_client_port_logging
    smtpd_client_recipient_rate_limit smtpd_client_restrictions smtpd_data_restrictions smtpd_delay_reject
    smtpd_discard_ehlo_keywords smtpd_error_sleep_time smtpd_forbid_bare_newline
    smtpd_forbid_bare_newline_exclusions smtpd_forbid_bare_newline_reject_code smtpd_forbid_unauth_pipelining
    smtpd_forbidden_commands smtpd_hard_error_limit smtpd_helo_required smtpd_helo_restrictions
    smtpd_junk_command_limit smtpd_min_data_rate smtpd_noop_commands smtpd_peername_lookup smtpd_per_record_deadline
    smtpd_per_request_deadline smtpd_python_handler smtpd_python_handler_default_action
    smtpd_python_handler_timeout smtpd_recipient_limit smtpd_recipient_overshoot_limit smtpd_recipient_restrictions
    smtpd_reject_unlisted_recipient smtpd_relay_before_recipient_restrictions smtpd_relay_restrictions
    smtpd_restriction_classes smtpd_sasl_auth_enable smtpd_sasl_authenticated_header smtpd_sasl_response_limit
    smtpd_sender_restrictions smtpd_soft_error_limit smtpd_timeout smtpd_tls_auth_only smtputf8_enable
    soft_bounce stale_lock_time stress strict_mailbox_ownership strict_rfc821_envelopes strict_smtputf8
    swap_bangpath syslog_facility syslog_name transport_maps transport_retry_time undisclosed_recipients_header
    unknown_client_reject_code unknown_local_recipient_reject_code unknown_relay_recipient_reject_code
    unknown_virtual_alias_reject_code unknown_virtual_mailbox_reject_code virtual_alias_domains
    virtual_destination_concurrency_limit virtual_destination_recipient_limit virtual_mailbox_domains
    virtual_mailbox_maps virtual_transport
    """
)

TEMPLATES_IN_EFFECT = _words(
    """
    _delivery_slot_cost _delivery_slot_discount _delivery_slot_loan _destination_concurrency_failed_cohort_limit
    _destination_concurrency_limit _destination_concurrency_negative_feedback
    _destination_concurrency_positive_feedback _destination_rate_delay _destination_recipient_limit
    _extra_recipient_limit _initial_destination_concurrency _minimum_delivery_slots _recipient_limit
    _recipient_refill_delay _recipient_refill_limit _transport_rate_delay
    """
)
"""The suffixes of a transport's own parameters, as in `relay_destination_rate_delay`."""

NOT_MISSED = _words(
    """
    biff command_directory debug_peer_level debug_peer_list debugger_command html_directory mailq_path
    manpage_directory meta_directory newaliases_path openssl_path readme_directory sample_directory sendmail_path
    shlib_directory
    """
)
"""Places and conveniences of Postfix's own installation: a site that sets them loses nothing."""


def warnings(config: "Config", entries: Sequence["Entry"]) -> list[str]:
    """Return a line for each known parameter that main.cf, or `-o` in `entries`, sets and no program reads.

    A value that is the default is what happens anyway, so it gives none. One more line names the services that
    master.cf wants in a chroot jail.
    """
    found = []
    for name, setting in config.settings.items():
        if has_no_effect(name) and _differs(config, name, setting.value):
            found.append(_line(setting.path, setting.line, name, setting.value))
    for entry in entries:
        for name, value in entry.overrides():
            if has_no_effect(name) and _differs(config, name, value):
                found.append(_line(entry.path, entry.line, name, value))
    jailed = [entry for entry in entries if entry.chroot]
    if jailed:
        names = ", ".join(entry.service for entry in jailed)
        found.append(f'{jailed[0].path}: "y" in the chroot field has no effect yet: {names}')
    return found


def has_no_effect(name: str) -> bool:
    """Is this a parameter of Postfix that no program here reads?"""
    if name in IN_EFFECT or name in NOT_MISSED or parameters.row(name) is None:
        return False
    return parameters.template_suffix(name) not in TEMPLATES_IN_EFFECT


def _differs(config: "Config", name: str, value: str) -> bool:
    return value.split() != config.default(name).split()


def _line(path: str, line: int | None, name: str, value: str) -> str:
    place = path if line is None else f"{path}, line {line}"
    return f"{place}: {name}={value} has no effect: Postillion does not read this parameter yet"
