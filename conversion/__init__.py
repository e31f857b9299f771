"""Conversion between Bark's checkpoint formats: run `python -m conversion.<script> --help` in the repository's root."""
