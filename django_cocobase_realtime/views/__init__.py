"""HTTP endpoints: the rooms of a project, publishing to rooms, and health checks."""
