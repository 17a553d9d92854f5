from django.apps import AppConfig


class RelationsAppConfig(AppConfig):
    name = "tests.relations_app"
    default_auto_field = "django.db.models.BigAutoField"
