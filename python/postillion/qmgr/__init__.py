"""qmgr(8), the queue manager: what is delivered where and when.

The decisions are Rust (`postillion_core::qmgr`); `shell` moves its bytes and time, `control` answers commands,
`settings` reads main.cf for it. `postillion.address.resolve` finds the route of an address.
"""
