"""Authentication: from a key, a token or a Django session to an `Identity`, and its revocation."""
