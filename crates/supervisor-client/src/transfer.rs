//! Files: whole ones by value, trees as tar streams.

use berth_supervisor_protocol::{CopyIn, CopyOut, ErrorCode, Event, FileInfo, Kind, Reply, Request};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use crate::connection::unexpected;
use crate::{ClientError, Incoming, Receiver, Sender, SupervisorClient};

impl<S: AsyncRead + AsyncWrite + Unpin> SupervisorClient<S> {
    /// What is at a path.
    pub async fn stat(&mut self, path: &str) -> Result<FileInfo, ClientError> {
        match self.request(&Request::Stat { path: path.to_owned(), user: None }).await? {
            Reply::File(info) => Ok(info),
            other => Err(unexpected("stat", &other)),
        }
    }

    /// Reads a file of at most `max_bytes`; a longer one is cut and says so in [`FileInfo::truncated`].
    pub async fn read_file(&mut self, path: &str, max_bytes: u64) -> Result<(FileInfo, Vec<u8>), ClientError> {
        let info = match self.request(&Request::ReadFile { path: path.to_owned(), max_bytes, user: None }).await? {
            Reply::File(info) => info,
            other => return Err(unexpected("read_file", &other)),
        };
        let bound = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let mut content = Vec::new();
        loop {
            match self.receive().await?.ok_or(ClientError::Closed)? {
                Incoming::Bytes(Kind::Stdout, bytes) if bytes.is_empty() => return Ok((info, content)),
                Incoming::Bytes(Kind::Stdout, bytes) => {
                    // An untrusted stream: it may send more than was asked for.
                    if content.len().saturating_add(bytes.len()) > bound {
                        let message = format!("the supervisor sent more than {max_bytes} bytes of {path}");
                        return Err(ClientError::Refused { code: ErrorCode::LimitReached, message });
                    }
                    content.extend_from_slice(&bytes);
                }
                Incoming::Event(Event::Failed { code, message }) => {
                    return Err(ClientError::Refused { code, message });
                }
                Incoming::Event(_) | Incoming::Bytes(..) => {}
            }
        }
    }

    /// Unpacks a tar stream inside. When `tar` ends in an error nothing more is sent and the connection is dropped: what was unpacked stays.
    pub async fn copy_in(
        self,
        copy: CopyIn,
        tar: impl Stream<Item = Result<Bytes, std::io::Error>>,
    ) -> Result<(), ClientError> {
        self.upload(&Request::CopyIn(copy), tar).await
    }

    /// Packs a file or folder as a tar stream. The stream ends with an error when packing failed, so that a cut archive is never taken for a
    /// whole one.
    pub async fn copy_out(
        mut self,
        copy: CopyOut,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + use<S>, ClientError> {
        match self.request(&Request::CopyOut(copy)).await? {
            Reply::Ready => {}
            other => return Err(unexpected("copy_out", &other)),
        }
        Ok(futures::stream::unfold(Some(self), |client| async move {
            let mut client = client?;
            loop {
                let item = match client.receive().await {
                    Ok(Some(Incoming::Bytes(Kind::Stdout, bytes))) if bytes.is_empty() => continue,
                    Ok(Some(Incoming::Bytes(Kind::Stdout, bytes))) => return Some((Ok(bytes.into()), Some(client))),
                    Ok(Some(Incoming::Event(Event::Done))) => return None,
                    Ok(Some(Incoming::Event(Event::Failed { code, message }))) => {
                        Err(ClientError::Refused { code, message })
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) => Err(ClientError::Closed),
                    Err(error) => Err(error),
                };
                return Some((item, None));
            }
        }))
    }

    async fn upload(
        mut self,
        request: &Request,
        content: impl Stream<Item = Result<Bytes, std::io::Error>>,
    ) -> Result<(), ClientError> {
        match self.request(request).await? {
            Reply::Ready => {}
            other => return Err(unexpected("upload", &other)),
        }
        let (mut sender, mut receiver) = self.split();
        // The supervisor may fail (disk full) while bytes are still being sent: its answer is read at the same time.
        let mut answer = std::pin::pin!(last_word(&mut receiver));
        let mut sending = std::pin::pin!(send_all(&mut sender, content));
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            sent = &mut sending => match sent {
                Ok(()) => answer.await,
                // The pipe broke: if the supervisor said why, that is the better error.
                Err(error @ (ClientError::Io(_) | ClientError::Closed)) => match answer.await {
                    Err(refused @ ClientError::Refused { .. }) => Err(refused),
                    _ => Err(error),
                },
                Err(error) => Err(error),
            },
        }
    }
}

async fn send_all<S: AsyncRead + AsyncWrite + Unpin>(
    sender: &mut Sender<WriteHalf<S>>,
    content: impl Stream<Item = Result<Bytes, std::io::Error>>,
) -> Result<(), ClientError> {
    let mut content = std::pin::pin!(content);
    while let Some(piece) = content.next().await {
        let piece = piece.map_err(ClientError::Source)?;
        if !piece.is_empty() {
            sender.bytes(Kind::Stdin, &piece).await?;
        }
    }
    sender.bytes(Kind::Stdin, &[]).await
}

async fn last_word<S: AsyncRead + AsyncWrite + Unpin>(receiver: &mut Receiver<ReadHalf<S>>) -> Result<(), ClientError> {
    loop {
        match receiver.receive().await?.ok_or(ClientError::Closed)? {
            Incoming::Event(Event::Done) => return Ok(()),
            Incoming::Event(Event::Failed { code, message }) => {
                return Err(ClientError::Refused { code, message });
            }
            Incoming::Event(_) | Incoming::Bytes(..) => {}
        }
    }
}
