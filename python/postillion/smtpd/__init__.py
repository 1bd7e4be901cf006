"""smtpd(8): the SMTP server. The byte path is in Rust; here are sockets, time and policy.

`server` has the protocol class and the sessions, `access` the restriction lists of main.cf, `address` what an address
means for relay control, `clients` and `names` what is known of a client, `setup` main.cf turned into all of these,
`standalone` the server on standard input that `sendmail -bs` runs, `controlled` the one of aiosmtpd's Controller.
"""
