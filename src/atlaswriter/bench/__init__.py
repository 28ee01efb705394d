"""How fast this machine exports: made-up data, measured processes, and what the hardware could do at most."""
