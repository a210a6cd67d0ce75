use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use berth_api_types::context::{ContextType, Provider};
use berth_api_types::internal::{ResolveContext, ResolveContextReply};
use berth_testkit::GitServer;
use serde_json::json;

use crate::support::{serve, service, user};

fn gitea(server: &str) -> std::collections::BTreeMap<String, Provider> {
    [(server.to_owned(), Provider::Gitea)].into()
}

#[tokio::test]
async fn everything_a_repository_can_be_asked_for() {
    let server = GitServer::start().await.unwrap();
    let host = server.address().to_string();
    let repository = server.repository("team", "app", &[("README.md", "hi"), ("src/a.rs", "")]).unwrap();
    let main = repository.git(&["rev-parse", "refs/heads/main"]).unwrap();
    let feature = repository.commit("feature/login", "more", &[("src/b.rs", "")]).unwrap();
    repository.git(&["tag", "-a", "v1.0", "-m", "one", &main]).unwrap();
    repository.git(&["update-ref", "refs/pull/7/head", &feature]).unwrap();
    let service = service(std::slice::from_ref(&host), |config| config.hosts = gitea(&host)).await;
    let base = format!("http://{host}/team/app");

    let reply = service.resolved(&base).await;
    assert_eq!(reply.allow_private_hosts.as_slice(), std::slice::from_ref(&host));
    let resolved = reply.resolved;
    assert_eq!((resolved.fetch_ref.as_deref(), resolved.branch.as_deref()), (Some("refs/heads/main"), Some("main")));
    assert_eq!((resolved.commit.as_deref(), resolved.default_branch.as_deref()), (Some(main.as_str()), Some("main")));
    assert_eq!(resolved.context.clone_url, format!("{base}.git"));

    let resolved = service.resolved(&format!("{base}/src/branch/feature/login/src/b.rs#L1")).await.resolved;
    assert_eq!(resolved.context.kind, ContextType::File);
    assert_eq!(
        (resolved.context.reference.as_deref(), resolved.context.path.as_deref()),
        (Some("feature/login"), Some("src/b.rs"))
    );
    assert_eq!(
        (resolved.branch.as_deref(), resolved.commit.as_deref()),
        (Some("feature/login"), Some(feature.as_str()))
    );

    let resolved = service.resolved(&format!("{base}/src/tag/v1.0")).await.resolved;
    assert_eq!((resolved.fetch_ref.as_deref(), resolved.branch), (Some("refs/tags/v1.0"), None));
    assert_eq!(resolved.commit.as_deref(), Some(main.as_str()), "the commit, not the tag object");

    let resolved = service.resolved(&format!("{base}/pulls/7")).await.resolved;
    assert_eq!(
        (resolved.fetch_ref.as_deref(), resolved.commit.as_deref()),
        (Some("refs/pull/7/head"), Some(feature.as_str()))
    );

    let resolved = service.resolved(&format!("{base}/commit/{}", &feature[..9])).await.resolved;
    assert_eq!((resolved.fetch_ref, resolved.commit.as_deref()), (None, Some(feature.as_str())));

    let (code, text) = service.refused(&format!("{base}/src/branch/feature/logon")).await;
    assert_eq!(code, "ref_not_found");
    assert!(text.contains("\"feature/logon\": did you mean feature/login?"), "{text}");
    assert_eq!(service.refused(&format!("{base}/pulls/8")).await.0, "pull_request_not_found");
    assert_eq!(service.refused(&format!("{base}/commit/0123456")).await.0, "commit_not_found");
    let (code, text) = service.refused(&format!("http://{host}/team/nosuch")).await;
    assert_eq!(code, "repository_not_accessible");
    assert!(text.contains(&format!("berth git-credential add {host}")), "{text}");
}

#[tokio::test]
#[ignore = "a figure, not a test: `cargo test -p berth-scm --test it --release -- --ignored --nocapture`"]
async fn time_of_a_resolution() {
    let server = GitServer::start().await.unwrap();
    let host = server.address().to_string();
    server.repository("team", "app", &[("a", "b")]).unwrap();
    let service = service(std::slice::from_ref(&host), |_| {}).await;
    let url = format!("http://{host}/team/app.git");
    for round in 0..12 {
        let begun = tokio::time::Instant::now();
        service.resolved(&url).await;
        println!("round {round}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn an_empty_repository_can_be_opened() {
    let server = GitServer::start().await.unwrap();
    let host = server.address().to_string();
    server.repository("team", "empty", &[]).unwrap();
    let service = service(std::slice::from_ref(&host), |config| config.hosts = gitea(&host)).await;
    let resolved = service.resolved(&format!("http://{host}/team/empty.git")).await.resolved;
    assert_eq!((resolved.commit, resolved.fetch_ref, resolved.branch.as_deref()), (None, None, Some("main")));
    assert_eq!(service.refused(&format!("http://{host}/team/empty/src/branch/x")).await.0, "repository_empty");
}

#[tokio::test]
async fn a_host_that_sends_without_end_is_cut_off() {
    async fn endless() -> Response {
        let git = [(header::CONTENT_TYPE, "application/x-git-upload-pack-advertisement")];
        let chunk = axum::body::Bytes::from(vec![b'0'; 1 << 20]);
        let chunks = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        (git, axum::body::Body::from_stream(chunks)).into_response()
    }
    let host = serve(Router::new().fallback(endless)).await;
    let service = service(std::slice::from_ref(&host), |_| {}).await;
    let (code, text) = service.refused(&format!("http://{host}/huge.git")).await;
    assert_eq!(code, "repository_too_large");
    assert!(text.contains("more than 64 MiB"), "{text}");
}

#[tokio::test]
async fn a_private_repository_wants_the_stored_credential() {
    let server = GitServer::start_private("anna", "s3cret-token").await.unwrap();
    let host = server.address().to_string();
    server.repository("team", "app", &[("a", "b")]).unwrap();
    let service = service(std::slice::from_ref(&host), |_| {}).await;
    let url = format!("http://{host}/team/app.git");
    let (code, text) = service.refused(&url).await;
    assert_eq!(code, "repository_not_accessible");
    assert!(
        text.contains("does not exist or is private") && text.contains(&format!("berth git-credential add {host}")),
        "{text}"
    );

    let body = |password: &str| json!({ "host": host, "username": "anna", "password": password });
    assert_eq!(service.call("POST", "/api/v1/git-credentials", "anna", body("wrong")).await.status, 201);
    let (_, text) = service.refused(&url).await;
    assert!(text.contains("your stored credential") && !text.contains("wrong"), "{text}");

    assert_eq!(service.call("POST", "/api/v1/git-credentials", "anna", body("s3cret-token")).await.status, 200);
    assert!(service.resolved(&url).await.resolved.commit.is_some());
}

#[tokio::test]
async fn bad_urls_and_hosts_that_are_not_allowed() {
    let server = GitServer::start().await.unwrap();
    server.repository("team", "app", &[("a", "b")]).unwrap();
    let port = server.address().port();
    let service = service(&["localhost:1".to_owned()], |_| {}).await;
    for (url, code, words) in [
        (format!("http://127.0.0.1:{port}/team/app"), "invalid_context_url", "scm.allow_private_hosts"),
        (format!("https://127.0.0.1:{port}/team/app"), "git_host_refused", "private address 127.0.0.1"),
        (format!("https://localhost:{port}/team/app"), "git_host_refused", "private address"),
        (format!("https://[::1]:{port}/team/app"), "git_host_refused", "private address ::1"),
        ("https://169.254.169.254/latest/meta".to_owned(), "git_host_refused", "private address"),
        ("https://user:pw@github.com/o/n".to_owned(), "invalid_context_url", "credentials"),
        ("https://github.com/o/--upload-pack=x".to_owned(), "invalid_context_url", "dash"),
        ("https://github.com/o/n%0a".to_owned(), "invalid_context_url", "control character"),
        ("https://no-such-host.invalid/o/n".to_owned(), "unknown_git_host", "no-such-host.invalid cannot be resolved"),
        ("http://localhost:1/o/n".to_owned(), "git_host_unreachable", "localhost:1 cannot be reached"),
    ] {
        let (found, text) = service.refused(&url).await;
        assert_eq!(found, code, "{url}: {text}");
        assert!(text.contains(words), "{url}: {text}");
        assert!(!text.contains("pw"), "{text}");
    }
}

/// However it is written, nobody gets to the machine's own loopback.
#[tokio::test]
async fn loopback_is_refused_in_every_disguise() {
    let service = service(&[], |_| {}).await;
    // Of IPv4, by octet, by base, shortened, as one number, padded, in other alphabets, percent-encoded, and in IPv6.
    let disguises = [
        "127.0.0.1",
        "127.0.0.2",
        "127.255.255.254",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0177.1",
        "00000177.0.0.1",
        "0x7f.0.0.1",
        "0x7f.1",
        "0x7f000001",
        "0X7F000001",
        "0x7F.0x0.0x0.0x1",
        "0x7f.0.0.01",
        "127.0.0.0x1",
        "017700000001",
        "2130706433",
        "02130706433",
        "127.0.0.1.",
        "127.0.0.1..",
        "127.000.000.001",
        "0127.0.0.1",
        "1２7.0.0.1",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        "127.0.0.1%00.example.org",
        "0",
        "0.0.0.0",
        "000.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[::1%25lo]",
        "[::1%lo]",
        "[fe80::1%25lo]",
        "user@127.0.0.1",
        "example.org@127.0.0.1",
        "127.0.0.1#example.org",
        "127.0.0.1\\example.org",
    ];
    for host in disguises {
        let url = format!("https://{host}/o/n");
        let (code, text) = service.refused(&url).await;
        assert!(["invalid_context_url", "git_host_refused"].contains(&&*code), "{url}: {code}: {text}");
    }
}

#[tokio::test]
async fn hosts_that_misbehave() {
    async fn bad(request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let git = [(header::CONTENT_TYPE, "application/x-git-upload-pack-advertisement")];
        match path.split('/').nth(1).unwrap_or_default() {
            "login" => ([(header::CONTENT_TYPE, "text/html")], "<html>sign in</html>").into_response(),
            "garbage" => (git, "<html>").into_response(),
            "error" => (git, "0013ERR go away\n000").into_response(),
            "busy" => StatusCode::TOO_MANY_REQUESTS.into_response(),
            "broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            "away" => (StatusCode::FOUND, [(header::LOCATION, "https://evil.example/x/info/refs")]).into_response(),
            "signin" => (StatusCode::FOUND, [(header::LOCATION, "/users/sign_in")]).into_response(),
            "circle" => {
                (StatusCode::FOUND, [(header::LOCATION, "/circle/info/refs?service=git-upload-pack")]).into_response()
            }
            "slow" => {
                std::future::pending::<()>().await;
                StatusCode::OK.into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }
    let host = serve(Router::new().fallback(bad)).await;
    let service = service(std::slice::from_ref(&host), |config| config.timeout_seconds = 1).await;
    for (name, code, words) in [
        ("login", "not_a_git_repository", "is not a git repository over smart HTTP"),
        ("garbage", "git_host_failed", "not git's protocol"),
        ("error", "git_host_failed", "not git's protocol"),
        ("busy", "git_host_failed", "429"),
        ("broken", "git_host_failed", "problem of its own"),
        ("away", "not_a_git_repository", "redirects to evil.example"),
        ("signin", "repository_not_accessible", "private"),
        ("circle", "not_a_git_repository", "circle"),
        ("slow", "git_host_timeout", "looking up refs"),
    ] {
        let (found, text) = service.refused(&format!("http://{host}/{name}")).await;
        assert_eq!(found, code, "{name}: {text}");
        assert!(text.contains(words) && text.contains(host.split(':').next().unwrap()), "{name}: {text}");
    }
}

#[tokio::test]
async fn an_old_server_and_a_renamed_repository() {
    const OID: &str = "1111111111111111111111111111111111111111";
    fn pkt(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }
    let advertisement = [
        pkt("# service=git-upload-pack\n"),
        "0000".to_owned(),
        pkt(&format!("{OID} HEAD\0multi_ack symref=HEAD:refs/heads/trunk\n")),
        pkt(&format!("{OID} refs/heads/trunk\n")),
        "0000".to_owned(),
    ]
    .concat();
    let git = [(header::CONTENT_TYPE, "application/x-git-upload-pack-advertisement")];
    let router = Router::new().route("/new.git/info/refs", get(move || async move { (git, advertisement) })).route(
        "/old.git/info/refs",
        get(|| async {
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "/new.git/info/refs?service=git-upload-pack")])
        }),
    );
    let host = serve(router).await;
    let service = service(std::slice::from_ref(&host), |_| {}).await;
    let resolved = service.resolved(&format!("http://{host}/old.git")).await.resolved;
    assert_eq!((resolved.branch.as_deref(), resolved.commit.as_deref()), (Some("trunk"), Some(OID)));
    assert_eq!(
        resolved.context.clone_url,
        format!("http://{host}/new.git"),
        "git in the workspace follows no redirects"
    );
    // A plain server that knows the repository by its whole name only.
    let resolved = service.resolved(&format!("http://{host}/new")).await.resolved;
    assert_eq!(resolved.context.clone_url, format!("http://{host}/new.git"));
    let (_, text) = service.refused(&format!("http://{host}/nosuch")).await;
    assert!(text.contains("/nosuch does not exist or is private"), "{text}");
}

#[tokio::test]
async fn bitbucket_pull_requests_go_by_the_api() {
    let server = GitServer::start().await.unwrap();
    let git_host = server.address().to_string();
    let repository = server.repository("scm/prj", "app", &[("a", "b")]).unwrap();
    let topic = repository.commit("topic", "more", &[("c", "d")]).unwrap();
    // One host: the API in front, everything else goes to the git server.
    async fn pull_request(request: Request) -> Response {
        let fork = request.uri().path().ends_with("/2");
        let key = if fork { "~eve" } else { "PRJ" };
        axum::Json(
            json!({ "fromRef": { "displayId": "topic", "repository": { "slug": "app", "project": { "key": key } } } }),
        )
        .into_response()
    }
    let upstream = git_host.clone();
    let forward = move |request: Request| {
        let upstream = upstream.clone();
        async move {
            let (parts, body) = request.into_parts();
            let client = reqwest_client();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut headers = parts.headers;
            headers.remove(header::HOST);
            let answer = client
                .request(parts.method, format!("http://{upstream}{}", parts.uri))
                .headers(headers)
                .body(body)
                .send()
                .await
                .unwrap();
            let status = answer.status();
            let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
            let bytes = answer.bytes().await.unwrap();
            let mut response = (status, bytes).into_response();
            if let Some(content_type) = content_type {
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            }
            response
        }
    };
    let router = Router::new()
        .route("/rest/api/latest/projects/prj/repos/app/pull-requests/{number}", get(pull_request))
        .fallback(forward);
    let host = serve(router).await;
    let service =
        service(std::slice::from_ref(&host), |config| config.hosts = [(host.clone(), Provider::BitbucketDc)].into())
            .await;
    let resolved = service.resolved(&format!("http://{host}/projects/prj/repos/app/pull-requests/1")).await.resolved;
    assert_eq!((resolved.context.kind, resolved.context.number), (ContextType::PullRequest, Some(1)));
    assert_eq!((resolved.branch.as_deref(), resolved.commit.as_deref()), (Some("topic"), Some(topic.as_str())));
    let (code, text) = service.refused(&format!("http://{host}/projects/prj/repos/app/pull-requests/2")).await;
    assert_eq!(code, "pull_request_from_fork");
    assert!(text.contains("~eve/app") && text.contains("\"topic\""), "{text}");
}

/// Counts the listings that reach a git server, and holds them back while the gate is closed.
#[derive(Clone)]
struct Turnstile {
    listings: Arc<AtomicUsize>,
    open: tokio::sync::watch::Sender<bool>,
}

impl Turnstile {
    fn around(git: Router) -> (Self, Router) {
        let this = Self { listings: Arc::default(), open: tokio::sync::watch::Sender::new(true) };
        let turnstile = this.clone();
        let router = git.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let turnstile = turnstile.clone();
            async move {
                let listing = request.method() == axum::http::Method::POST;
                // The answer is made before the wait: what is pushed meanwhile is not in it.
                let response = next.run(request).await;
                if listing {
                    turnstile.listings.fetch_add(1, Ordering::SeqCst);
                    turnstile.open.subscribe().wait_for(|open| *open).await.unwrap();
                }
                response
            }
        }));
        (this, router)
    }

    fn count(&self) -> usize {
        self.listings.load(Ordering::SeqCst)
    }

    async fn counted(&self, listings: usize) {
        while self.count() < listings {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_rush_asks_the_host_a_few_times_and_misses_no_push() {
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("team", "app", &[("a", "b")]).unwrap();
    let root = repository.path.parent().unwrap().parent().unwrap().to_owned();
    let (turnstile, router) = Turnstile::around(berth_git_serve::router(root, None, false));
    let host = serve(router).await;
    let service = service(std::slice::from_ref(&host), |_| {}).await;
    let url = format!("http://{host}/team/app.git");
    let before = service.resolved(&url).await.resolved.commit;
    let asked = turnstile.count();

    // One is under way, its answer already made, when somebody pushes.
    let begun = tokio::time::Instant::now();
    turnstile.open.send_replace(false);
    let early = service.resolved(&url);
    let push_and_ask = async {
        turnstile.counted(asked + 1).await;
        let pushed = repository.commit("main", "more", &[("c", "d")]).unwrap();
        let rush = futures::future::join_all((0..50).map(|_| service.resolved(&url)));
        let open = async {
            turnstile.counted(asked + 2).await;
            turnstile.open.send_replace(true);
        };
        (pushed, tokio::join!(rush, open).0)
    };
    let (early, (pushed, late)) = tokio::join!(early, push_and_ask);
    assert_eq!(early.resolved.commit, before);
    for reply in late {
        assert_eq!(reply.resolved.commit.as_deref(), Some(pushed.as_str()), "asked after the push");
    }
    // On a busy machine the questions come over a longer time; never is the host asked more often than once in 25 ms.
    let most = 3 + usize::try_from(begun.elapsed().as_millis() / 25).unwrap();
    let listings = turnstile.count() - asked;
    assert!(listings <= most, "{listings} listings for 51 questions, at most {most}");

    // Another user's question is another question, whatever the host thinks of them.
    let other = json!({ "host": host, "username": "ben", "password": "x" });
    assert_eq!(service.call("POST", "/api/v1/git-credentials", "ben", other).await.status, 201);
    let asked = turnstile.count();
    let (internal, question) = (service.internal(), ResolveContext { url: url.clone(), user_id: user("ben") });
    let ben = internal.post::<_, ResolveContextReply>("/internal/contexts/resolve", &question);
    let (anna, ben) = tokio::join!(service.resolved(&url), ben);
    assert_eq!(anna.resolved.commit, ben.unwrap().resolved.commit);
    assert_eq!(turnstile.count() - asked, 2);
}

fn reqwest_client() -> reqwest::Client {
    #[expect(clippy::disallowed_methods, reason = "the test's own proxy on loopback")]
    reqwest::Client::new()
}
