-- Who tells Kafka what happened, and how far it has got: one row from the first day of a cluster
-- on, since a node by itself has nobody to tell. A claim is a beat, so its times are the database's
-- own (clock_timestamp()).

CREATE TABLE outbox (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    xid xid8 NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),
    number bigint NOT NULL DEFAULT 0,             -- told up to here, as event_readers has it
    token bigint NOT NULL,                        -- of who tells now; grows with every change
    incarnation bigint NOT NULL,
    held_until timestamptz NOT NULL,
    dropped bigint NOT NULL DEFAULT 0             -- events that were dropped unread, ever
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO tickwright_node;
