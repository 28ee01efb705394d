"""atlaswriter's fast engine, with the number of workers given as the third argument."""

import sys

from benchmarks.child import serve

from atlaswriter import prepare

serve("atlaswriter", prepare, workers=int(sys.argv[3]))
