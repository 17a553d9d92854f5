from django.apps import AppConfig


class PostgresAppConfig(AppConfig):
    name = "tests.postgres_app"
    label = "postgres_app"
    default_auto_field = "django.db.models.BigAutoField"
