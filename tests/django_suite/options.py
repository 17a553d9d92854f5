"""The options of a run, passed to the process that runs the tests through its environment."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

PREFIX = "DJANGO_SUITE_"


@dataclass(frozen=True)
class Options:
    """One run of Django's tests."""

    # "sqlite" or "postgres"
    database: str
    # folder for the records of the run
    records: str
    # "signals" or "triggers", or "" to run without the app
    capture: str = ""
    # "1" to give every model without an explicit manager one of another class
    manager: str = ""
    # "1" to count the queries of each test
    queries: str = ""

    def environment(self) -> dict[str, str]:
        """Return the environment variables of the process that runs the tests."""
        return {PREFIX + name.upper(): value for name, value in asdict(self).items()}

    @property
    def folder(self) -> Path:
        """The folder for the records of the run."""
        return Path(self.records)


def from_environment() -> Options:
    """Return the options of this process."""
    names = Options.__dataclass_fields__
    return Options(**{name: os.environ.get(PREFIX + name.upper(), "") for name in names})
