"""Kinds of analyses: one file each."""
