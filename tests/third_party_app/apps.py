from django.apps import AppConfig


class ThirdPartyAppConfig(AppConfig):
    name = "tests.third_party_app"
    label = "third_party_app"
    default_auto_field = "django.db.models.BigAutoField"
