"""Install the function that numbers and reads events on PostgreSQL.

Servers work without it, but need several times more statements: it is left out if the role may not
create functions.
"""

import logging

from django.db import DatabaseError, migrations, transaction

logger = logging.getLogger('django_cocobase_realtime')

# sqlstates: insufficient privilege, feature not supported, no such language
NOT_POSSIBLE = ('42501', '0A000', '42704')

SCHEMA = """
SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass('cocobase_realtime_logevent')
"""
SIGNATURE = 'cocobase_realtime_follow(text[], text[], bigint[], integer, integer, integer)'

# For each of some streams, the function numbers the events without a number, and returns those
# after a position: at most `page_events`, and, but for the first one, `page_bytes`. If more than
# `page_events` have no number, it numbers about `backlog_events`, or five times as many if there are
# very many, and the next calls the others: the transactions that are complete among the first events
# are the first in the order of their last events. If this leaves few, because a transaction is long,
# more of the first events are examined.
#
# It is volatile, so in READ COMMITTED each statement in it sees what was committed before this
# statement: after waiting for the lock of a stream, it sees what the process that had the lock has
# numbered. Streams are locked in the order of their names, as by a new epoch, so that there is no
# deadlock. Sequential scans would be planned for tables that were almost empty at the first call.
# The first events without a number are selected by a range of names, and in an order, that only their
# own index has. With equality, the index of all ids may be chosen: see `log.sequencer.unsequenced`.
#
# A stream that another process creates during the call is left out: its events have no number yet.
#
# The result is an array of [stream, epoch, floor, head before the call, head, whether
# to call again, events]. An event is
# [seq, id, [transaction, op, document id], before, after, changed, document, time]; the images are
# JSON already.
FUNCTION = """
CREATE OR REPLACE FUNCTION __schema__.cocobase_realtime_follow(
    names text[], epochs text[], positions bigint[],
    page_events integer, page_bytes integer, backlog_events integer)
RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = __schema__, pg_temp SET enable_seqscan = off AS $function$
#variable_conflict use_column
DECLARE
    waiting text[];
    stream record;
    starts bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(names)]);
    size bigint;
    last_id bigint;
    examined bigint;
    ids bigint[];
    numbered bigint;
    unfinished text[] := '{}';
    result text;
BEGIN
    waiting := ARRAY(
        SELECT name FROM unnest(names) name WHERE EXISTS (
            SELECT FROM cocobase_realtime_logevent WHERE collection = name AND seq IS NULL));
    IF cardinality(waiting) > 0 THEN
        FOR stream IN
            SELECT id, collection, head FROM cocobase_realtime_stream
            WHERE collection = ANY (waiting) ORDER BY collection FOR UPDATE
        LOOP
            SELECT array_agg(id ORDER BY last, id) INTO ids FROM (
                SELECT id, max(id) OVER (PARTITION BY transaction_id) AS last FROM (
                    SELECT id, transaction_id FROM cocobase_realtime_logevent
                    WHERE collection >= stream.collection AND collection <= stream.collection
                        AND seq IS NULL
                    ORDER BY collection, id LIMIT page_events + 1) w) w;
            IF cardinality(ids) > page_events THEN
                SELECT count(*) INTO size FROM (
                    SELECT FROM cocobase_realtime_logevent
                    WHERE collection >= stream.collection AND collection <= stream.collection
                        AND seq IS NULL
                    ORDER BY collection, id LIMIT 40 * backlog_events) w;
                size := least(greatest(size / 8, backlog_events), 5 * backlog_events);
                LOOP
                    SELECT max(id), count(*) INTO last_id, examined FROM (
                        SELECT id FROM cocobase_realtime_logevent
                        WHERE collection >= stream.collection AND collection <= stream.collection
                            AND seq IS NULL
                        ORDER BY collection, id LIMIT size) w;
                    WITH first AS MATERIALIZED (
                        SELECT id, transaction_id, max(id) OVER (PARTITION BY transaction_id) AS last
                        FROM cocobase_realtime_logevent
                        WHERE collection = stream.collection AND seq IS NULL AND id <= last_id
                    ), incomplete AS MATERIALIZED (
                        SELECT DISTINCT transaction_id FROM cocobase_realtime_logevent
                        WHERE collection = stream.collection AND seq IS NULL AND id > last_id
                            AND transaction_id IN (SELECT transaction_id FROM first)
                    )
                    SELECT array_agg(id ORDER BY last, id) INTO ids FROM first
                    WHERE transaction_id NOT IN (SELECT transaction_id FROM incomplete);
                    EXIT WHEN examined < size OR cardinality(ids) >= backlog_events / 2;
                    size := size * 4;
                END LOOP;
                unfinished := unfinished || stream.collection::text;
            END IF;
            UPDATE cocobase_realtime_logevent e SET seq = stream.head + place.number
            FROM unnest(ids) WITH ORDINALITY AS place(id, number) WHERE e.id = place.id;
            GET DIAGNOSTICS numbered = ROW_COUNT;
            UPDATE cocobase_realtime_stream SET head = stream.head + numbered WHERE id = stream.id;
            starts[array_position(names, stream.collection::text)] := stream.head;
        END LOOP;
    END IF;
    SELECT '[' || string_agg(
        '[' || to_json(s.collection)::text || ',' || to_json(s.epoch)::text || ',' || s.floor || ','
        || coalesce(f.start, s.head) || ',' || s.head || ','
        || to_json(s.collection = ANY (unfinished))::text || ',' || coalesce(e.events, '[]') || ']',
        ','
    ) || ']' INTO result
    FROM unnest(names, epochs, positions, starts) f(name, epoch, seq, start)
    JOIN cocobase_realtime_stream s ON s.collection = f.name
        AND (f.start IS NOT NULL OR f.name <> ALL (waiting))
    LEFT JOIN LATERAL (
        SELECT '[' || string_agg(
            '[' || seq || ',' || id || ',' || to_json(ARRAY[transaction_id, op, document_id])::text
            || ',' || coalesce(before, 'null') || ',' || coalesce(after, 'null')
            || ',' || coalesce(changed, 'null') || ',' || coalesce(document, 'null')
            || ',"' || to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
            || '+00:00"]', ',' ORDER BY seq) || ']' AS events
        FROM (
            SELECT *, sum(length) OVER (ORDER BY seq) - length AS preceding FROM (
                SELECT *, coalesce(octet_length(before), 0) + coalesce(octet_length(after), 0)
                    + coalesce(octet_length(document), 0) AS length
                FROM cocobase_realtime_logevent
                WHERE collection = f.name AND seq > f.seq ORDER BY seq LIMIT page_events) page
        ) measured
        WHERE preceding < page_bytes
    ) e ON f.epoch = s.epoch AND f.seq < s.head;
    RETURN result;
END
$function$
"""


def install(apps, schema_editor, function=FUNCTION):
    connection = schema_editor.connection
    if connection.vendor != 'postgresql':
        return
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(SCHEMA)
            (schema,) = cursor.fetchone()
            cursor.execute(function.replace('__schema__', connection.ops.quote_name(schema)))
    except DatabaseError as error:
        if getattr(error.__cause__, 'sqlstate', None) not in NOT_POSSIBLE:
            raise
        logger.warning('The function that numbers events was not created: %s', error)


def remove(apps, schema_editor):
    if schema_editor.connection.vendor == 'postgresql':
        schema_editor.execute(f'DROP FUNCTION IF EXISTS {SIGNATURE}')


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0007_key_scopes'),
    ]

    operations = [
        migrations.RunPython(install, remove),
    ]
