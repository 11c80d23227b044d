"""What the trainer used, and who says so."""
