"""Exact and estimated patching of a pretrained language model: `docs/patching.md`."""
