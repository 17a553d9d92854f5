"""Random writes to tasks and to the memberships that decide who may see them."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DatabaseError, transaction
from django.db.models import F

from django_cocobase_realtime.utils.transactions import write_transaction
from tests.app.models import Task
from tests.relations_app.models import Project

TITLES = ["", "a", "B", "b", "ä", "e\u0301", "\uff5e", "\U0001f600", "\U0001f601b"]
STATES = ["open", "open", "done", "late"]
HOURS = [None, Decimal(0), Decimal("0.1"), Decimal("1.50"), Decimal("-2.25"), Decimal("8123456.7")]
SIZES = [0, 1, -(2**53), 2**53, 2**53 + 1, 2**60, 2**60 + 1]
SCORES = [None, 0.0, -1.5, 0.1, 2.5e10]
START = datetime(2026, 1, 1, tzinfo=UTC)
DUE = [None, *(START + timedelta(microseconds=number) for number in (0, 1, 10**6))]


class Undo(Exception):
    """Rolls a transaction back."""


class History:
    """Random transactions. The writes of one seed are the same, unless two are at the same time."""

    def __init__(self, seed: int, rows: int = 30) -> None:
        self.seed = seed
        self._numbers = itertools.count()
        Task.objects.all().delete()
        Project.objects.all().delete()
        choose = random.Random(f"{seed} start")
        users = get_user_model().objects
        self.users = [users.create_user(f"live{seed}-{number}") for number in range(3)]
        self.projects = [Project.objects.create(name=f"p{number}") for number in range(4)]
        for project in self.projects:
            project.members.set(choose.sample(self.users, 1))
        Task.objects.bulk_create([Task(**self._values(choose)) for _ in range(rows)])

    def write(self) -> str:
        """Commit one transaction or statement, and return a description."""
        number = next(self._numbers)
        choose = random.Random(f"{self.seed} {number}")
        kinds = {
            self._create: 4,
            self._change: 8,
            self._change_many: 2,
            self._touch: 2,
            self._delete: 3,
            self._delete_many: 1,
            self._soft_delete: 2,
            self._delete_extremes: 2,
            self._several: 4,
            self._undo: 1,
            self._change_members: 3,
            self._delete_project: 0.3,
        }
        (write,) = choose.choices(list(kinds), list(kinds.values()))
        try:
            return f"{number}: {write(choose)}"
        except DatabaseError as error:  # two at the same time
            return f"{number}: {write.__name__} failed: {error}"

    def _values(self, choose: random.Random) -> dict[str, Any]:
        return {
            "title": choose.choice(TITLES),
            "state": choose.choice(STATES),
            "priority": choose.choice([None, 0, 1, 2, 3]),
            "weight": choose.randrange(5),
            "hours": choose.choice(HOURS),
            "size": choose.choice(SIZES),
            "score": choose.choice(SCORES),
            "urgent": choose.choice([None, True, False]),
            "due": choose.choice(DUE),
            "project_id": choose.choice([None, *(project.pk for project in self.projects)]),
            "owner": choose.choice([None, *self.users]),
        }

    def _task(self, choose: random.Random) -> Task | None:
        tasks = list(Task.objects.order_by("pk"))
        return choose.choice(tasks) if tasks else None

    def _create(self, choose: random.Random) -> str:
        if choose.random() < 0.6:
            return f"create {Task.objects.create(**self._values(choose)).pk}"
        count = choose.choice([1, 2, 8])
        Task.objects.bulk_create([Task(**self._values(choose)) for _ in range(count)])
        return f"create {count} in bulk"

    def _change(self, choose: random.Random) -> str:
        task = self._task(choose)
        if task is None:
            return self._create(choose)
        values = self._values(choose)
        names = choose.sample(list(values), choose.choice([1, 1, 2, len(values)]))
        values = {name: values[name] for name in names}
        if choose.random() < 0.5:
            Task.objects.filter(pk=task.pk).update(**values)
        else:
            for name, value in values.items():
                setattr(task, name, value)
            # fails if it was deleted at the same time
            task.save(update_fields=names if choose.random() < 0.5 else None, force_update=True)
        return f"change {task.pk}: {values}"

    def _touch(self, choose: random.Random) -> str:
        """Write a row without a change, or one back and forth in a transaction."""
        task = self._task(choose)
        if task is None:
            return "nothing"
        rows = Task.objects.filter(pk=task.pk)
        if choose.random() < 0.5:
            rows.update(title=task.title)
            return f"write {task.pk} as it is"
        with write_transaction("default"):
            rows.update(weight=F("weight") + 100, priority=None)
            rows.update(weight=F("weight") - 100, priority=task.priority)
        return f"write {task.pk} back and forth"

    def _change_many(self, choose: random.Random) -> str:
        rows = Task.objects.filter(state=choose.choice(STATES))
        values = self._values(choose)
        name = choose.choice(["priority", "weight", "hours", "project_id", "state", "title"])
        if name == "weight" and choose.random() < 0.5:
            return f"raise the weights of {rows.update(weight=F('weight') + 1)}"
        return f"change {name} of {rows.update(**{name: values[name]})} to {values[name]}"

    def _delete(self, choose: random.Random) -> str:
        task = self._task(choose)
        if task is None:
            return "nothing"
        pk = task.pk
        if choose.random() < 0.5:
            task.delete()
        else:
            Task.objects.filter(pk=pk).delete()
        return f"delete {pk}"

    def _delete_many(self, choose: random.Random) -> str:
        priority, weight = choose.choice([None, 0, 1]), choose.randrange(5)
        count, _ = Task.objects.filter(priority=priority, weight=weight).delete()
        return f"delete {count} with priority {priority} and weight {weight}"

    def _soft_delete(self, choose: random.Random) -> str:
        deleted = Task.objects.filter(deleted=True)
        if choose.random() < 0.4:
            return f"restore {deleted.update(deleted=False)}"
        task = self._task(choose)
        if task is not None:
            Task.objects.filter(pk=task.pk).update(deleted=True)
        return f"soft-delete {task and task.pk}"

    def _delete_extremes(self, choose: random.Random) -> str:
        """Delete or change the first rows of an order, one after the other, in one transaction."""
        name = choose.choice(["hours", "-hours", "priority", "-weight", "-size", "score"])
        direction = F(name.removeprefix("-"))
        order = direction.desc(nulls_last=True) if name.startswith("-") else direction.asc()
        keys = []
        with write_transaction("default"):
            for _ in range(2):
                tasks = Task.objects.filter(deleted=False).exclude(pk__in=keys)
                task = tasks.order_by(order, "pk").first()
                if task is None:
                    break
                keys.append(task.pk)
                match choose.randrange(4):
                    case 0:
                        Task.objects.filter(pk=task.pk).update(deleted=True)
                    case 1:
                        Task.objects.filter(pk=task.pk).update(**self._values(choose))
                    case _:
                        task.delete()
            if choose.random() < 0.3:
                Task.objects.create(**self._values(choose))
        return f"remove the first by {name}: {keys}"

    def _several(self, choose: random.Random) -> str:
        kinds = [self._create, self._change, self._change, self._delete, self._change_members]
        with write_transaction("default"):
            writes = [choose.choice(kinds)(choose) for _ in range(choose.choice([2, 3, 5]))]
        return " and ".join(writes)

    def _undo(self, choose: random.Random) -> str:
        is_whole = choose.random() < 0.5
        with suppress(Undo), write_transaction("default"):
            writes = [self._change(choose)]
            with suppress(Undo), transaction.atomic():
                writes.append(self._delete(choose))
                writes.append(self._change_many(choose))
                raise Undo
            if is_whole:
                raise Undo
        return f"undo {'all' if is_whole else 'but the first'} of {writes}"

    def _change_members(self, choose: random.Random) -> str:
        project, user = choose.choice(self.projects), choose.choice(self.users)
        match choose.randrange(5):
            case 0 | 1:
                project.members.add(user)
                return f"add {user.pk} to {project.pk}"
            case 2 | 3:
                project.members.remove(user)
                return f"remove {user.pk} from {project.pk}"
            case _:
                users = choose.sample(self.users, choose.choice([0, 1, 2]))
                project.members.set(users)
                return f"set {project.pk} to {[user.pk for user in users]}"

    def _delete_project(self, choose: random.Random) -> str:
        """Delete a project with its tasks, and create another one in its place."""
        index = choose.randrange(len(self.projects))
        pk = self.projects[index].pk
        with write_transaction("default"):
            Project.objects.filter(pk=pk).delete()
            project = Project.objects.create(name="new")
            project.members.add(choose.choice(self.users))
        self.projects[index] = project
        return f"replace project {pk} with {project.pk}"
