from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('board', '0002_parcels_and_beats'),
    ]

    operations = [
        migrations.RenameModel(old_name='Beat', new_name='Counter'),
        migrations.AlterField(
            model_name='task',
            name='assignee',
            field=models.CharField(default='Unassigned', max_length=40),
        ),
    ]
