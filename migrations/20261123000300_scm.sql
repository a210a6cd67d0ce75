-- Git hosts: credentials of users.

CREATE SCHEMA scm;

-- One data key per user, wrapped by the installation's master key (AES-256-GCM; nonce, then ciphertext).
CREATE TABLE scm.data_keys (
    user_id    uuid        PRIMARY KEY,
    wrapped    bytea       NOT NULL,
    created_at timestamptz NOT NULL
);

-- One credential per user and host. The password is sealed with the user's data key, bound to table, row and column.
CREATE TABLE scm.git_credentials (
    id           uuid        PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES scm.data_keys (user_id) ON DELETE CASCADE,
    host         text        NOT NULL,   -- lower case, with a port that is not the default
    username     text        NOT NULL,
    password     bytea       NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    last_used_at timestamptz,            -- written once an hour at most
    CONSTRAINT git_credentials_user_host_key UNIQUE (user_id, host)
);
