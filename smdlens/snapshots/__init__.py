"""What was saved: a folder of checkpoints becomes an ordered series of headers."""
