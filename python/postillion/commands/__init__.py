"""The commands of postfix(1) and its companions.

A file with `main(argv)` is a command; `main` returns the exit status. `bench`, `convert`, `explain`, `logrotate` and
`permissions` are verbs of `postillion`, and `firstrun` is `make run`. The other files are parts that commands share.
"""
