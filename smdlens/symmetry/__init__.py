"""Which tensors live on a sphere."""
