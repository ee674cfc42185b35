"""What the harness writes down inside the database: who took which epoch, and who fired by which.

The check that nothing of an old epoch commits after a newer one looks at the moment of the commit:
a deferred trigger runs there, and reads the newest epoch that is committed by then. With the
fence intact the row it reads is locked by the very statement, so it can only find its own.
"""

from __future__ import annotations

from typing import Final

import asyncpg

INSTALL: Final = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.epochs (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number smallint NOT NULL,
    epoch bigint NOT NULL,
    incarnation bigint,
    at timestamptz NOT NULL
);
CREATE TABLE chaos.fires (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number smallint NOT NULL,
    epoch bigint NOT NULL,
    moved integer NOT NULL,
    at timestamptz,
    newest bigint
);
CREATE FUNCTION chaos.took() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO chaos.epochs (number, epoch, incarnation, at)
    VALUES (NEW.number, NEW.epoch, NEW.incarnation, clock_timestamp());
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_took AFTER UPDATE OF epoch ON public.leaderships
    FOR EACH ROW WHEN (NEW.epoch <> OLD.epoch) EXECUTE FUNCTION chaos.took();
CREATE FUNCTION chaos.committing() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE chaos.fires f SET at = clock_timestamp(),
        newest = (SELECT l.epoch FROM public.leaderships l WHERE l.number = NEW.number)
    WHERE f.seq = NEW.seq;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER chaos_committing AFTER INSERT ON chaos.fires
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chaos.committing();
GRANT USAGE ON SCHEMA chaos TO tickwright_node;
GRANT INSERT ON chaos.fires TO tickwright_node;
"""

# What an instant's uniqueness rests on, taken out; plain indexes take its place, so that the plans
# which look an instant up are as fast as before.
FORGET_INSTANTS: Final = """
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT t.tgname, t.tgrelid::regclass AS relation
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE p.proname LIKE 'refuse\\_%' AND t.tgparentid = 0 AND NOT t.tgisinternal
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', one.tgname, one.relation);
    END LOOP;
END $$;
DROP INDEX executions_instant;
CREATE INDEX executions_instant ON executions (job_key, scheduled_for) WHERE origin = 0;
DROP INDEX execution_history_instant;
CREATE INDEX execution_history_instant ON execution_history (job_key, scheduled_for, origin);
"""


async def install(session: asyncpg.Connection, *, without: str | None) -> None:
    """Make the witness in a database that has been migrated; take out the name of an instant."""
    async with session.transaction():
        await session.execute(INSTALL)
        if without == "instant":
            await session.execute(FORGET_INSTANTS)
