"""Settings of OpenMP; to be imported before torch, whose OpenMP library reads them when loaded."""

import os

# GNU OpenMP lets threads spin for about a millisecond where they wait for each other. With as many
# threads as cores, any other busy process (a data loader's worker is one) then stalls all of them.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
