"""Rooms: the members of each room, broadcasts to them, and the history that a room keeps."""
