"""Coarse fields to fine ones, in space and in time, with the means of coarse cells and intervals kept."""
