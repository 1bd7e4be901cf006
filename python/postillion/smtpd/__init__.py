"""smtpd(8): the SMTP server. Rust has sockets and dialogues; here are time and policy.

    service      all sessions of a process
    connection   one client: the loop that asks the checks
    checks       what a check is, and its verdict: restrictions, limits and the site's handler are checks
    limits       the limits that anvil counts, over the link in `counts`
    clients      the facts about a client; `names` finds its name
    reply        SMTP replies as values
    setup        main.cf as the settings of the Rust core
    standalone   the server on standard input that `sendmail -bs` runs

The restriction lists are in `postillion.restrictions`, a site's aiosmtpd handler in `postillion.handler`.
"""
