"""The thin door in front."""
