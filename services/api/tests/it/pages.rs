//! The page that a set-up link opens.

use crate::support::service_at_rest;

#[tokio::test]
async fn the_setup_link_opens_a_page_that_can_call_nothing_but_this_api() {
    let (service, _) = service_at_rest().await;
    let link = service.api.setup_link().await.unwrap().unwrap();
    let path = link.strip_prefix(crate::support::ORIGIN).unwrap().split('#').next().unwrap();
    for path in [path, "/"] {
        let page = service.nobody().get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = page.header("content-security-policy");
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
    }
    for (path, content_type) in [("/welcome.css", "text/css"), ("/welcome.js", "text/javascript")] {
        let file = service.nobody().get(path).await;
        assert_eq!((file.status, file.header("content-type")), (200, content_type));
    }
}
