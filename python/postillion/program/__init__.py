"""What every program is made of: its start and signals, its log, frames to other programs, its way into the queue."""
