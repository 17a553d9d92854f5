"""Presence: which members are in which room. One contract, and a backend for each kind of store."""
