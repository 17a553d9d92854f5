"""Add the permissions to view and close connections."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0012_handler'),
    ]

    operations = [
        migrations.CreateModel(
            name='Connection',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ],
            options={
                'permissions': (('view_connections', 'Can view connections, streams and rooms'), ('disconnect_connections', 'Can close connections')),
                'managed': False,
                'default_permissions': (),
            },
        ),
    ]
