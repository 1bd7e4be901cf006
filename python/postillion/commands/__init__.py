"""The commands of postfix(1) and its companions.

A file with `main(argv)` is a command; `main` returns the exit status. `bench`, `convert`, `explain`, `logrotate` and
`permissions` are verbs of `postillion`, and `firstrun` is `make run`. `finger*`
are the parts of `posttls_finger`, `postfix_tls` and `server_keys` those of `postfix tls`, `explain_*` those of
`explain`. The other files are parts that commands share.
"""
