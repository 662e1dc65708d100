"""Vertical axes: a file of this folder each, which declares one kind and registers it.

The declaration is all that sources, ingest, stores, statistics and climatologies know of it; `docs/extending.md` has an
example.
"""
