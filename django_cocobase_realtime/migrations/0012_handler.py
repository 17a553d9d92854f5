"""Add the positions of handlers."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0011_derived'),
    ]

    operations = [
        migrations.CreateModel(
            name='Handler',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200, unique=True)),
                ('collection', models.CharField(max_length=128)),
                ('epoch', models.CharField(max_length=16)),
                ('seq', models.BigIntegerField()),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('failures', models.IntegerField(default=0)),
                ('last_error', models.TextField(default='')),
                ('stopped_at', models.DateTimeField(null=True)),
                ('owner', models.CharField(default='', max_length=32)),
                ('lease_until', models.FloatField(default=0.0)),
            ],
        ),
    ]
