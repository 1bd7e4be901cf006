"""smtpd(8): the SMTP server. Rust has sockets and dialogues; here are time and policy.

    service      all sessions of a process
    connection   one client: the loop that asks the checks
    clients      the facts about a client; `names` finds its name
    limits       the limits that anvil counts, over the link in `counts`
    mode         lists and limits for normal times and for stress
    setup        main.cf as the settings of the Rust core
    standalone   the server on standard input that `sendmail -bs` runs

`postillion.checks` has the interface of a check, its verdict and its replies. Restriction lists
(`postillion.restrictions`), limits and a site's aiosmtpd handler (`postillion.handler`) are checks.
"""
