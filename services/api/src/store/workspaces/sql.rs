//! The statements that read workspaces, assembled from parts at compile time.

/// Each workspace with its newest run.
macro_rules! select_workspace {
    ($($tail:tt)*) => {
        concat!(
            "SELECT w.id, w.name, w.owner_id, w.organization_id, w.context_url, w.repository, w.repository_key, w.reference, w.commit_id,
               w.checkout_path, w.class, w.image, w.inactivity_seconds, w.revision, w.created_at, w.deleting_at IS NOT NULL AS deleting, (w.xmin::text::bigint << 32) | coalesce(i.xmin::text::bigint, 0) AS stamp,
               i.id AS instance_id, i.first_start, i.phase, i.reason, i.failed, i.version, i.node, i.image_digest, i.resources, i.request_steps, i.steps,
               i.requested_at, i.total_us, i.started_at, i.stopped_at, i.last_activity, i.timeout_warning, i.accepted_at,
               i.stop_requested_at, i.stop_reason
             FROM api.workspaces w LEFT JOIN api.instances i ON i.id = w.instance_id ",
            $($tail)*
        )
    };
}

/// The same rows, as their stamps only.
macro_rules! select_stamp {
    ($($tail:tt)*) => {
        concat!(
            "SELECT w.id, (w.xmin::text::bigint << 32) | coalesce(i.xmin::text::bigint, 0) AS stamp
             FROM api.workspaces w LEFT JOIN api.instances i ON i.id = w.instance_id ",
            $($tail)*
        )
    };
}

/// A page's stamps in one row: fifty rows cost more to send and to parse than to find.
macro_rules! in_one_row {
    ($stamps:expr) => {
        concat!("SELECT coalesce(array_agg(id), '{}'), coalesce(array_agg(stamp), '{}') FROM (", $stamps, ") AS page")
    };
}

/// The condition that a workspace is not deleted, for a lookup by its key. Written plainly, as in lists, it would let Postgres use the
/// partial index of existing workspaces; if it plans while that index is nearly empty, it scans all of it for one workspace, and keeps that
/// plan while the index grows.
macro_rules! not_deleted {
    () => {
        "coalesce(w.deleted_at, 'infinity') = 'infinity'"
    };
}

/// The rows of the workspaces in `$1`, as the given macro selects them, each looked up by its key. The array comes from a subquery, so that
/// plans do not depend on its length and one plan serves all.
macro_rules! of_ids {
    ($select:ident) => {
        concat!(
            "SELECT found.* FROM unnest((SELECT $1::uuid[])) AS wanted(id), LATERAL (",
            $select!("WHERE w.id = wanted.id AND ", not_deleted!(), " LIMIT 1"),
            ") AS found"
        )
    };
}

/// The rows of a page; one statement a scope, so that each is planned for its own index.
macro_rules! page_of {
    ($scope:literal) => {
        concat!(
            "WHERE ",
            $scope,
            " AND w.id < $2 AND w.deleted_at IS NULL
               AND ($3::text[] IS NULL OR coalesce(i.phase, 'Stopped') = ANY($3)) AND ($4::text IS NULL OR w.class = $4)
               AND ($5::text IS NULL OR w.repository_key = $5 OR w.repository = $5) AND ($6::text IS NULL OR starts_with(w.name, $6))
             ORDER BY w.id DESC LIMIT $7"
        )
    };
}

/// The rows of a page without a filter. A statement of its own: with filters that may be absent Postgres would plan anew at each execution.
macro_rules! page_of_all {
    ($scope:literal) => {
        concat!("WHERE ", $scope, " AND w.id < $2 AND w.deleted_at IS NULL ORDER BY w.id DESC LIMIT $3")
    };
}
