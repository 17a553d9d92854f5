"""Who is connecting: identities and the authenticators that vouch for them."""
