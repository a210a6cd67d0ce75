-- The embedded Kubernetes API server's objects.

CREATE SCHEMA IF NOT EXISTS kube;

-- The last resource version given. One row; a commit moves it on, and moves nothing else if it is not where the writer left it.
CREATE TABLE kube.revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last     bigint  NOT NULL CHECK (last >= 0)
);

-- Starts above 1: clients take resource version 0 and 1 for "any".
INSERT INTO kube.revision (last) VALUES (1);

CREATE TABLE kube.objects (
    resource         text   NOT NULL, -- plural.group, or the plural alone in the core group
    namespace        text   NOT NULL, -- empty for cluster-scoped kinds
    name             text   NOT NULL,
    resource_version bigint NOT NULL,
    body             text   NOT NULL, -- the object's JSON, byte for byte as clients get it
    PRIMARY KEY (resource, namespace, name)
);
