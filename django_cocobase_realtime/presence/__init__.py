"""Presence: which members are in which room, stored by one of several backends."""
