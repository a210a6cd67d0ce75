//! Public routes of other services. In the split shape api forwards them, behind its own rate limits and idempotency keys
//! ([`crate::Api::protect`]), so that they behave there as they do in one process.

/// Services, and the paths that belong to them.
pub const ROUTES: &[(&str, &[&str])] = &[
    ("scm", &["/api/v1/git-credentials", "/api/v1/git-credentials/{*rest}"]),
    // Idempotency keys are here; everything else of the gateway's does not pass by.
    ("gateway", &["/api/v1/workspaces/{workspace}/terminals"]),
    ("billing", &["/api/v1/usage", "/api/v1/usage.csv"]),
    (
        "automations",
        &[
            "/api/v1/workspaces/{workspace}/automations/{*rest}",
            "/api/v1/workspaces/{workspace}/services",
            "/api/v1/workspaces/{workspace}/services/{*rest}",
            "/api/v1/workspaces/{workspace}/tasks",
            "/api/v1/workspaces/{workspace}/tasks/{*rest}",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use axum::routing::any;
    use tower::ServiceExt as _;

    use super::ROUTES;

    /// Paths of a committed document, without those that the gateway serves itself.
    fn paths(document: &str) -> BTreeSet<String> {
        let value: serde_json::Value = serde_json::from_str(document).unwrap();
        let gateways = |operations: &serde_json::Value| {
            operations.as_object().unwrap().values().any(|operation| operation["tags"][0] == "inside")
        };
        let all = value["paths"].as_object().unwrap();
        all.iter().filter(|(_, operations)| !gateways(operations)).map(|(path, _)| path.clone()).collect()
    }

    #[tokio::test]
    async fn every_operation_of_another_service_is_passed_on() {
        let all = paths(include_str!("../../../openapi/berth.json"));
        let own = paths(include_str!("../../../openapi/api.json"));
        let routes = ROUTES.iter().flat_map(|(_, paths)| *paths);
        let router = routes.fold(Router::new(), |router, path| router.route(path, any(|| async {})));
        for path in &all {
            let path_of_one = path.replace(['{', '}'], "");
            let request = Request::get(path_of_one.as_str()).body(Body::empty()).unwrap();
            let passed_on = router.clone().oneshot(request).await.unwrap().status() == StatusCode::OK;
            assert_ne!(passed_on, own.contains(path), "{path}");
        }
    }
}
