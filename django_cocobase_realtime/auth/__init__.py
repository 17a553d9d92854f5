"""Authentication: turns API keys, tokens and Django sessions into identities, and revokes them."""
