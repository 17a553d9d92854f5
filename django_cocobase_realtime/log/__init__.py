"""What makes changes last: a log in the project's own database, numbered after commit.

``write`` runs in the writer's transaction, ``sequence`` after its commit in a server process,
``read`` for whoever missed something, ``trim`` as time goes by. ``cursor`` names a position.
"""
