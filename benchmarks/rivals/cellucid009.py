"""cellucid 0.0.9, in its own environment."""

from benchmarks.child import serve
from cellucid import prepare

serve("cellucid", prepare, force=True)
