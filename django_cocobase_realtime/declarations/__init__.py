"""What a project declares: collections, rooms and permissions. Knows no sockets and no log."""
