"""An app without models of its own, whose migrations tests make (`tests.support.migrating`)."""
