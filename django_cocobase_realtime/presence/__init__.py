"""Who is in which room: one contract and its backends."""
