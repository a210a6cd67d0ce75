//! How services authenticate to each other in the split shape: short-lived EdDSA tokens (RFC 7519, RFC 8037), signed with one key of the
//! installation.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use berth_clock::SharedClock;
use http::header;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::Problem;

/// The audience of tokens for the embedded Kubernetes API: a token for it opens no internal route, and vice versa.
pub const KUBERNETES_AUDIENCE: &str = "kubernetes";

/// How long a token lives, seconds.
const LIFETIME_SECONDS: i64 = 300;

/// The key pair could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not an Ed25519 key pair in PKCS #8 PEM.
    #[error("the service key is not an Ed25519 key pair in PEM: make one with `openssl genpkey -algorithm ed25519`")]
    Parse(#[source] jsonwebtoken::errors::Error),
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
}

/// The installation's key pair, from PEM.
#[derive(Clone)]
pub struct ServiceKeys {
    encoding: Arc<EncodingKey>,
    decoding: Arc<DecodingKey>,
}

impl std::fmt::Debug for ServiceKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceKeys")
    }
}

impl ServiceKeys {
    /// Reads the private key (signs) and the public key (verifies).
    ///
    /// # Errors
    /// When either is not Ed25519 PEM.
    pub fn from_pem(private_pem: &[u8], public_pem: &[u8]) -> Result<Self, KeyError> {
        Ok(Self {
            encoding: Arc::new(EncodingKey::from_ed_pem(private_pem).map_err(KeyError::Parse)?),
            decoding: Arc::new(DecodingKey::from_ed_pem(public_pem).map_err(KeyError::Parse)?),
        })
    }
}

/// Issues tokens in the name of one service, and reuses each until a minute before it expires.
#[derive(Clone)]
pub struct ServiceTokens {
    keys: ServiceKeys,
    clock: SharedClock,
    issuer: &'static str,
    cache: Arc<Mutex<std::collections::HashMap<String, (i64, String)>>>,
}

impl std::fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceTokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl ServiceTokens {
    /// Tokens that say `issuer`.
    #[must_use]
    pub fn for_service(issuer: &'static str, keys: ServiceKeys, clock: SharedClock) -> Self {
        Self { keys, clock, issuer, cache: Arc::default() }
    }

    /// A token for `audience`; empty if it cannot be signed, which the other side refuses.
    #[must_use]
    pub fn token_for(&self, audience: &str) -> String {
        let now = self.clock.now().timestamp();
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((expires, token)) = cache.get(audience)
            && *expires > now + 60
        {
            return token.clone();
        }
        let claims =
            Claims { iss: self.issuer.to_owned(), aud: audience.to_owned(), iat: now, exp: now + LIFETIME_SECONDS };
        match jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.keys.encoding) {
            Ok(token) => {
                cache.insert(audience.to_owned(), (claims.exp, token.clone()));
                token
            }
            Err(error) => {
                tracing::error!(%error, "a service token could not be signed");
                String::new()
            }
        }
    }
}

/// Which service called, for handlers that treat them differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallingService(pub String);

/// Admits only the named services. For the listener of internal routes; in one process the routers are called directly.
#[derive(Clone, Debug)]
pub struct RequireService {
    keys: ServiceKeys,
    clock: SharedClock,
    audience: &'static str,
    callers: &'static [&'static str],
}

impl RequireService {
    /// For the service `audience`, which accepts calls from `callers`.
    #[must_use]
    pub const fn new(
        keys: ServiceKeys,
        clock: SharedClock,
        audience: &'static str,
        callers: &'static [&'static str],
    ) -> Self {
        Self { keys, clock, audience, callers }
    }

    /// Wraps a router.
    pub fn protect(self, router: axum::Router) -> axum::Router {
        router.layer(axum::middleware::from_fn_with_state(self, Self::check))
    }

    async fn check(State(this): State<Self>, mut request: Request, next: Next) -> Result<Response, Problem> {
        let token = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| Problem::unauthorized("this listener is for Berth's services: send a service token"))?;
        let caller = this.verify(token)?;
        request.extensions_mut().insert(CallingService(caller));
        Ok(next.run(request).await)
    }

    /// The service that this token proves, if it is one of those that may call.
    ///
    /// # Errors
    /// 401 for every other token.
    pub fn verify(&self, token: &str) -> Result<String, Problem> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[self.audience]);
        validation.set_issuer(self.callers);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        // The expiry is checked against our own clock below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.keys.decoding, &validation)
            .map_err(|error| Problem::unauthorized("the service token is not valid here").with_source(error))?
            .claims;
        let now = self.clock.now().timestamp();
        if claims.exp < now - 60 || claims.iat > now + 60 {
            return Err(Problem::unauthorized("the service token is out of date: do the clocks agree?"));
        }
        Ok(claims.iss)
    }
}
