"""What a project declares: collections, rooms, permissions. Knows no sockets and no log."""
