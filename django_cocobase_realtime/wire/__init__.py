"""What travels over the socket: codes, typed inbound frames, dialects. Pure: no Django, no I/O."""
