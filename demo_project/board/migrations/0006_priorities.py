from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('board', '0005_assignees'),
    ]

    operations = [
        migrations.AddField(
            model_name='task',
            name='priority',
            field=models.SmallIntegerField(choices=[(0, 'low'), (1, 'normal'), (2, 'high')], db_default=1, default=1),
        ),
        migrations.AddIndex(
            model_name='task',
            index=models.Index(fields=['column', '-priority', '-moved_at', 'id'], name='cards_of_a_column'),
        ),
    ]
