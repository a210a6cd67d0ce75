//! Joins two connections: what one side sends reaches the other, to the last byte.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, sink, split};

/// How long a client may go on sending after the server has finished.
const LINGER: Duration = Duration::from_secs(5);

/// Relays until both sides have ended, or until the server has and the client does not follow.
///
/// It is no error if a server ends while its client still sends: what the client sends is then discarded, and what the server sent before its
/// end is still delivered. `tokio::io::copy_bidirectional` gives up both directions when one fails, and loses that: a program that ends
/// before it has read its input would never report its exit status.
pub async fn relay<C, S>(client: C, server: S)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let inward = async {
        if copy(&mut from_client, &mut to_server).await.is_err() {
            copy(&mut from_client, &mut sink()).await.ok();
        }
        to_server.shutdown().await.ok();
    };
    let outward = async {
        copy(&mut from_server, &mut to_client).await.ok();
        to_client.shutdown().await.ok();
    };
    tokio::pin!(inward, outward);
    tokio::select! {
        () = &mut inward => outward.await,
        // If the socket were closed with unread input, the connection would be reset, and the server's last bytes lost with it.
        () = &mut outward => { tokio::time::timeout(LINGER, inward).await.ok(); }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_server_that_ends_unasked_is_heard_to_its_last_word() {
        let (server, mut far) = UnixStream::pair().unwrap();
        let (mut near, client) = duplex(64 * 1024);
        // Before the relay starts, the server has ended, and the client has sent what nobody will read.
        far.write_all(b"the last word").await.unwrap();
        drop(far);
        near.write_all(b"input").await.unwrap();
        let relay = tokio::spawn(relay(client, server));
        let mut heard = String::new();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the last word");
        drop(near);
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_has_said_all_still_gets_its_answer() {
        let (server, mut far) = UnixStream::pair().unwrap();
        let (mut near, client) = duplex(1024);
        let relay = tokio::spawn(relay(client, server));
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut asked = String::new();
        far.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        far.write_all(b"answer").await.unwrap();
        drop(far);
        let mut heard = String::new();
        near.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        relay.await.unwrap();
    }
}
