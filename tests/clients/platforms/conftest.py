"""Leave out the applications of frameworks, unless `make test-long` runs them."""

import os

collect_ignore = [] if os.environ.get("REQUIRE_APPLICATIONS") else ["test_applications.py"]
