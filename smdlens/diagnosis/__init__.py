"""What the motion means."""
