"""The live tail of a collection's events in a terminal: ``realtime_watch``."""
