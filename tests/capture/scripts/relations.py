"""Managers of related rows."""

from tests.capture_app.models import (
    Bug,
    Group,
    Membership,
    NamedMembership,
    Person,
    Team,
    Ticket,
    UrgentBug,
)

from .common import script


@script
def reverse_foreign_key_manager():
    team, other = Team.objects.create(name="a"), Team.objects.create(name="b")
    tickets = [Ticket.objects.create(title=str(n)) for n in range(4)]
    team.ticket_set.add(*tickets[:3])
    team.ticket_set.add(tickets[3], bulk=False)
    team.ticket_set.remove(tickets[0])
    other.ticket_set.set(tickets[:2])
    other.ticket_set.set([], clear=True)
    team.ticket_set.clear()
    team.ticket_set.create(title="new")
    team.ticket_set.update(title="renamed")
    return list(Ticket.objects.order_by("pk").values_list("title", "team_id"))


@script
def reverse_foreign_key_manager_of_inherited_key():
    team = Team.objects.create(name="a")
    bug = UrgentBug.objects.create(title="b")
    team.task_set.add(bug.bug_ptr.task_ptr)
    team.task_set.clear()
    return Bug.objects.get().team_id


@script
def many_to_many_to_self():
    a, b, c = (Person.objects.create(name=n) for n in "abc")
    a.friends.add(b, c)
    b.friends.remove(a)
    a.follows.add(b)
    c.followers.set([a, b])
    a.follows.clear()
    b.friends.set([a, c], clear=True)
    return list(a.friends.order_by("name").values_list("name", flat=True))


@script
def many_to_many_through_explicit_model():
    group, other = Group.objects.create(name="g"), Group.objects.create(name="h")
    a, b = (Person.objects.create(name=n) for n in "ab")
    group.members.add(a, through_defaults={"role": "owner"})
    a.groups.add(other)
    row = Membership.objects.create(group=group, person=b)
    row.role = "guest"
    row.save()
    row.person = a
    row.save()
    Membership.objects.filter(group=other).update(person=b)
    group.members.set([b])
    b.groups.clear()
    return Membership.objects.count()


@script
def many_to_many_by_other_column():
    group = Group.objects.create(name="g")
    a, b = (Person.objects.create(name=n) for n in "ab")
    group.named.add(a, b)
    group.named.remove(a)
    NamedMembership.objects.all().delete()
    group.named.set([a])
    return list(group.named.values_list("name", flat=True))


@script
def delete_of_both_sides_of_many_to_many():
    group = Group.objects.create(name="g")
    a, b = (Person.objects.create(name=n) for n in "ab")
    group.members.set([a, b])
    group.named.set([a])
    a.friends.add(b)
    return a.delete(), group.delete()
