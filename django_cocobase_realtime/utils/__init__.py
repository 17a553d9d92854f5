"""Helpers that know nothing of the protocol: transactions, concurrency, limits, small sets."""
