"""Parameters of the system: directories, processes, logging, tables, instances, names of services.

Rows: name, kind (see kinds.py), default, what it is."""

ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("alternate_config_directories", "list", "", ""),
    ("application_event_drain_time", "time 1..", "100s", ""),
    ("berkeley_db_create_buffer_size", "number 1..", "16777216", ""),
    ("berkeley_db_read_buffer_size", "number 1..", "131072", ""),
    ("bounce_service_name", "text 1..", "bounce", ""),
    ("cleanup_service_name", "text 1..", "cleanup", ""),
    ("command_directory", "path 1..", "/usr/sbin", ""),
    ("compatibility_level", "text 1..", "0", ""),
    ("config_directory", "path", "computed:config_directory", ""),
    ("connection_cache_protocol_timeout", "time 1..", "5s", ""),
    ("connection_cache_service_name", "text 1..", "scache", ""),
    ("connection_cache_status_update_time", "time 1..", "600s", ""),
    ("connection_cache_ttl_limit", "time 1..", "2s", ""),
    ("daemon_directory", "path 1..", "/usr/libexec/postfix", ""),
    ("daemon_table_open_error_is_fatal", "flag", "no", ""),
    ("daemon_timeout", "time 1..", "18000s", ""),
    ("data_directory", "path 1..", "/var/lib/postfix", ""),
    ("debug_peer_level", "number 1..", "2", ""),
    ("debug_peer_list", "match", "", ""),
    ("debugger_command", "text", "", ""),
    ("default_cache_db_type", "text 1..", "btree", ""),
    ("default_database_type", "text 1..", "hash", ""),
    ("default_process_limit", "number 1..", "100", ""),
    ("defer_service_name", "text 1..", "defer", ""),
    ("disable_dns_lookups", "flag", "no", ""),
    ("dns_ncache_ttl_fix_enable", "flag", "no", ""),
    ("dnssec_probe", "text", "ns:.", ""),
    ("domain_to_ascii", "text", "", ""),
    ("error_service_name", "text 1..", "error", ""),
    ("export_environment", "list", "TZ MAIL_CONFIG LANG", ""),
    ("fault_injection_code", "number 0..", "0", ""),
    ("flush_service_name", "text 1..", "flush", ""),
    ("fork_attempts", "number 1..", "5", ""),
    ("fork_delay", "time 1..", "1s", ""),
    ("html_directory", "path 1..", "no", ""),
    (
        "import_environment",
        "list",
        "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE "
        "POSTLOG_HOSTNAME XDG_RUNTIME_DIR",
        "",
    ),
    ("ipc_idle", "time 1..", "5s", ""),
    ("ipc_timeout", "time 1..", "3600s", ""),
    ("ipc_ttl", "time 1..", "1000s", ""),
    ("known_tcp_ports", "list", "lmtp=24, smtp=25, smtps=submissions=465, submission=587", ""),
    ("lmdb_map_size", "number 1..", "16777216", ""),
    ("mail_name", "text 1..", "Postfix", ""),
    ("mail_owner", "text 1..", "postfix", ""),
    ("mail_release_date", "text 1..", "20260821", ""),
    ("mail_version", "text 1..", "3.12.0", ""),
    ("maillog_file", "path", "", ""),
    ("maillog_file_compressor", "text 1..", "gzip", ""),
    ("maillog_file_permissions", "text 1..", "0600", ""),
    ("maillog_file_prefixes", "list 1..", "/var, /dev/stdout", ""),
    ("maillog_file_rotate_suffix", "text 1..", "%Y%m%d-%H%M%S", ""),
    ("mailq_path", "path 1..", "/usr/bin/mailq", ""),
    ("manpage_directory", "path 1..", "/usr/local/man", ""),
    ("master_service_disable", "list", "", ""),
    ("max_idle", "time 1..", "100s", ""),
    ("max_use", "number 1..", "100", ""),
    ("meta_directory", "path 1..", "/etc/postfix", ""),
    ("multi_instance_directories", "list", "", ""),
    ("multi_instance_enable", "flag", "no", ""),
    ("multi_instance_group", "text", "", ""),
    ("multi_instance_name", "text", "", ""),
    ("multi_instance_wrapper", "text", "", ""),
    ("newaliases_path", "path 1..", "/usr/bin/newaliases", ""),
    ("non_bdb_custom_mapping", "text", "", ""),
    ("non_bdb_migration_allow_root_prefixes", "list", "/etc /usr/local/etc", ""),
    ("non_bdb_migration_allow_user_prefixes", "list", "$data_directory /var/lib/mailman /var/lib/mailman3", ""),
    ("non_bdb_migration_level", "text 1..", "disable", ""),
    ("non_bdb_migration_log_redirect", "flag", "yes", ""),
    ("non_bdb_migration_service_name", "text", "nbdb_reindex", ""),
    ("pickup_service_name", "text 1..", "pickup", ""),
    ("postlog_service_name", "text 1..", "postlog", ""),
    ("postlogd_watchdog_timeout", "time 10..", "10s", ""),
    ("postmulti_control_commands", "list", "reload flush", ""),
    ("postmulti_start_commands", "list", "start", ""),
    ("postmulti_stop_commands", "list", "stop abort drain quick-stop", ""),
    ("process_id", "text", "computed:process_id", ""),
    ("process_id_directory", "path 1..", "pid", ""),
    ("process_name", "text", "computed:process_name", ""),
    ("proxy_read_access_list", "list", "reject", ""),
    (
        "proxy_read_maps",
        "maps",
        "$local_recipient_maps $mydestination $virtual_alias_maps $virtual_alias_domains "
        "$virtual_mailbox_maps $virtual_mailbox_domains $relay_recipient_maps $relay_domains "
        "$canonical_maps $sender_canonical_maps $recipient_canonical_maps $relocated_maps "
        "$transport_maps $mynetworks $smtpd_sender_login_maps $sender_bcc_maps $recipient_bcc_maps "
        "$smtp_generic_maps $lmtp_generic_maps $alias_maps $smtpd_client_restrictions "
        "$smtpd_helo_restrictions $smtpd_sender_restrictions $smtpd_relay_restrictions "
        "$smtpd_recipient_restrictions $address_verify_sender_dependent_default_transport_maps "
        "$address_verify_sender_dependent_relayhost_maps $address_verify_transport_maps "
        "$fallback_transport_maps $lmtp_discard_lhlo_keyword_address_maps $lmtp_pix_workaround_maps "
        "$lmtp_sasl_password_maps $lmtp_tls_policy_maps $mailbox_command_maps $mailbox_transport_maps "
        "$postscreen_discard_ehlo_keyword_address_maps $rbl_reply_maps "
        "$sender_dependent_default_transport_maps $sender_dependent_relayhost_maps "
        "$smtp_discard_ehlo_keyword_address_maps $smtp_pix_workaround_maps $smtp_sasl_password_maps "
        "$smtp_tls_policy_maps $smtpd_discard_ehlo_keyword_address_maps $smtpd_milter_maps "
        "$virtual_gid_maps $virtual_uid_maps $local_login_sender_maps $postscreen_reject_footer_maps "
        "$smtpd_reject_footer_maps $tls_server_sni_maps $tlsproxy_client_policy_maps "
        "$default_delivery_status_filter $lmtp_delivery_status_filter $lmtp_dns_reply_filter "
        "$lmtp_reply_filter $local_delivery_status_filter $pipe_delivery_status_filter "
        "$postscreen_command_filter $smtp_delivery_status_filter $smtp_dns_reply_filter "
        "$smtp_reply_filter $smtpd_command_filter $smtpd_dns_reply_filter "
        "$virtual_delivery_status_filter $body_checks $header_checks $lmtp_body_checks "
        "$lmtp_header_checks $lmtp_mime_header_checks $lmtp_nested_header_checks $milter_header_checks "
        "$mime_header_checks $nested_header_checks $smtp_body_checks $smtp_header_checks "
        "$smtp_mime_header_checks $smtp_nested_header_checks $smtpd_reject_filter_maps $debug_peer_list "
        "$smtpd_etrn_restrictions $fast_flush_domains $authorized_flush_users "
        "$lmtp_connection_cache_destinations $local_header_rewrite_clients $masquerade_exceptions "
        "$postscreen_access_list $postscreen_allowlist_interfaces $postscreen_forbidden_commands "
        "$qmqpd_authorized_clients $authorized_mailq_users $smtp_connection_cache_destinations "
        "$smtpd_log_access_permit_actions $smtpd_forbidden_commands $smtpd_client_event_limit_exceptions "
        "$smtpd_sasl_exceptions_networks $smtpd_sasl_mechanism_filter $smtp_requiretls_policy "
        "$smtp_sasl_mechanism_filter $authorized_submit_users $smtpd_authorized_verp_clients "
        "$smtpd_authorized_xclient_hosts $smtpd_authorized_xforward_hosts $lmtp_tls_loglevel_maps "
        "$postscreen_tls_loglevel_maps $smtp_tls_loglevel_maps $smtpd_tls_loglevel_maps",
        "",
    ),
    ("proxy_write_access_list", "list", "reject", ""),
    (
        "proxy_write_maps",
        "maps",
        "$smtp_sasl_auth_cache_name $lmtp_sasl_auth_cache_name $address_verify_map $postscreen_cache_map",
        "",
    ),
    ("proxymap_service_name", "text 1..", "proxymap", ""),
    ("proxywrite_service_name", "text 1..", "proxywrite", ""),
    ("queue_directory", "path 1..", "/var/spool/postfix", ""),
    ("queue_service_name", "text 1..", "qmgr", ""),
    ("readme_directory", "path 1..", "no", ""),
    ("respectful_logging", "flag", "${{$compatibility_level} <level {3.6} ? {no} : {yes}}", ""),
    ("rewrite_service_name", "text 1..", "rewrite", ""),
    ("sample_directory", "path 1..", "/etc/postfix", ""),
    ("send_cyrus_sasl_authzid", "flag", "no", ""),
    ("sendmail_path", "path 1..", "/usr/sbin/sendmail", ""),
    ("service_name", "text", "amnesiac", ""),
    ("service_throttle_time", "time 1..", "60s", ""),
    ("setgid_group", "text 1..", "postdrop", ""),
    ("shlib_directory", "path 1..", "/usr/lib/postfix", ""),
    ("showq_service_name", "text 1..", "showq", ""),
    ("socketmap_max_query_size", "number 1..", "10000", ""),
    ("socketmap_max_reply_size", "number 1..", "100000", ""),
    ("syslog_facility", "text 1..", "mail", ""),
    ("syslog_name", "text 1..", "${multi_instance_name?{$multi_instance_name}:{postfix}}", ""),
    ("tcp_windowsize", "number 0..", "0", ""),
    ("trace_service_name", "text 1..", "trace", ""),
    ("trigger_timeout", "time 1..", "10s", ""),
)
