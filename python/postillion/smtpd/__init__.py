"""smtpd(8): the SMTP server. The byte path is in Rust; here are sockets, time and policy.

`service` has the sessions of a process, `connection` one client, `clients` and `names` what is known of a client,
`setup` main.cf turned into all of these, `standalone` the server on standard input that `sendmail -bs` runs. The
restriction lists are in `postillion.restrictions`, a site's aiosmtpd handler in `postillion.handler`.
"""
