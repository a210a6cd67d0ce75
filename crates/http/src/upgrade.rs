//! A connection that left HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The raw byte stream after `101 Switching Protocols`.
#[derive(Debug)]
pub struct Upgraded {
    io: TokioIo<hyper::upgrade::Upgraded>,
}

impl Upgraded {
    /// Wraps what hyper gives out.
    #[must_use]
    pub fn new(upgraded: hyper::upgrade::Upgraded) -> Self {
        Self { io: TokioIo::new(upgraded) }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Server side: answers `101` for `protocol` and hands the stream to `serve` in a task of its own.
///
/// # Errors
/// 400 when the request does not ask for this protocol.
pub fn accept<F, Fut>(
    mut request: axum::extract::Request,
    protocol: &'static str,
    serve: F,
) -> Result<axum::response::Response, crate::Problem>
where
    F: FnOnce(Upgraded) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    use axum::http::{HeaderValue, StatusCode, header};
    use axum::response::IntoResponse as _;

    let asked = request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes() == protocol.as_bytes());
    if !asked {
        return Err(crate::Problem::bad_request("upgrade_required", format!("this needs `Upgrade: {protocol}`")));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(Upgraded::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, protocol, "a connection ended before its upgrade"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    Ok(response)
}
