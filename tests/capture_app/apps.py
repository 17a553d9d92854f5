from django.apps import AppConfig


class CaptureAppConfig(AppConfig):
    name = "tests.capture_app"
    label = "capture_app"
    default_auto_field = "django.db.models.BigAutoField"
