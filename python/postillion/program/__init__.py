"""The common parts of programs: start and signals, the log, frames to other programs, and commits to the queue."""
