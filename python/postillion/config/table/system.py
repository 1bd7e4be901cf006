"""Parameters of the system: directories, processes, logging, tables, instances, names of services.

Rows: name, kind (see kinds.py), default, what it is, and what its value does without a program that reads it (see
effect.py).
"""

ROWS: tuple[tuple[str, ...], ...] = (
    (
        "alternate_config_directories",
        "list",
        "",
        "Further configuration directories that setgid commands may use.",
        "harmless",
    ),
    (
        "application_event_drain_time",
        "time 1..",
        "100s",
        "Maximum wait for pending events when a program ends.",
        "harmless",
    ),
    (
        "berkeley_db_create_buffer_size",
        "number 1..",
        "16777216",
        "Octets of memory for making a Berkeley DB.",
        "harmless",
    ),
    ("berkeley_db_read_buffer_size", "number 1..", "131072", "Octets of memory for reading a Berkeley DB.", "harmless"),
    ("bounce_service_name", "text 1..", "bounce", "Name of the bounce service in master.cf."),
    (
        "cleanup_service_name",
        "text 1..",
        "cleanup",
        "Name of the cleanup service in master.cf.",
        "unsafe smtpd,pickup,bounce,local: that service's checks would be left out",
    ),
    ("command_directory", "path 1..", "/usr/sbin", "Directory of the commands for administrators.", "not missed"),
    ("compatibility_level", "text 1..", "0", "Postfix version whose defaults the site was written for."),
    ("config_directory", "path", "computed:config_directory", "Directory of main.cf and master.cf."),
    (
        "connection_cache_protocol_timeout",
        "time 1..",
        "5s",
        "Timeout for the program that keeps connections.",
        "harmless",
    ),
    (
        "connection_cache_service_name",
        "text 1..",
        "scache",
        "Name of the connection_cache service in master.cf.",
        "harmless",
    ),
    (
        "connection_cache_status_update_time",
        "time 1..",
        "600s",
        "Time between log lines about kept connections.",
        "harmless",
    ),
    ("connection_cache_ttl_limit", "time 1..", "2s", "Maximum idle time of a cached connection.", "harmless"),
    ("daemon_directory", "path 1..", "/usr/libexec/postfix", "Directory of the programs that master starts."),
    ("daemon_table_open_error_is_fatal", "flag", "no", "End a program when a table cannot be opened.", "harmless"),
    ("daemon_timeout", "time 1..", "18000s", "Time after which master ends a program that hangs.", "harmless"),
    (
        "data_directory",
        "path 1..",
        "/var/lib/postfix",
        "Directory of the programs' own files: caches, random numbers, a lock.",
    ),
    (
        "debug_peer_level",
        "number 1..",
        "2",
        "Increase of the log level for the peers in debug_peer_list.",
        "not missed",
    ),
    ("debug_peer_list", "match", "", "Peers whose sessions are logged at length.", "not missed"),
    ("debugger_command", "text", "", "Command that -D in master.cf runs.", "not missed"),
    ("default_cache_db_type", "text 1..", "btree", "Table type of caches.", "harmless"),
    ("default_database_type", "text 1..", "hash", "Table type of postmap and postalias without a type."),
    (
        "default_process_limit",
        "number 1..",
        "100",
        "Maximum number of sessions of a service whose maxproc is a hyphen.",
    ),
    ("defer_service_name", "text 1..", "defer", "Name of the defer service in master.cf.", "harmless"),
    ("disable_dns_lookups", "flag", "no", "Use no DNS in the SMTP and LMTP clients."),
    (
        "dns_ncache_ttl_fix_enable",
        "flag",
        "no",
        'Ask the resolver so that "no such record" has a time to live.',
        "harmless",
    ),
    (
        "dnssec_probe",
        "text",
        "ns:.",
        "DNS question that shows whether the resolver validates; empty to ask none.",
        "harmless",
    ),
    (
        "domain_to_ascii",
        "text",
        "",
        "Function of the language: ${domain_to_ascii{name}} is the A-label form of a domain.",
        "harmless",
    ),
    ("error_service_name", "text 1..", "error", "Name of the error service in master.cf.", "harmless"),
    (
        "export_environment",
        "list",
        "TZ MAIL_CONFIG LANG",
        "Environment variables of commands that are not part of the mail system.",
    ),
    ("fault_injection_code", "number 0..", "0", "For tests of Postfix itself.", "harmless"),
    ("flush_service_name", "text 1..", "flush", "Name of the flush service in master.cf.", "harmless"),
    ("fork_attempts", "number 1..", "5", "Maximum number of attempts to start a process.", "harmless"),
    ("fork_delay", "time 1..", "1s", "Pause between two attempts to start a process.", "harmless"),
    ("html_directory", "path 1..", "no", "Directory of the documentation in HTML.", "not missed"),
    (
        "import_environment",
        "list",
        "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ XAUTHORITY DISPLAY LANG=C POSTLOG_SERVICE "
        "POSTLOG_HOSTNAME XDG_RUNTIME_DIR",
        "Environment variables of every program, as name or name=value.",
    ),
    ("ipc_idle", "time 1..", "5s", "Maximum idle time of a connection between programs.", "harmless"),
    ("ipc_timeout", "time 1..", "3600s", "Timeout for another program of the mail system.", "harmless"),
    ("ipc_ttl", "time 1..", "1000s", "Maximum lifetime of a connection between programs.", "harmless"),
    (
        "known_tcp_ports",
        "list",
        "lmtp=24, smtp=25, smtps=submissions=465, submission=587",
        "Names of ports, before the system's own list.",
    ),
    ("lmdb_map_size", "number 1..9223372036854775807", "16777216", "Octets of a new LMDB table.", "harmless"),
    ("mail_name", "text 1..", "Postfix", "Name of the mail system in greetings, Received headers and bounces."),
    ("mail_owner", "text 1..", "postfix", "Account that owns the queue and runs most programs."),
    (
        "mail_release_date",
        "text 1..",
        "20260821",
        "Day of the Postfix release whose configuration is understood.",
        "harmless",
    ),
    ("mail_version", "text 1..", "3.12.0", "Postfix release whose configuration is understood."),
    ("maillog_file", "path", "", "File that log lines go to, or /dev/stdout; empty for syslog."),
    ("maillog_file_compressor", "text 1..", "gzip", "Command that compresses an old log."),
    ("maillog_file_permissions", "text 1..", "0600", "Mode of a new log file."),
    ("maillog_file_prefixes", "list 1..", "/var, /dev/stdout", "Beginnings of path names that maillog_file may have."),
    (
        "maillog_file_rotate_suffix",
        "text 1..",
        "%Y%m%d-%H%M%S",
        "strftime(3) format of an old log's suffix.",
    ),
    ("mailq_path", "path 1..", "/usr/bin/mailq", "Path of the mailq command.", "not missed"),
    ("manpage_directory", "path 1..", "/usr/local/man", "Directory of the manual pages.", "not missed"),
    ("master_service_disable", "list", "", "Services of master.cf that are not started, as name/type."),
    ("max_idle", "time 1..", "100s", "Maximum idle time of a program.", "harmless"),
    ("max_use", "number 1..", "100", "Maximum number of requests of a program.", "harmless"),
    ("meta_directory", "path 1..", "/etc/postfix", "Directory of files about the installation.", "not missed"),
    ("multi_instance_directories", "list", "", "Configuration directories of further instances."),
    ("multi_instance_enable", "flag", "no", "Whether postmulti starts this instance."),
    ("multi_instance_group", "text", "", "Group of this instance."),
    ("multi_instance_name", "text", "", "Name of this instance; also its syslog_name."),
    ("multi_instance_wrapper", "text", "", "Command that postfix(1) runs for several instances.", "harmless"),
    ("newaliases_path", "path 1..", "/usr/bin/newaliases", "Path of the newaliases command.", "not missed"),
    ("non_bdb_custom_mapping", "text", "", "Replacements of Berkeley DB table types of the site's own.", "harmless"),
    (
        "non_bdb_migration_allow_root_prefixes",
        "list",
        "/etc /usr/local/etc",
        "Directories in which root's tables may be rebuilt without Berkeley DB.",
        "harmless",
    ),
    (
        "non_bdb_migration_allow_user_prefixes",
        "list",
        "$data_directory /var/lib/mailman /var/lib/mailman3",
        "Directories in which other users' tables may be rebuilt without Berkeley DB.",
        "harmless",
    ),
    (
        "non_bdb_migration_level",
        "text 1..",
        "disable",
        "Replacement of Berkeley DB tables: disable, enable-redirect, enable-reindex.",
        "harmless",
    ),
    ("non_bdb_migration_log_redirect", "flag", "yes", "Log each such replacement.", "harmless"),
    (
        "non_bdb_migration_service_name",
        "text",
        "nbdb_reindex",
        "Name of the non_bdb_migration service in master.cf.",
        "harmless",
    ),
    ("pickup_service_name", "text 1..", "pickup", "Name of the pickup service in master.cf.", "harmless"),
    ("postlog_service_name", "text 1..", "postlog", "Name of the postlog service in master.cf.", "harmless"),
    ("postlogd_watchdog_timeout", "time 10..", "10s", "Time after which a postlogd that hangs is ended.", "harmless"),
    (
        "postmulti_control_commands",
        "list",
        "reload flush",
        "Commands that postmulti runs on running instances.",
        "harmless",
    ),
    ("postmulti_start_commands", "list", "start", "Commands that postmulti takes for start.", "harmless"),
    (
        "postmulti_stop_commands",
        "list",
        "stop abort drain quick-stop",
        "Commands that postmulti takes for stop.",
        "harmless",
    ),
    ("process_id", "text", "computed:process_id", "Number of the running process."),
    ("process_id_directory", "path 1..", "pid", "Directory of master.pid, below the queue directory.", "harmless"),
    ("process_name", "text", "computed:process_name", "Name of the running program.", "harmless"),
    ("proxy_read_access_list", "list", "reject", "Older setting of what proxymap may read.", "harmless"),
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
        "Tables that proxymap may read.",
        "harmless",
    ),
    ("proxy_write_access_list", "list", "reject", "Older setting of what proxywrite may change.", "harmless"),
    (
        "proxy_write_maps",
        "maps",
        "$smtp_sasl_auth_cache_name $lmtp_sasl_auth_cache_name $address_verify_map $postscreen_cache_map",
        "Tables that proxywrite may change.",
        "harmless",
    ),
    ("proxymap_service_name", "text 1..", "proxymap", "Name of the proxymap service in master.cf.", "harmless"),
    ("proxywrite_service_name", "text 1..", "proxywrite", "Name of the proxywrite service in master.cf.", "harmless"),
    ("queue_directory", "path 1..", "/var/spool/postfix", "Directory of the queue; programs run in it."),
    ("queue_service_name", "text 1..", "qmgr", "Name of the queue service in master.cf."),
    ("readme_directory", "path 1..", "no", "Directory of the documentation in text.", "not missed"),
    (
        "respectful_logging",
        "flag",
        "${{$compatibility_level} <level {3.6} ? {no} : {yes}}",
        "Use allowlist and denylist in log lines.",
        "harmless",
    ),
    (
        "rewrite_service_name",
        "text 1..",
        "rewrite",
        "Name of the rewrite service in master.cf.",
        "unsafe smtpd,pickup,qmgr: that service's rules would be left out",
    ),
    ("sample_directory", "path 1..", "/etc/postfix", "Directory of sample files.", "not missed"),
    ("send_cyrus_sasl_authzid", "flag", "no", "Send an authorization name in Cyrus SASL.", "harmless"),
    ("sendmail_path", "path 1..", "/usr/sbin/sendmail", "Path of the sendmail command.", "not missed"),
    ("service_name", "text", "amnesiac", "Name of the service in master.cf that the program runs for."),
    (
        "service_throttle_time",
        "time 1..",
        "60s",
        "Pause before a service whose program fails at start is tried again.",
        "harmless",
    ),
    ("setgid_group", "text 1..", "postdrop", "Group that may submit mail and list the queue through setgid commands."),
    ("shlib_directory", "path 1..", "/usr/lib/postfix", "Directory of shared libraries.", "not missed"),
    ("showq_service_name", "text 1..", "showq", "Name of the showq service in master.cf."),
    (
        "socketmap_max_query_size",
        "number 1..",
        "10000",
        "Maximum size of a request to a socketmap server, in octets.",
        "harmless",
    ),
    (
        "socketmap_max_reply_size",
        "number 1..",
        "100000",
        "Maximum size of a reply of a socketmap server, in octets.",
        "harmless",
    ),
    ("syslog_facility", "text 1..", "mail", "Facility of syslog lines."),
    (
        "syslog_name",
        "text 1..",
        "${multi_instance_name?{$multi_instance_name}:{postfix}}",
        "Name before the program's in log lines.",
    ),
    ("tcp_windowsize", "number 0..", "0", "TCP receive buffer that is asked for; 0 for the system's own.", "harmless"),
    ("trace_service_name", "text 1..", "trace", "Name of the trace service in master.cf.", "harmless"),
    ("trigger_timeout", "time 1..", "10s", "Timeout for waking up a program.", "harmless"),
)
