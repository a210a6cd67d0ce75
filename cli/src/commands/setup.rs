//! `berth setup`: what the page behind the one-time link does in a browser, for a terminal.

use anyhow::Context as _;
use berth_api_types::public::{CreateToken, CreatedToken, Setup, User};
use http::{Method, header};
use http_body_util::BodyExt as _;

use super::{Context, credentials, login, terminal};
use crate::args::Global;
use crate::client::{Client, Target, broke_off};
use crate::output;

/// Makes the first administrator, and a token for this terminal, with which they are signed in.
pub(crate) async fn run(context: &Context, global: &Global, link: &str, name: &str, email: &str) -> anyhow::Result<()> {
    let mut url = credentials::parse(link)?;
    let token = url.fragment().filter(|token| !token.is_empty() && url.path() == "/setup").map(str::to_owned);
    let token = token
        .with_context(|| format!("{link:?} is no set-up link: it looks like https://HOST/setup#TOKEN, in quotes"))?;
    url.set_fragment(None);
    url.set_path("");
    let password = terminal::secret(&format!("Password for {email} (12 characters at least):"))?;
    anyhow::ensure!(!password.is_empty(), "no password was given: pipe it in, as in `berth setup … < password.txt`");

    let client = Client::new(Target::Remote { url: url.clone(), token: None, ca: global.ca_cert.clone() });
    let setup = Setup { token, name: name.to_owned(), email: email.to_owned(), password };
    let response = client.send(Method::POST, "/api/v1/setup", serde_json::to_vec(&setup)?, &[]).await?;
    let cookie = response.headers().get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
    let cookie = cookie.and_then(|cookie| cookie.split(';').next()).context("the server began no session")?.to_owned();
    let user = response.into_body().collect().await.map_err(|error| broke_off(&error))?.to_bytes();
    let user: User = serde_json::from_slice(&user).context("the server's answer cannot be read")?;

    // The session is the browser's way in; a terminal has a token, and the session ends.
    let origin = url.origin().ascii_serialization();
    let session = [("cookie", cookie.as_str()), ("origin", origin.as_str())];
    let wanted = CreateToken { name: "berth setup".to_owned(), expires_in_days: None };
    let created: CreatedToken = client.json(Method::POST, "/api/v1/tokens", Some(&wanted), &session).await?;
    let _: serde_json::Value = client.json(Method::DELETE, "/api/v1/sessions/current", None::<&()>, &session).await?;
    let server = url.as_str().trim_end_matches('/');
    let file = login::keep(global, server, created.secret)?;
    output::result(context.output, &user, |user| {
        format!("{} is the administrator of {server}, and signed in here (kept in {})", user.email, file.display())
    })
}
