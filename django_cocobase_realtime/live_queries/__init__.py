"""Live queries: windows and aggregates, whose results are kept up to date from the log."""
