"""qmgr(8), the queue manager: schedules the deliveries.

`postillion_core::qmgr` decides in Rust; `shell` connects it to sockets and timers, `control` answers commands, and
`settings` reads its parameters from main.cf. `postillion.address.resolve` finds the route of an address.
"""
