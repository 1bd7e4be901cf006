"""Delivery agents: programs that register with the queue manager, receive jobs, and report each recipient's result.

| module | services of master.cf | delivers to |
|---|---|---|
| `smtp` | smtp, lmtp, relay | other hosts |
| `local` | local | mailboxes, Maildirs, files and commands of this system's users |
| `bounce` | bounce, defer, trace | the sender: non-delivery reports and delay warnings |

`agent` is their common base: the connection to the queue manager, and the order of start and stop. `submit` puts a new
message into the queue. `mailbox`, `command` and `account` write to a user's files and run a user's commands. The
agents error and discard are in `postillion.services`.
"""
