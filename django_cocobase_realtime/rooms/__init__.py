"""Rooms: who is in them."""
