"""Add the number in the hidden stream that an event needs, and the function that sets it.

The function of migration 0008 remains, for processes of the version before, which call it until
they are replaced.
"""

from importlib import import_module

from django.db import migrations, models

previous = import_module(f'{__package__}.0008_numbering_function')

SIGNATURE = 'cocobase_realtime_follow(text[], text[], bigint[], text[], integer, integer, integer)'

# The function does the same as the one of migration 0008, and takes for each stream the name of the
# hidden stream of the tables that its permissions depend on, or null. Events of such a stream are
# numbered together with those of the hidden one, and get its head.
#
# In READ COMMITTED, what is read first is numbered last: the function reads the ids of the events in
# the shown streams, and then those in the hidden one. So all events of the hidden stream that were
# committed before one of the shown events are among them, and what is committed in between waits for
# the next call. If the hidden stream has too many events for one call, the events that depend on
# them wait. If its row does not exist yet, the streams that depend on it are left out.
#
# All streams are locked, in the order of their names, before anything is read.
FUNCTION = """
CREATE OR REPLACE FUNCTION __schema__.cocobase_realtime_follow(
    names text[], epochs text[], positions bigint[], related text[],
    page_events integer, page_bytes integer, backlog_events integer)
RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = __schema__, pg_temp SET enable_seqscan = off AS $function$
#variable_conflict use_column
DECLARE
    waiting text[];
    hidden text;
    requested integer;
    depends boolean;
    -- the streams that are locked, the hidden one last
    stream_ids bigint[];
    streams text[];
    heads bigint[];
    -- the events to number, those of one stream after those of another, and how many there are up
    -- to each stream
    ids bigint[] := '{}';
    ends integer[] := '{}';
    stream_name text;
    stream_events bigint[];
    -- the numbers of the hidden stream's events are up to this one
    related_head bigint;
    must_wait boolean := false;
    starts bigint[] := array_fill(NULL::bigint, ARRAY[cardinality(names)]);
    size bigint;
    last_id bigint;
    examined bigint;
    numbered bigint;
    unfinished text[] := '{}';
    result text;
BEGIN
    waiting := ARRAY(
        SELECT name FROM unnest(names) name WHERE EXISTS (
            SELECT FROM cocobase_realtime_logevent WHERE collection = name AND seq IS NULL));
    IF cardinality(waiting) > 0 THEN
        FOR place IN 1 .. cardinality(names) LOOP
            IF related[place] IS NOT NULL AND names[place] = ANY (waiting) THEN
                hidden := related[place];
                EXIT;
            END IF;
        END LOOP;
        SELECT array_agg(id), array_agg(collection), array_agg(head)
        INTO stream_ids, streams, heads FROM (
            SELECT * FROM (
                SELECT id, collection::text, head FROM cocobase_realtime_stream
                WHERE collection = ANY (waiting || hidden) ORDER BY collection FOR UPDATE) locked
            ORDER BY collection = hidden) sorted;
        FOR place IN 1 .. coalesce(cardinality(streams), 0) LOOP
            stream_name := streams[place];
            SELECT array_agg(id ORDER BY last, id) INTO stream_events FROM (
                SELECT id, max(id) OVER (PARTITION BY transaction_id) AS last FROM (
                    SELECT id, transaction_id FROM cocobase_realtime_logevent
                    WHERE collection >= stream_name AND collection <= stream_name
                        AND seq IS NULL
                    ORDER BY collection, id LIMIT page_events + 1) w) w;
            IF cardinality(stream_events) > page_events THEN
                SELECT count(*) INTO size FROM (
                    SELECT FROM cocobase_realtime_logevent
                    WHERE collection >= stream_name AND collection <= stream_name
                        AND seq IS NULL
                    ORDER BY collection, id LIMIT 40 * backlog_events) w;
                size := least(greatest(size / 8, backlog_events), 5 * backlog_events);
                LOOP
                    SELECT max(id), count(*) INTO last_id, examined FROM (
                        SELECT id FROM cocobase_realtime_logevent
                        WHERE collection >= stream_name AND collection <= stream_name
                            AND seq IS NULL
                        ORDER BY collection, id LIMIT size) w;
                    WITH first AS MATERIALIZED (
                        SELECT id, transaction_id, max(id) OVER (PARTITION BY transaction_id) AS last
                        FROM cocobase_realtime_logevent
                        WHERE collection = stream_name AND seq IS NULL AND id <= last_id
                    ), incomplete AS MATERIALIZED (
                        SELECT DISTINCT transaction_id FROM cocobase_realtime_logevent
                        WHERE collection = stream_name AND seq IS NULL AND id > last_id
                            AND transaction_id IN (SELECT transaction_id FROM first)
                    )
                    SELECT array_agg(id ORDER BY last, id) INTO stream_events FROM first
                    WHERE transaction_id NOT IN (SELECT transaction_id FROM incomplete);
                    EXIT WHEN examined < size OR cardinality(stream_events) >= backlog_events / 2;
                    size := size * 4;
                END LOOP;
                unfinished := unfinished || stream_name;
            END IF;
            ids := ids || stream_events;
            ends[place] := cardinality(ids);
            IF stream_name = hidden THEN
                related_head := heads[place] + coalesce(cardinality(stream_events), 0);
                must_wait := stream_name = ANY (unfinished);
            END IF;
        END LOOP;
        FOR place IN 1 .. coalesce(cardinality(streams), 0) LOOP
            stream_name := streams[place];
            stream_events := ids[coalesce(ends[place - 1], 0) + 1 : ends[place]];
            requested := array_position(names, stream_name);
            depends := related[requested] IS NOT NULL;
            CONTINUE WHEN depends AND related_head IS NULL;
            IF depends AND must_wait THEN
                stream_events := '{}';
                unfinished := unfinished || stream_name;
            END IF;
            UPDATE cocobase_realtime_logevent e SET seq = heads[place] + given.number,
                related_seq = CASE WHEN depends THEN related_head END
            FROM unnest(stream_events) WITH ORDINALITY AS given(id, number) WHERE e.id = given.id;
            GET DIAGNOSTICS numbered = ROW_COUNT;
            UPDATE cocobase_realtime_stream SET head = heads[place] + numbered
            WHERE id = stream_ids[place];
            IF requested IS NOT NULL THEN
                starts[requested] := heads[place];
            END IF;
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
            || '+00:00",' || coalesce(related_seq::text, 'null') || ']', ',' ORDER BY seq)
            || ']' AS events
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


def install(apps, schema_editor):
    previous.install(apps, schema_editor, FUNCTION)


def remove(apps, schema_editor):
    if schema_editor.connection.vendor == 'postgresql':
        schema_editor.execute(f'DROP FUNCTION IF EXISTS {SIGNATURE}')


class Migration(migrations.Migration):

    dependencies = [
        ('cocobase_realtime', '0008_numbering_function'),
    ]

    operations = [
        migrations.AddField(
            model_name='logevent',
            name='related_seq',
            field=models.BigIntegerField(null=True),
        ),
        migrations.RunPython(install, remove),
    ]
