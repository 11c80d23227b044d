"""What `smdlens graph` shows: a tree, JSON, a picture."""
