-- The outbox: what one service tells the others, written in the transaction that makes it true.
CREATE SCHEMA outbox;

CREATE TABLE outbox.events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Readers take only rows of transactions below every running one, so a late commit with a low id is never skipped.
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    topic      text NOT NULL,
    key        text NOT NULL,
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX events_topic_position ON outbox.events (topic, xid, id);

CREATE TABLE outbox.offsets (
    consumer text NOT NULL,
    topic    text NOT NULL,
    xid      xid8 NOT NULL DEFAULT '0',
    id       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer, topic)
);
