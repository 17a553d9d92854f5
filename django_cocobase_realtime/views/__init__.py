"""HTTP endpoints: list the rooms of a project, publish to rooms, and check the health."""
