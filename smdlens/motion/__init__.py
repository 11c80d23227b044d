"""What moved: the only heavy arithmetic."""
