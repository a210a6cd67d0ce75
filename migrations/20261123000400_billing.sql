-- What was used, and what it costs.

CREATE SCHEMA billing;

-- Credits per hour of a class, by time. The newest row of a class has no end; a change of price closes it and opens another.
CREATE TABLE billing.prices (
    class            text           NOT NULL,
    valid_from       timestamptz    NOT NULL,   -- -infinity: the first price that was ever known
    valid_to         timestamptz,
    credits_per_hour numeric(20, 6) NOT NULL CONSTRAINT prices_not_negative CHECK (credits_per_hour >= 0),
    PRIMARY KEY (class, valid_from),
    CONSTRAINT prices_forward CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX prices_open_key ON billing.prices (class) WHERE valid_to IS NULL;

-- One billable interval [started_at, stopped_at) of one instance, derived from the events of the instance. Times are whole milliseconds.
CREATE TABLE billing.usage_records (
    id               uuid           PRIMARY KEY,
    instance_id      uuid           NOT NULL,
    workspace_id     uuid           NOT NULL,
    workspace_name   text           NOT NULL,   -- when it started
    owner_id         uuid           NOT NULL,
    organization_id  uuid           NOT NULL,
    repository       text           NOT NULL,   -- host/owner/name
    class            text           NOT NULL,
    credits_per_hour numeric(20, 6),            -- when it started; none until the class's price is known
    started_at       timestamptz    NOT NULL,
    stopped_at       timestamptz,               -- none while it runs; never changes once set
    version          bigint         NOT NULL,   -- of the newest event
    CONSTRAINT usage_records_instance_key UNIQUE (instance_id),
    CONSTRAINT usage_records_forward CHECK (stopped_at >= started_at)
);
CREATE INDEX usage_records_time ON billing.usage_records (started_at DESC, id DESC);
CREATE INDEX usage_records_owner ON billing.usage_records (owner_id, started_at DESC, id DESC);
CREATE INDEX usage_records_organization ON billing.usage_records (organization_id, started_at DESC, id DESC);
CREATE INDEX usage_records_open ON billing.usage_records (started_at) WHERE stopped_at IS NULL;
CREATE INDEX usage_records_unpriced ON billing.usage_records (class) WHERE credits_per_hour IS NULL;

-- Events that could not be understood: kept for a person to look at, so that one of them does not hold up the rest.
CREATE TABLE billing.rejected_events (
    event_id    bigint      PRIMARY KEY,
    payload     jsonb       NOT NULL,
    error       text        NOT NULL,
    rejected_at timestamptz NOT NULL
);

-- Credits of the first `ms` milliseconds, to the millionth, half rounded up. What an interval costs between two moments is the difference
-- of two of these, so the parts of an interval always add up to the whole.
CREATE FUNCTION billing.credits(credits_per_hour numeric, ms bigint) RETURNS numeric
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN div(credits_per_hour * 1000000 * ms * 2 + 3600000, 7200000) * 0.000001;
