"""Another default manager for every model that has no explicit one."""

from django.db import models
from django.db.models import base


class OtherManager(models.Manager):
    """A manager as a project may have: of another class, with the methods of Django's."""


def replace_default_manager() -> None:
    """Make ``OtherManager`` the class of ``objects`` of the models that are defined from now on."""
    base.Manager = OtherManager
