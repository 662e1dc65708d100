"""Batch stages, configuration and command line."""
