"""Messages between processes: the channel layer, its groups, and the broker that publishes."""
