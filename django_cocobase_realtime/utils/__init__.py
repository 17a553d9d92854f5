"""General helpers: transactions, threads and tasks, limits, and small sets."""
