import django.db.models.deletion
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import migrations, models

NAMES_OF_NO_USER = ("", "Unassigned", "Nobody")


def assign_users(apps, schema_editor):
    """Make the names of assignees users."""
    tasks = apps.get_model("board", "Task").objects
    users = apps.get_model("auth", "User").objects
    names = tasks.exclude(name__in=NAMES_OF_NO_USER).values_list("name", flat=True)
    for name in set(names.order_by()):
        user, _ = users.get_or_create(username=name, defaults={"password": make_password(None)})
        tasks.filter(name=name).update(assignee=user)


def name_assignees(apps, schema_editor):
    tasks = apps.get_model("board", "Task").objects
    for task in tasks.filter(assignee__isnull=False).select_related("assignee"):
        tasks.filter(pk=task.pk).update(name=task.assignee.username[:40])


class Migration(migrations.Migration):

    dependencies = [
        ('board', '0004_teams'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RenameField('task', 'assignee', 'name'),
        migrations.AddField(
            model_name='task',
            name='assignee',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL),
        ),
        migrations.RunPython(assign_users, name_assignees),
        migrations.RemoveField('task', 'name'),
    ]
