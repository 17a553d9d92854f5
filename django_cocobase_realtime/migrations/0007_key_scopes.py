from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0006_room_creators'),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='collections',
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='apikey',
            name='rooms',
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='apikey',
            name='read_only',
            field=models.BooleanField(default=False, help_text='May read, but send nothing to other clients.'),
        ),
    ]
