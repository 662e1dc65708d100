"""Batch stages, configuration and command line."""

import os

# A thread that waits for the next parallel loop spins for about a millisecond by default, on a core that another program may
# need. This many rounds bridge the gaps between a network's layers: on an idle machine an update takes as long, beside two
# busy programs half as long. It is read when torch is loaded, which comes later.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
