"""Add the number of the hidden event until which events of other streams were derived."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0010_related_values'),
    ]

    operations = [
        migrations.AddField(
            model_name='stream',
            name='derived',
            field=models.BigIntegerField(null=True),
        ),
    ]
