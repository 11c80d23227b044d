"""Bytes, not checkpoints: bounded, inert readers of the containers that checkpoints come in."""
