"""Add the values of related fields, which are made when an event is numbered."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0009_related_numbers'),
    ]

    operations = [
        migrations.AddField(
            model_name='logevent',
            name='related',
            field=models.TextField(null=True),
        ),
    ]
