-- Tasks and services of workspaces, and their runs.

CREATE SCHEMA automations;

-- One row per workspace that ever ran: its newest instance, and what its automations file said.
CREATE TABLE automations.workspaces (
    workspace_id        uuid        PRIMARY KEY,
    instance_id         uuid        NOT NULL,                -- the newest
    version             bigint      NOT NULL,                -- of its newest event
    running             boolean     NOT NULL,
    first_start         boolean     NOT NULL,
    repository          text        NOT NULL,
    read_for            uuid,                                -- instance for which the file was read and the triggers fired
    reload              boolean     NOT NULL DEFAULT false,  -- read it again; no trigger fires
    file_state          text        NOT NULL DEFAULT 'unread'
                        CONSTRAINT workspaces_file_state CHECK (file_state IN ('unread', 'absent', 'applied', 'refused', 'unreadable')),
    file_path           text        NOT NULL DEFAULT '',
    errors              jsonb       NOT NULL DEFAULT '[]',
    warnings            jsonb       NOT NULL DEFAULT '[]',
    updated_at          timestamptz NOT NULL
);
CREATE INDEX workspaces_running ON automations.workspaces (instance_id) WHERE running;

-- Tasks and services as the file last defined them.
CREATE TABLE automations.units (
    workspace_id uuid  NOT NULL REFERENCES automations.workspaces (workspace_id) ON DELETE CASCADE,
    reference    text  NOT NULL,
    kind         text  NOT NULL CONSTRAINT units_kind CHECK (kind IN ('task', 'service')),
    definition   jsonb NOT NULL,
    PRIMARY KEY (workspace_id, reference)
);

-- One run of a task or service.
CREATE TABLE automations.executions (
    id             uuid        PRIMARY KEY,
    workspace_id   uuid        NOT NULL REFERENCES automations.workspaces (workspace_id) ON DELETE CASCADE,
    instance_id    uuid        NOT NULL,
    reference      text        NOT NULL,
    kind           text        NOT NULL CONSTRAINT executions_kind CHECK (kind IN ('task', 'service')),
    definition     jsonb       NOT NULL,                -- as it was when the run was asked for
    started_by     text        NOT NULL,                -- a trigger, `manual`, or `dependency`
    phase          text        NOT NULL
                   CONSTRAINT executions_phase CHECK (phase IN ('Pending', 'Starting', 'Running', 'Stopping', 'Stopped', 'Succeeded', 'Failed')),
    reason         text        NOT NULL DEFAULT '',
    stop_requested boolean     NOT NULL DEFAULT false,
    runs_before    bigint,                              -- runs of the unit before we asked for ours: a crash between asking and noting starts nothing twice
    run            bigint,                              -- number of the unit's run that is ours
    exit_code      integer,
    outputs        jsonb       NOT NULL DEFAULT '{}',
    log            bytea,                               -- the end of its output, once it has ended
    created_at     timestamptz NOT NULL,
    started_at     timestamptz,
    ready_at       timestamptz,
    finished_at    timestamptz
);
CREATE INDEX executions_newest ON automations.executions (workspace_id, reference, id DESC);
-- One run of a unit at a time: two starts at the same moment meet here.
CREATE UNIQUE INDEX executions_live_key ON automations.executions (instance_id, reference)
    WHERE phase IN ('Pending', 'Starting', 'Running', 'Stopping');
