"""One socket: the connection, its bounded writer, and fan-out to many of them."""
