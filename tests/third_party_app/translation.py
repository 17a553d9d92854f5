"""Fields that django-modeltranslation adds."""

from modeltranslation.translator import TranslationOptions, register

from .models import Translated


@register(Translated)
class TranslatedOptions(TranslationOptions):
    fields = ("title",)
