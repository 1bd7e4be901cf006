"""The checker: prepares every program of a configuration as its start would, before anything starts.

`python -m postillion.checker -c DIR` is a process of its own, since master loads neither asyncio nor the Rust core.
`postillion check`, `start` and `reload` run it (master/checking.py).
"""
