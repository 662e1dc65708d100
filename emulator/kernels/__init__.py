"""Compiled kernels for float32 in the processor's memory, where a C compiler was at hand at installation.

Everywhere else, and without them, torch's products and layers do the same work (docs/benchmarks.md says what either takes).
They run on the threads of torch's own OpenMP, because a second pool would compete for the cores with the waiting threads of
the first.
"""
