//! Calls to addresses that users give: the name is resolved once, every address checked, the checked address pinned; no redirects.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

/// An address that must not be called.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The name has no address.
    #[error("{host} cannot be resolved: check the host's name")]
    Unresolved {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of its addresses is private, loopback or otherwise not public.
    #[error(
        "{host}:{port} is the private address {address}: allow it with `scm.allow_private_hosts` or \
         BERTH_ALLOW_PRIVATE_HOSTS={host}:{port}, a registry of images with `node.allow_private_registries`"
    )]
    Private {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The address that is refused.
        address: IpAddr,
    },
    /// Plain http to a host that is not allowed by name.
    #[error("http://{host}:{port} is not encrypted: use https, or allow the host as you would a private one")]
    Plain {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

/// Finds the addresses of a host. The answer is untrusted, and may be another one the next time.
trait Lookup: Send + Sync + std::fmt::Debug {
    fn lookup<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// Resolves names as every program on this machine does.
#[derive(Debug)]
struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// Which private addresses may be called even so.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Arc<BTreeSet<(String, u16)>>,
    lookup: Arc<dyn Lookup>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { allowed: Arc::default(), lookup: Arc::new(SystemLookup) }
    }
}

/// An entry of the allow-list that is not `host:port`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not host:port: write for example 127.0.0.1:8080 or git.internal:443")]
pub struct BadAllowEntry(pub String);

impl Guard {
    /// Allows exactly these `host:port` pairs.
    ///
    /// # Errors
    /// When an entry is not `host:port`.
    pub fn new<'a>(allowed: impl IntoIterator<Item = &'a str>) -> Result<Self, BadAllowEntry> {
        let allowed = allowed.into_iter().map(parse_host_port).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Self { allowed: Arc::new(allowed), ..Self::default() })
    }

    /// Whether this pair is on the list. Names are compared as parsed values, never as prefixes.
    #[must_use]
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.allowed.contains(&(normalize(host), port))
    }

    /// The addresses of `host` that may be called: all public, or the pair is on the list.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn check(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refused> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let found = self.lookup.lookup(name, port).await;
        let addresses = found.map_err(|source| Refused::Unresolved { host: host.to_owned(), source })?;
        if addresses.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, "no addresses");
            return Err(Refused::Unresolved { host: host.to_owned(), source });
        }
        if !self.allows(host, port)
            && let Some(bad) = addresses.iter().find(|address| !is_public(address.ip()))
        {
            return Err(Refused::Private { host: host.to_owned(), port, address: bad.ip() });
        }
        Ok(addresses)
    }

    /// A client that can call only the checked addresses of this URL's host.
    ///
    /// # Errors
    /// See [`Refused`]; plain http only for hosts on the list.
    pub async fn client(&self, url: &url::Url, timeout: Duration) -> Result<reqwest::Client, Refused> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(443);
        if url.scheme() != "https" && !self.allows(host, port) {
            return Err(Refused::Plain { host: host.to_owned(), port });
        }
        Self::pinned(host, &self.check(host, port).await?, timeout)
    }

    /// A client that reaches `host` at these addresses only, which come from [`Guard::check`]. Making one costs milliseconds, so callers who
    /// ask a host again keep it for as long as the check gives the same addresses.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn pinned(host: &str, addresses: &[SocketAddr], timeout: Duration) -> Result<reqwest::Client, Refused> {
        #[expect(clippy::disallowed_methods, reason = "the one place that makes clients for the outside")]
        let builder = reqwest::Client::builder();
        builder
            .resolve_to_addrs(host, addresses)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10).min(timeout))
            .timeout(timeout)
            .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(Refused::Client)
    }
}

fn normalize(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

fn parse_host_port(entry: &str) -> Result<(String, u16), BadAllowEntry> {
    let bad = || BadAllowEntry(entry.to_owned());
    let (host, port) = entry.trim().rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let is_name = |host: &str| host.chars().all(|c| c.is_alphanumeric() || ".-_".contains(c));
    let is_address = |host: &str| host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if host.is_empty() || port == 0 || !(is_name(host) || is_address(host)) {
        return Err(bad());
    }
    Ok((normalize(host), port))
}

/// Whether an address is one of the public internet (RFC 6890 and the registries of special-purpose addresses).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || (a == 100 && (64..=127).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // An IPv4 address embedded in an IPv6 one, in any of the forms, is judged as what it is.
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let s = address.segments();
    let embedded_v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    if s[0] == 0x64 && s[1] == 0xff9b {
        return is_public_v4(embedded_v4(s[6], s[7]));
    }
    if s[0] == 0x2002 {
        return is_public_v4(embedded_v4(s[1], s[2]));
    }
    // Only 2000::/3 is global unicast; of it, 2001::/23 (protocol assignments) and 2001:db8::/32, 3fff::/20 (documentation) are not.
    (s[0] & 0xe000) == 0x2000
        && !(s[0] == 0x2001 && s[1] < 0x200)
        && !(s[0] == 0x2001 && s[1] == 0xdb8)
        && !(s[0] == 0x3fff && s[1] < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "ff02::1",
            "2001:db8::1",
            "198.18.0.1",
            "fd00:ec2::254",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "140.82.121.4", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[tokio::test]
    async fn a_private_host_is_refused_unless_named_with_its_port() {
        let guard = Guard::new(["127.0.0.1:8080"]).unwrap();
        assert!(guard.check("127.0.0.1", 8080).await.is_ok());
        assert!(matches!(guard.check("127.0.0.1", 8081).await, Err(Refused::Private { .. })));
        let url = "http://1.1.1.1/x".parse().unwrap();
        assert!(matches!(guard.client(&url, Duration::from_secs(1)).await, Err(Refused::Plain { .. })));
        for bad in ["nonsense", "*:443", "host:0", "a b:443", "me@host:443", "::1x:443", "host/path:443"] {
            assert!(Guard::new([bad]).is_err(), "{bad}");
        }
        for good in ["git.internal:443", "[::1]:80", "::1:80", "bücher.example:443", "a_b:1"] {
            assert!(Guard::new([good]).is_ok(), "{good}");
        }
    }
    /// A name server that gives one answer after another, the last for ever.
    #[derive(Debug)]
    struct Answers(std::sync::Mutex<Vec<Vec<SocketAddr>>>);

    impl Lookup for Answers {
        fn lookup<'a>(&'a self, _name: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
            let mut answers = self.0.lock().unwrap();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            Box::pin(async move { Ok(answer) })
        }
    }

    fn answering(answers: &[&[SocketAddr]], allowed: &[&str]) -> Guard {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        Guard {
            lookup: Arc::new(Answers(std::sync::Mutex::new(answers))),
            ..Guard::new(allowed.iter().copied()).unwrap()
        }
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_is_enough() {
        let (public, private) = ("1.1.1.1:443".parse().unwrap(), "10.0.0.1:443".parse().unwrap());
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:443".parse().unwrap();
        let other: SocketAddr = "[2606:4700::1111]:443".parse().unwrap();
        assert_eq!(answering(&[&[public, other]], &[]).check("host.test", 443).await.unwrap(), [public, other]);
        for answer in [[public, private], [private, public], [other, mapped]] {
            let refused = answering(&[&answer], &[]).check("host.test", 443).await.unwrap_err();
            assert!(matches!(refused, Refused::Private { .. }), "{answer:?}: {refused}");
        }
        let refused = answering(&[&[]], &[]).check("host.test", 443).await.unwrap_err();
        assert!(matches!(refused, Refused::Unresolved { .. }), "{refused}");
    }

    #[tokio::test]
    async fn a_name_that_changes_its_mind_leads_to_the_checked_address_only() {
        crate::install_crypto();
        let checked = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = checked.local_addr().unwrap();
        // Where the name leads when it is asked a second time: the same port of another address.
        let rebound = tokio::net::TcpListener::bind(("127.0.0.2", address.port())).await.unwrap();
        let name = format!("host.test:{}", address.port());
        let guard = answering(&[&[address], &[rebound.local_addr().unwrap()]], &[&name]);
        let url: url::Url = format!("http://{name}/").parse().unwrap();
        let client = guard.client(&url, Duration::from_secs(5)).await.unwrap();
        let accept = async {
            tokio::select! {
                accepted = checked.accept() => accepted.map(|_| "the checked address"),
                accepted = rebound.accept() => accepted.map(|_| "the other address"),
            }
        };
        // The connection is closed at once: who was called is all that matters.
        let (_, called) = tokio::join!(client.get(url.clone()).send(), accept);
        assert_eq!(called.unwrap(), "the checked address");
        // A client for the next call is checked anew, and the new answer counts.
        let guard = answering(&[&["1.1.1.1:443".parse().unwrap()], &[address]], &[]);
        let url: url::Url = "https://host.test/".parse().unwrap();
        assert!(guard.client(&url, Duration::from_secs(5)).await.is_ok());
        assert!(matches!(guard.client(&url, Duration::from_secs(5)).await, Err(Refused::Private { .. })));
    }
}
