-- Accounts, organizations, workspaces, the audit log.

CREATE SCHEMA IF NOT EXISTS api;

-- People. How they prove who they are is kept apart (passwords here; identity providers later), so that one account can have several ways in.
CREATE TABLE api.users (
    id         uuid        PRIMARY KEY,
    name       text        NOT NULL,
    email      text        NOT NULL,                 -- of the account
    git_email  text        NOT NULL,                 -- git's user.email in their workspaces
    admin      boolean     NOT NULL DEFAULT false,
    local      boolean     NOT NULL DEFAULT false,   -- root at the server's unix socket: never signs in
    revision   bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX users_email_key ON api.users (lower(email));
CREATE UNIQUE INDEX users_local_key ON api.users (local) WHERE local;

CREATE TABLE api.passwords (
    user_id    uuid        PRIMARY KEY REFERENCES api.users (id) ON DELETE CASCADE,
    hash       text        NOT NULL,                 -- PHC string, argon2id
    updated_at timestamptz NOT NULL
);

-- The one-time link that makes the first administrator. One row; the secret is kept as SHA-256.
CREATE TABLE api.setup (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    hash       bytea       NOT NULL,
    created_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE TABLE api.organizations (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL,
    personal_of uuid        REFERENCES api.users (id) ON DELETE CASCADE, -- the one that every user has
    revision    bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE UNIQUE INDEX organizations_personal_key ON api.organizations (personal_of) WHERE personal_of IS NOT NULL;

CREATE TABLE api.members (
    organization_id uuid        NOT NULL REFERENCES api.organizations (id) ON DELETE CASCADE,
    user_id         uuid        NOT NULL REFERENCES api.users (id) ON DELETE CASCADE,
    role            text        NOT NULL CHECK (role IN ('owner', 'member')),
    created_at      timestamptz NOT NULL,
    CONSTRAINT members_pkey PRIMARY KEY (organization_id, user_id)
);
CREATE INDEX members_user ON api.members (user_id) INCLUDE (organization_id, role);

CREATE TABLE api.sessions (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES api.users (id) ON DELETE CASCADE,
    hash         bytea       NOT NULL,               -- SHA-256 of the cookie
    created_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,               -- whatever happens
    address      text,
    user_agent   text,
    CONSTRAINT sessions_hash_key UNIQUE (hash)
);
CREATE INDEX sessions_user ON api.sessions (user_id);
CREATE INDEX sessions_expiry ON api.sessions (expires_at);

CREATE TABLE api.tokens (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES api.users (id) ON DELETE CASCADE,
    name         text        NOT NULL,
    prefix       text        NOT NULL,               -- shown, to recognise it
    hash         bytea       NOT NULL,               -- SHA-256 of the whole secret
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,                        -- written once an hour at most
    revoked_at   timestamptz,
    CONSTRAINT tokens_hash_key UNIQUE (hash)
);
CREATE INDEX tokens_user ON api.tokens (user_id, id DESC) WHERE revoked_at IS NULL;

CREATE TABLE api.workspaces (
    id                  uuid        PRIMARY KEY,
    name                text        NOT NULL,
    owner_id            uuid        NOT NULL REFERENCES api.users (id),
    organization_id     uuid        NOT NULL REFERENCES api.organizations (id),
    context_url         text        NOT NULL,        -- as given
    context             jsonb       NOT NULL,        -- as resolved when it was made
    allow_private_hosts text[]      NOT NULL DEFAULT '{}',
    repository          text        NOT NULL,        -- for people
    repository_key      text        NOT NULL,        -- host/owner/name
    reference           text,
    commit_id           text,
    checkout_path       text        NOT NULL,
    class               text        NOT NULL,
    image               text,
    inactivity_seconds  integer,
    instance_id         uuid,                        -- its newest run
    revision            bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    deleting_at         timestamptz,                 -- being deleted: stop, wipe the disk, then deleted_at
    deleted_at          timestamptz                  -- kept for the audit log and for usage
);
CREATE UNIQUE INDEX workspaces_owner_name_key ON api.workspaces (owner_id, name) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_owner ON api.workspaces (owner_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_organization ON api.workspaces (organization_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_all ON api.workspaces (id DESC) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_deleting ON api.workspaces (deleting_at) WHERE deleting_at IS NOT NULL AND deleted_at IS NULL;

-- One run of a workspace. What ws-manager says of it is copied here, with its version, so that an older word never wins.
CREATE TABLE api.instances (
    id                uuid        PRIMARY KEY,
    workspace_id      uuid        NOT NULL REFERENCES api.workspaces (id),
    first_start       boolean     NOT NULL,
    phase             text        NOT NULL CHECK (phase IN ('Pending', 'Imagebuild', 'Creating', 'Initializing', 'Running', 'Stopping', 'Stopped')),
    reason            text        NOT NULL DEFAULT '',
    failed            boolean     NOT NULL DEFAULT false,
    version           bigint      NOT NULL DEFAULT 0,
    node              text,
    image_digest      text,
    request_steps     jsonb       NOT NULL DEFAULT '[]', -- measured here
    steps             jsonb       NOT NULL DEFAULT '[]', -- measured by the node
    requested_at      timestamptz NOT NULL,
    total_us          bigint,                            -- from the request to Running
    started_at        timestamptz,                       -- billable interval
    stopped_at        timestamptz,
    last_activity     timestamptz,
    timeout_warning   text,
    created_at        timestamptz NOT NULL,
    accepted_at       timestamptz,                       -- ws-manager took the start; until then a job sends it again
    stop_requested_at timestamptz,
    stop_reason       text        NOT NULL DEFAULT '',
    stop_accepted_at  timestamptz,                       -- ws-manager took the stop; until then a job sends it again
    acknowledged_at   timestamptz                        -- ws-manager was told that its last word is kept here
);
CREATE INDEX instances_workspace ON api.instances (workspace_id, id DESC);
-- A workspace runs once at a time: two starts at the same moment meet here.
CREATE UNIQUE INDEX instances_live_key ON api.instances (workspace_id) WHERE phase <> 'Stopped';
CREATE INDEX instances_live ON api.instances (id) WHERE phase <> 'Stopped';

CREATE TABLE api.audit (
    id          uuid        PRIMARY KEY,
    at          timestamptz NOT NULL,
    actor_id    uuid,                                -- none: nobody was signed in
    actor       text        NOT NULL,                -- their address then, or what acted
    credential  text        NOT NULL,                -- token:<id>, session:<id>, local, none
    action      text        NOT NULL,                -- workspace.create, ...
    target_type text        NOT NULL,
    target_id   uuid,
    target      text        NOT NULL DEFAULT '',     -- its name then
    address     text        NOT NULL DEFAULT '',     -- where from
    user_agent  text        NOT NULL DEFAULT '',
    result      text        NOT NULL CHECK (result IN ('done', 'denied', 'failed')),
    detail      jsonb
);
CREATE INDEX audit_target ON api.audit (target_id, id DESC) WHERE target_id IS NOT NULL;
CREATE INDEX audit_actor ON api.audit (actor_id, id DESC) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_action ON api.audit (action, id DESC);

-- The audit log only grows.
CREATE FUNCTION api.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON api.audit
    FOR EACH ROW EXECUTE FUNCTION api.refuse_audit_change();

-- Answers to requests with an Idempotency-Key, for a day.
CREATE TABLE api.idempotency (
    user_id      uuid        NOT NULL REFERENCES api.users (id) ON DELETE CASCADE,
    key          text        NOT NULL,
    request      bytea       NOT NULL,               -- SHA-256 of method, path, query and body
    locked_until timestamptz NOT NULL,               -- the first request is at work until then, if its process lives
    resource_id  uuid,                               -- what it made, written in the transaction that made it
    status       smallint,
    content_type text,
    location     text,
    etag         text,
    body         bytea,
    created_at   timestamptz NOT NULL,
    CONSTRAINT idempotency_pkey PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_age ON api.idempotency (created_at);
