"""How work is done: the budget, threads, and bringing matrices to genes, in memory or by way of a spill."""
