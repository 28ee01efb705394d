"""How work is done: budget, grouping by gene, threads."""
